// Arguments of `select`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"

namespace hemostat::kernels {

void check_mask_smallest(const at::Tensor& score, const std::optional<at::Tensor>& column_scale,
                         const c10::SymInt& removed, bool per_row, const at::Tensor& out);
void check_mask_pattern(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, const c10::SymInt& n,
                        const c10::SymInt& m, const at::Tensor& out);
void check_kept_until(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, bool per_row,
                      const at::Tensor& out);

}  // namespace hemostat::kernels
