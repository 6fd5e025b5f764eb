// What every fake quantizer does around its kernel.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include <ATen/core/Tensor.h>

namespace hemostat::quantize {

// `rounded`, to which autograd attaches an identity gradient to `input` where it wants one. The value is `rounded`, bit
// for bit.
at::Tensor straight_through(const at::Tensor& input, const at::Tensor& rounded);

// Where `invalid`, a kernel's count, is not 0: ValueError where `input` has NaN or infinite entries, NumericalError
// where its finite entries round to infinite ones.
void check_rounded(std::string_view operation, std::string_view name, const at::Tensor& input,
                   const at::Tensor& invalid);

// That look. Empty unless check_finite.
std::function<void(const at::Tensor& invalid)> finite_check(std::string_view operation, std::string_view name,
                                                            const at::Tensor& input, bool check_finite);

struct FakeQuantizer {
  std::string_view operation, name;  // what messages begin with, and what they call the input
  // kernel(values, to): writes what values round to, and counts those that its formula cannot take
  std::function<at::Tensor(const at::Tensor&, at::Tensor&)> kernel;
  std::function<void(const at::Tensor& invalid)> check;  // throws where that count is not 0; empty: no look
};

// A checked input rounded, in its dtype and shape: into `out` where that is given (checked here), which may be the
// input itself. An input that `check` refuses stays as it was. Gradients pass straight through.
at::Tensor fake_quantized(const FakeQuantizer& quantizer, const at::Tensor& input,
                          const std::optional<at::Tensor>& out);

}  // namespace hemostat::quantize
