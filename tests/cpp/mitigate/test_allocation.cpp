// How much of a mean sparsity each linear takes.
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "mitigate/allocation.h"

namespace hemostat::mitigate {
namespace {

// log e = intercept + slope · logit s + bend · logit² s
DamageCurve curve(double intercept, double slope, double bend) {
  const std::array<double, 3> sparsities{0.35, 0.55, 0.75};
  std::array<double, 3> damages;
  for (size_t i = 0; i < sparsities.size(); ++i) {
    const double x = std::log(sparsities[i] / (1 - sparsities[i]));
    damages[i] = std::exp(intercept + slope * x + bend * x * x);
  }
  return DamageCurve(sparsities, damages);
}

double damage_of(const std::vector<DamageCurve>& curves, const std::vector<double>& shares) {
  double sum = 0;
  for (size_t i = 0; i < curves.size(); ++i) {
    sum += curves[i].at(shares[i]);
  }
  return sum;
}

TEST(DamageCurve, IsTheQuadraticThroughItsPoints) {
  for (const double s : {0.1, 0.35, 0.5, 0.9}) {
    const double x = std::log(s / (1 - s));
    EXPECT_NEAR(std::log(curve(-3, 2, 0.1).at(s)), -3 + 2 * x + 0.1 * x * x, 1e-9);
  }
}

TEST(DamageCurve, TakesDamagesOfZero) { EXPECT_GE(DamageCurve({0.35, 0.55, 0.75}, {0, 0, 0}).at(0.5), 0); }

TEST(Allocate, KeepsTheMeanAndTheWidth) {
  const std::vector<DamageCurve> curves{curve(-5, 1, 0), curve(-2, 3, 0.1), curve(-9, 2, 0), curve(-3, 0.5, 0.2)};
  const std::vector<double> weights{100, 900, 400, 2500};
  for (const double sparsity : {0.1, 0.5, 0.7, 0.95}) {
    for (const double width : {0.0, 0.05, 0.2, 1.0}) {
      const std::vector<double> shares = allocate(curves, weights, sparsity, width);
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      EXPECT_NEAR(std::inner_product(shares.begin(), shares.end(), weights.begin(), 0.0) / total, sparsity, 1e-9);
      for (const double share : shares) {
        EXPECT_LE(std::abs(share - sparsity), width + 1e-9);
        EXPECT_GT(share, 0);
        EXPECT_LT(share, 1);
      }
    }
  }
}

TEST(Allocate, IsAsGoodAsASearchOverAllShares) {
  const std::vector<DamageCurve> curves{curve(-4, 1.5, 0.1), curve(-2, 2, 0.05), curve(-6, 1, 0.2)};
  const std::vector<double> weights{3, 1, 2};
  const double sparsity = 0.6, width = 0.25;
  double best = std::numeric_limits<double>::infinity();
  for (double a = sparsity - width; a <= sparsity + width + 1e-9; a += 0.005) {
    for (double b = sparsity - width; b <= sparsity + width + 1e-9; b += 0.005) {
      const double c = (6 * sparsity - 3 * a - b) / 2;
      if (std::abs(c - sparsity) <= width + 1e-9) {
        best = std::min(best, damage_of(curves, {a, b, c}));
      }
    }
  }
  EXPECT_LE(damage_of(curves, allocate(curves, weights, sparsity, width)), best * 1.002);
}

TEST(Allocate, GivesTheCheaperLinearMore) {
  const std::vector<double> shares = allocate({curve(-6, 2, 0), curve(-2, 2, 0)}, {1, 1}, 0.5, 0.2);
  EXPECT_GT(shares[0], shares[1] + 0.1);
}

}  // namespace
}  // namespace hemostat::mitigate
