// Values held within −cap … cap (Gemma 2, arXiv 2408.00118, section 2).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/tanh.h>

namespace hemostat {

inline at::Tensor softcapped(const at::Tensor& x, double cap) { return at::tanh(x / cap) * cap; }

}  // namespace hemostat
