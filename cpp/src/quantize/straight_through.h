// The straight-through gradient of everything that rounds.
#pragma once

#include <ATen/core/Tensor.h>

namespace hemostat::quantize {

// `rounded`, to which autograd attaches an identity gradient to `input`. The value is `rounded`, bit for bit.
at::Tensor straight_through(const at::Tensor& input, const at::Tensor& rounded);

}  // namespace hemostat::quantize
