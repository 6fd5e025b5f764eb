// Ranks and leading factors, which every decomposition shares.
#pragma once

#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/lowrank.h>

namespace hemostat::lowrank {

// rank_for; ValueError in the operation's name.
int64_t checked_rank(std::string_view operation, double removed, int64_t out_features, int64_t in_features);

// The first `rank` columns and rows, as factors of their own; NumericalError where they are beyond their dtype.
Factors leading(std::string_view operation, const Decomposition& decomposition, int64_t rank);

// Of a weight without entries.
Decomposition of_nothing(const at::Tensor& weight);

}  // namespace hemostat::lowrank
