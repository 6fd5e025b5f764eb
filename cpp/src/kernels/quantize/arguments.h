// Arguments of `quantize`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"

namespace hemostat::kernels {

void check_fake_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size,
                         const at::Tensor& out);
void check_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size);
void check_search_clip(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size);

}  // namespace hemostat::kernels
