#include "metrics/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

namespace hemostat {

std::vector<std::vector<double>> bootstrap_means(const std::vector<std::vector<double>>& series, int64_t samples,
                                                 int64_t seed) {
  std::vector<std::vector<double>> means(samples, std::vector<double>(series.size(), 0));
  if (series.empty() || series.front().empty()) {
    return means;
  }
  const uint64_t windows = series.front().size();
  std::mt19937_64 random(static_cast<uint64_t>(seed));  // the standard's distributions differ between libraries
  for (auto& mean : means) {
    for (uint64_t draw = 0; draw < windows; ++draw) {
      const auto window = static_cast<size_t>((static_cast<unsigned __int128>(random()) * windows) >> 64);
      for (size_t i = 0; i < series.size(); ++i) {
        mean[i] += series[i][window];
      }
    }
    for (double& value : mean) {
      value /= static_cast<double>(windows);
    }
  }
  return means;
}

double quantile(const std::vector<double>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(position));
  const double low = sorted[below];
  const double high = sorted[std::min(below + 1, sorted.size() - 1)];
  const double t = position - static_cast<double>(below);
  if (low == high || t == 0) {
    return low;
  }
  if (std::isinf(high)) {
    return high;
  }
  return t < 0.5 ? low + (high - low) * t : high - (high - low) * (1 - t);
}

std::optional<Interval> middle_95(std::vector<double> values) {
  if (values.empty()) {
    return std::nullopt;
  }
  if (std::any_of(values.begin(), values.end(), [](double value) { return std::isnan(value); })) {
    return Interval{std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  }
  std::sort(values.begin(), values.end());
  return Interval{quantile(values, 0.025), quantile(values, 0.975)};
}

std::optional<Interval> bootstrap_interval(const std::vector<double>& series, int64_t samples, int64_t seed) {
  if (series.size() < 2) {
    return std::nullopt;
  }
  std::vector<double> means;
  means.reserve(samples);
  for (const auto& sample : bootstrap_means({series}, samples, seed)) {
    means.push_back(sample.front());
  }
  return middle_95(std::move(means));
}

}  // namespace hemostat
