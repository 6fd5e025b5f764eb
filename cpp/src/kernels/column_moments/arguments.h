// Arguments of `column_moments`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <tuple>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"

namespace hemostat::kernels {

void check_column_moments(const at::Tensor& x);

// What `column_moments` returns; and its parts, [parts, columns] on the device of x, before they are merged.
using MomentTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
MomentTensors empty_moments(const at::Tensor& x);
MomentTensors merged(const MomentTensors& parts);

}  // namespace hemostat::kernels
