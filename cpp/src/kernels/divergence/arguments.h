// Arguments of `divergence`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"
#include "kernels/divergence/divergence.h"

namespace hemostat::kernels {

void check_divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale);

// What `divergence` returns, in the order of DivergenceOut, on the device of the logits; and where to write it.
using DivergenceTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                                     at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
DivergenceTensors empty_divergence(const at::Tensor& baseline_logits);
DivergenceOut divergence_out(DivergenceTensors& tensors);

}  // namespace hemostat::kernels
