#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "common/arguments.h"

namespace hemostat::prune {

namespace {

// |weight| · norm, float32.
at::Tensor score_of(const at::Tensor& weight, const at::Tensor& norm) {
  return weight.detach().to(at::kFloat).abs().mul(norm.detach().to(at::kFloat));
}

}  // namespace

double outlier_ratio(at::TensorList weights, at::TensorList activation_norms, double outlier_threshold,
                     bool check_finite) {
  constexpr std::string_view kOperation = "hemostat.prune.outlier_ratio";
  if (weights.empty() || weights.size() != activation_norms.size()) {
    throw ValueError(fmt::format("{}: weights are {} and activation_norms {}, but must be equally many, at least one",
                                 kOperation, weights.size(), activation_norms.size()));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    arguments::check_matrix(kOperation, fmt::format("weights[{}]", i), weights[i]);
    arguments::checked_features(kOperation, fmt::format("activation_norms[{}]", i), activation_norms[i], weights[i]);
  }
  check_range(kOperation, "outlier_threshold", outlier_threshold, at_least(0));

  double sum = 0;
  int64_t entries = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (check_finite) {
      arguments::check_finite(kOperation, fmt::format("weights[{}]", i), weights[i]);
      arguments::check_not_negative(kOperation, fmt::format("activation_norms[{}]", i), activation_norms[i]);
    }
    sum += score_of(weights[i], activation_norms[i]).sum(at::kDouble).item<double>();
    entries += weights[i].numel();
  }
  if (entries == 0) {
    return 0;
  }
  const double limit = outlier_threshold * sum / static_cast<double>(entries);
  int64_t outliers = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    outliers += score_of(weights[i], activation_norms[i]).gt(limit).sum().item<int64_t>();
  }
  return static_cast<double>(outliers) / static_cast<double>(entries);
}

std::vector<double> owl(const std::vector<double>& ratios, const OwlOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.owl";
  check_options(kOperation, options);
  for (size_t i = 0; i < ratios.size(); ++i) {
    if (!std::isfinite(ratios[i])) {
      throw ValueError(fmt::format("{}: ratios[{}] is {}, but must be finite", kOperation, i, ratios[i]));
    }
  }
  if (ratios.empty()) {
    return {};
  }
  const auto [least, most] = std::minmax_element(ratios.begin(), ratios.end());
  std::vector<double> result(ratios.size(), options.sparsity);
  if (*least == *most) {
    return result;
  }
  const double mean = std::accumulate(ratios.begin(), ratios.end(), 0.0, [&](double sum, double ratio) {
    return sum + (ratio - *least) / static_cast<double>(ratios.size());
  });
  double spread = 2 * options.lamda;
  // The most outliers lie furthest below the mean, the fewest furthest above it.
  const double below = (*most - *least - mean) / (*most - *least), above = mean / (*most - *least);
  spread = std::min({spread, options.sparsity / below, (1 - options.sparsity) / above});
  for (size_t i = 0; i < ratios.size(); ++i) {
    const double difference = (ratios[i] - *least - mean) / (*most - *least);
    result[i] = std::clamp(options.sparsity - spread * difference, 0.0, 1.0);
  }
  return result;
}

}  // namespace hemostat::prune
