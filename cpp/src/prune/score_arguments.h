// The argument `activation_norm` of scores.
#pragma once

#include <string_view>

#include <ATen/core/Tensor.h>

namespace hemostat::prune {

// Checks it and the weight; → activation_norm as the kernels take it.
at::Tensor checked_norm(std::string_view operation, const at::Tensor& weight, const at::Tensor& activation_norm,
                        bool check_finite);

// The score of finite arguments; NumericalError where it is beyond float32.
//   name  what was multiplied
at::Tensor checked_score(std::string_view operation, std::string_view name, at::Tensor score);

}  // namespace hemostat::prune
