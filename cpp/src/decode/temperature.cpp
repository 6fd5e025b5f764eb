#include <cmath>
#include <optional>
#include <string_view>

#include <ATen/ScalarOps.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/div.h>
#include <fmt/format.h>

#include <hemostat/decode.h>
#include <hemostat/error.h>

#include "arguments.h"

namespace hemostat::decode {

at::Tensor temperature(const at::Tensor& logits, double temperature, const std::optional<at::Tensor>& out) {
  constexpr std::string_view kOperation = "hemostat.decode.temperature";
  arguments::check_floating(kOperation, "logits", logits);
  if (!(temperature > 0.0) || !std::isfinite(temperature)) {
    throw ValueError(fmt::format("{}: temperature is {}, but must be positive and finite", kOperation, temperature));
  }
  if (!out) {
    return at::div(logits, temperature);
  }
  arguments::check_out(kOperation, *out, logits.sizes(), logits.scalar_type(), logits.device());
  arguments::check_out_without_gradient(kOperation, "logits", logits);
  arguments::is_in_place(kOperation, *out, "logits", logits);
  at::Tensor result = *out;
  return at::div_out(result, logits.detach(), c10::scalar_to_tensor(temperature));
}

}  // namespace hemostat::decode
