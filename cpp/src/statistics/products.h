// Sums over tokens of the products of what they bring: Gram matrices, and those of two inputs.
#pragma once

#include <ATen/core/Tensor.h>

namespace hemostat {

// sum += leftᵀ · right, for rows [tokens, m] and [tokens, n] of one floating dtype; sum float32 [m, n], perhaps mapped
// to a file while the rows are on an accelerator. bfloat16 rows are not rounded further.
void add_products(const at::Tensor& sum, const at::Tensor& left, const at::Tensor& right);

// sum += rowsᵀ · rows, of which only the lower triangle counts: half the work of the whole.
void add_gram(const at::Tensor& sum, const at::Tensor& rows);

}  // namespace hemostat
