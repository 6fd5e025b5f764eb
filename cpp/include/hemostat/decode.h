// Room `decode`: what happens to logits before a token is chosen. Tensors in, tensors out.
//
// Logits are [..., vocab] in float32, bfloat16 or float16; −inf marks a token that cannot be chosen. Arithmetic is in
// float32, results have the logits' dtype. ValueError for a parameter out of range, TypeError for a dtype, both before
// any work.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace hemostat::decode {

// logits / temperature; temperature > 0, neutral 1. Differentiable unless `out` is given.
// NumericalError where a finite logit divided by a temperature below 1 leaves the dtype.
//   out  the logits' dtype, shape and device, contiguous; may be `logits` itself
at::Tensor temperature(const at::Tensor& logits, double temperature,
                       const std::optional<at::Tensor>& out = std::nullopt);

}  // namespace hemostat::decode
