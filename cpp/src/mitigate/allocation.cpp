#include "mitigate/allocation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace hemostat::mitigate {
namespace {

constexpr double kLeast = 1e-30;  // of a damage, so that it has a logarithm
constexpr int kSteps = 160;       // between the least and the most sparsity that a linear may take
constexpr double kEnds = 0.01;    // no linear is left whole or emptied

double logit(double s) { return std::log(s / (1 - s)); }

}  // namespace

DamageCurve::DamageCurve(const std::array<double, 3>& sparsities, const std::array<double, 3>& damages) {
  std::array<double, 3> x, y;
  std::transform(sparsities.begin(), sparsities.end(), x.begin(), logit);
  std::transform(damages.begin(), damages.end(), y.begin(), [](double e) { return std::log(std::max(e, kLeast)); });
  const double first = (y[1] - y[0]) / (x[1] - x[0]);  // divided differences
  const double second = ((y[2] - y[1]) / (x[2] - x[1]) - first) / (x[2] - x[0]);
  coefficients_ = {y[0] - first * x[0] + second * x[0] * x[1], first - second * (x[0] + x[1]), second};
}

double DamageCurve::at(double sparsity) const {
  const double x = logit(sparsity);
  return std::exp(coefficients_[0] + x * (coefficients_[1] + x * coefficients_[2]));
}

std::vector<double> allocate(const std::vector<DamageCurve>& curves, const std::vector<double>& weights,
                             double sparsity, double width) {
  const double least = std::max(std::min(kEnds, sparsity), sparsity - width);
  const double most = std::min(std::max(1 - kEnds, sparsity), sparsity + width);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> steps(kSteps + 1);
  for (int i = 0; i <= kSteps; ++i) {
    steps[i] = least + (most - least) * i / kSteps;
  }
  std::vector<std::vector<double>> damages;
  for (const DamageCurve& curve : curves) {
    std::vector<double>& own = damages.emplace_back();
    for (const double s : steps) {
      own.push_back(own.empty() ? curve.at(s) : std::max(curve.at(s), own.back()));  // more never costs less
    }
  }
  const auto at_price = [&](double price) {
    std::vector<double> shares;
    for (size_t l = 0; l < curves.size(); ++l) {
      const auto cost = [&](size_t i) { return damages[l][i] - price * weights[l] * steps[i]; };
      size_t best = 0;
      for (size_t i = 1; i < steps.size(); ++i) {
        best = cost(i) < cost(best) ? i : best;
      }
      shares.push_back(steps[best]);
    }
    return shares;
  };
  const auto mean = [&](const std::vector<double>& shares) {
    return std::inner_product(shares.begin(), shares.end(), weights.begin(), 0.0) / total;
  };
  double low = -100, high = 50;  // log price
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (mean(at_price(std::exp(middle))) < sparsity ? low : high) = middle;
  }
  // The two prices differ by one linear's step: what is between them keeps the mean.
  const std::vector<double> below = at_price(std::exp(low)), above = at_price(std::exp(high));
  const double gap = mean(above) - mean(below), share = gap > 0 ? (sparsity - mean(below)) / gap : 0;
  std::vector<double> result;
  for (size_t l = 0; l < curves.size(); ++l) {
    result.push_back(below[l] + std::clamp(share, 0.0, 1.0) * (above[l] - below[l]));
  }
  return result;
}

}  // namespace hemostat::mitigate
