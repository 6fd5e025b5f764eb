// What a Gram matrix must be, and how much of it is taken at once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/solve.h>

namespace hemostat::solve {

// ValueError, TypeError naming `operation`, for everything but the entries.
void check_gram(std::string_view operation, const at::Tensor& gram, const GramFactorOptions& options);

// Rows or columns that a GEMM takes together, whole blocks: far fewer than 512 would leave it below its speed.
inline int64_t panel_size(int64_t block_size) { return std::max<int64_t>(1, 512 / block_size) * block_size; }

}  // namespace hemostat::solve
