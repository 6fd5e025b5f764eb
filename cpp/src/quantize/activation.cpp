#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "arguments.h"
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
  bool in_place = false;
  if (options.out) {
    arguments::check_out(kOperation, *options.out, input.sizes(), input.scalar_type(), input.device());
    arguments::check_out_without_gradient(kOperation, "input", input);
    in_place = arguments::is_in_place(kOperation, *options.out, "input", input);
  }

  const at::Tensor values = input.detach();
  at::Tensor out = options.out ? *options.out : at::empty(values.sizes(), values.options());
  if (values.numel() == 0) {
    return out;
  }
  const int64_t features = input.size(-1);
  // An input with NaN must come back as it was: it is overwritten only once it was seen to have none.
  const bool aside = in_place && options.check_finite;
  at::Tensor rounded = aside ? at::empty(values.sizes(), values.options()) : out;
  at::Tensor rows = rounded.view({-1, features});
  const at::Tensor invalid =
      kernels::fake_quantize(values.reshape({-1, features}), levels, features, options.symmetric, rows);
  if (options.check_finite) {
    arguments::check_invalid(kOperation, "input", invalid, "NaN or infinite");
  }
  if (aside) {
    out.copy_(rounded);
  }
  return arguments::wants_gradient(input) ? straight_through(input, out) : out;
}

}  // namespace hemostat::quantize
