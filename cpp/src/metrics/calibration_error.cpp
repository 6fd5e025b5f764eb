#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/metrics.h>

#include "common/arguments.h"

namespace hemostat::metrics {

double expected_calibration_error(const at::Tensor& confidence, const at::Tensor& right, int64_t bins) {
  constexpr const char* kOperation = "hemostat.metrics.expected_calibration_error";
  constexpr int64_t kMostBins = int64_t{1} << 20;
  if (bins < 1 || bins > kMostBins) {
    throw ValueError(fmt::format("{}: bins is {}, but takes 1 … {}", kOperation, bins, kMostBins));
  }
  arguments::check_dense(kOperation, "confidence", confidence);
  arguments::check_dense(kOperation, "right", right);
  if (!at::isFloatingType(confidence.scalar_type())) {
    throw TypeError(fmt::format("{}: confidence is {}, but takes a floating dtype", kOperation,
                                arguments::dtype_name(confidence.scalar_type())));
  }
  if (right.scalar_type() != at::kBool) {
    throw TypeError(
        fmt::format("{}: right is {}, but takes bool", kOperation, arguments::dtype_name(right.scalar_type())));
  }
  if (right.sizes() != confidence.sizes()) {
    throw ValueError(fmt::format("{}: right is {}, but confidence is {}", kOperation, arguments::shape(right.sizes()),
                                 arguments::shape(confidence.sizes())));
  }

  const at::Tensor confidences = confidence.detach().to(at::kCPU, at::kDouble).contiguous();
  const at::Tensor rights = right.to(at::kCPU).contiguous();
  const double* values = confidences.const_data_ptr<double>();
  const bool* correct = rights.const_data_ptr<bool>();
  const int64_t tokens = confidences.numel();
  std::vector<double> surplus(bins, 0);  // of confidence over accuracy, summed
  for (int64_t i = 0; i < tokens; ++i) {
    if (std::isnan(values[i])) {
      return std::numeric_limits<double>::quiet_NaN();
    }
    if (values[i] < 0 || values[i] > 1) {
      throw ValueError(fmt::format("{}: confidence has {}, but takes 0 … 1", kOperation, values[i]));
    }
    const auto bin = static_cast<int64_t>(std::ceil(values[i] * static_cast<double>(bins))) - 1;
    surplus[std::clamp<int64_t>(bin, 0, bins - 1)] += values[i] - (correct[i] ? 1 : 0);
  }
  double error = 0;
  for (const double bin : surplus) {
    error += std::abs(bin);  // |accuracy − confidence| · tokens of the bin
  }
  return error / static_cast<double>(tokens);
}

}  // namespace hemostat::metrics
