// Arguments of `solve_columns`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"
#include "kernels/solve_columns/solve_columns.h"

namespace hemostat::kernels {

void check_solve_columns(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, const c10::SymInt& n, const c10::SymInt& m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         const c10::SymInt& group_size, const c10::SymInt& first, const c10::SymInt& levels,
                         const at::Tensor& solution, const at::Tensor& error);

// Of checked arguments.
ColumnBlock column_block(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, int64_t n, int64_t m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         int64_t group_size, int64_t first, int64_t levels, at::Tensor& solution, at::Tensor& error);

}  // namespace hemostat::kernels
