#include <cmath>
#include <optional>
#include <string_view>

#include <ATen/ScalarOps.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/div.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isinf.h>
#include <fmt/format.h>

#include <hemostat/decode.h>
#include <hemostat/error.h>

#include "common/arguments.h"

namespace hemostat::decode {

namespace {

// What was filtered before stays infinite; only what a small temperature makes so is refused.
void check_overflow(std::string_view operation, const at::Tensor& logits, const at::Tensor& scaled,
                    double temperature) {
  if (temperature >= 1 || scaled.numel() == 0) {
    return;
  }
  const auto [lowest, highest] = at::aminmax(scaled);
  if (std::isfinite(lowest.item<double>()) && std::isfinite(highest.item<double>())) {
    return;
  }
  const auto count = at::isinf(scaled).logical_and_(at::isfinite(logits)).sum().item<int64_t>();
  if (count != 0) {
    throw NumericalError(
        fmt::format("{}: temperature is {}, so small that {} of the logits divided by it would be beyond {}", operation,
                    temperature, count, arguments::dtype_name(scaled.scalar_type())));
  }
}

}  // namespace

at::Tensor temperature(const at::Tensor& logits, double temperature, const std::optional<at::Tensor>& out) {
  constexpr std::string_view kOperation = "hemostat.decode.temperature";
  arguments::check_floating(kOperation, "logits", logits);
  if (!(temperature > 0.0) || !std::isfinite(temperature)) {
    throw ValueError(fmt::format("{}: temperature is {}, but must be positive and finite", kOperation, temperature));
  }
  const auto checked = [&](at::Tensor scaled) {
    check_overflow(kOperation, logits.detach(), scaled.detach(), temperature);
    return scaled;
  };
  if (!out) {
    return checked(at::div(logits, temperature));
  }
  arguments::check_out(kOperation, *out, logits.sizes(), logits.scalar_type(), logits.device());
  arguments::check_out_without_gradient(kOperation, "logits", logits);
  const bool in_place = arguments::is_in_place(kOperation, *out, "logits", logits);
  at::Tensor result = *out;
  if (in_place && temperature < 1) {
    return result.copy_(checked(at::div(logits.detach(), temperature)));
  }
  return checked(at::div_out(result, logits.detach(), c10::scalar_to_tensor(temperature)));
}

}  // namespace hemostat::decode
