// What a Gram matrix must be.
#pragma once

#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/solve.h>

namespace hemostat::solve {

// ValueError, TypeError naming `operation`, for everything but the entries.
void check_gram(std::string_view operation, const at::Tensor& gram, const GramFactorOptions& options);

}  // namespace hemostat::solve
