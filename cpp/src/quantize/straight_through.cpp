#include "straight_through.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <hemostat/error.h>

#include "common/arguments.h"

namespace hemostat::quantize {

namespace {

struct StraightThrough : torch::autograd::Function<StraightThrough> {
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/, const at::Tensor& /*input*/,
                            const at::Tensor& rounded) {
    return rounded.view_as(rounded);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* /*context*/,
                                                 torch::autograd::variable_list gradients) {
    return {gradients[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor straight_through(const at::Tensor& input, const at::Tensor& rounded) {
  return arguments::wants_gradient(input) ? StraightThrough::apply(input, rounded) : rounded;
}

void check_rounded(std::string_view operation, std::string_view name, const at::Tensor& input,
                   const at::Tensor& invalid) {
  const auto count = invalid.item<int64_t>();
  if (count == 0) {
    return;
  }
  arguments::check_finite(operation, name, input.detach());
  throw NumericalError(fmt::format("{}: {} is too large: {} of its groups would round beyond {}", operation, name,
                                   count, arguments::dtype_name(input.scalar_type())));
}

std::function<void(const at::Tensor&)> finite_check(std::string_view operation, std::string_view name,
                                                    const at::Tensor& input, bool check_finite) {
  if (!check_finite) {
    return nullptr;
  }
  return [=](const at::Tensor& invalid) { check_rounded(operation, name, input, invalid); };
}

at::Tensor fake_quantized(const FakeQuantizer& quantizer, const at::Tensor& input,
                          const std::optional<at::Tensor>& out) {
  bool in_place = false;
  if (out) {
    arguments::check_out(quantizer.operation, *out, input.sizes(), input.scalar_type(), input.device());
    arguments::check_out_without_gradient(quantizer.operation, quantizer.name, input);
    in_place = arguments::is_in_place(quantizer.operation, *out, quantizer.name, input);
  }
  const at::Tensor values = input.detach();
  at::Tensor result = out ? *out : at::empty(values.sizes(), values.options());
  if (values.numel() == 0) {
    return result;
  }
  // An input with NaN must come back as it was: it is overwritten only once it was seen to have none.
  const bool aside = in_place && quantizer.check;
  at::Tensor rounded = aside ? at::empty(values.sizes(), values.options()) : result;
  const at::Tensor invalid = quantizer.kernel(values, rounded);
  if (quantizer.check) {
    quantizer.check(invalid);
  }
  if (aside) {
    result.copy_(rounded);
  }
  return straight_through(input, result);
}

}  // namespace hemostat::quantize
