// Arguments of `block_float`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <string_view>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"
#include "kernels/block_float/block_float.h"

namespace hemostat::kernels {

BlockElement check_block_float(std::string_view op, const at::Tensor& weight, std::string_view format,
                               const c10::SymInt& block_size);
void check_block_float_out(const at::Tensor& weight, const at::Tensor& out);

}  // namespace hemostat::kernels
