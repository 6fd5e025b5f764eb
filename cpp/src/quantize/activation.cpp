#include <string_view>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "groups.h"
#include "straight_through.h"

namespace hemostat::quantize {

at::Tensor activation(const at::Tensor& input, const ActivationOptions& options) {
  constexpr std::string_view kOperation = "hemostat.quantize.activation";
  arguments::check_floating(kOperation, "input", input);
  if (input.dim() == 0) {
    throw ValueError(fmt::format("{}: input is a scalar, but must be [..., in_features]", kOperation));
  }
  const int64_t levels = checked_levels(kOperation, options.bits);
  const auto kernel = [&](const at::Tensor& values, at::Tensor& to) {
    const int64_t features = values.size(-1);
    at::Tensor rows = to.view({-1, features});
    return kernels::fake_quantize(values.reshape({-1, features}), levels, features, options.symmetric, rows);
  };
  return fake_quantized({.operation = kOperation,
                         .name = "input",
                         .kernel = kernel,
                         .check = finite_check(kOperation, "input", input, options.check_finite)},
                        input, options.out);
}

}  // namespace hemostat::quantize
