// Room `lowrank`: a weight as the product of two thinner ones. Tensors in, tensors out.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace hemostat::lowrank {

// weight ≈ a · b
struct Factors {
  at::Tensor a;  // [out_features, rank]
  at::Tensor b;  // [rank, in_features]

  int64_t rank() const { return a.size(1); }

  // a · b, multiplied in float32, in the factors' dtype
  at::Tensor weight() const;
};

// The rank at which two factors hold (1 − removed) of the matrix's parameters:
//   floor((1 − removed) · out · in / (out + in)),
// where a product within rounding of an integer is that integer. It is at least 1 while anything is kept, and 0 at
// removed = 1. It jumps at 0: keeping every rank of a square matrix would double its parameters, so that removed = 0
// keeps half of the ranks, in as many parameters as the matrix had.
int64_t rank_for(double removed, int64_t out_features, int64_t in_features);

// A matrix factored once, for any severity. Up to rank_for(0, …) columns; more would have more parameters.
struct Decomposition {
  at::Tensor us;                      // U · diag(S), float32 [out_features, largest rank], in falling order of S
  at::Tensor vh;                      // float32 [largest rank, in_features]
  at::ScalarType dtype = at::kFloat;  // of the weight, and of the factors

  // The leading rank_for(removed) columns and rows. Contiguous, in `dtype`.
  Factors at(double removed) const;
};

// Singular value decomposition in float32 (LAPACK, or cuSOLVER).
//   weight  [out_features, in_features], float32, bfloat16 or float16
// NaN or Inf: ValueError, unless check_finite is false. NumericalError if the iteration does not converge.
Decomposition decompose(const at::Tensor& weight, bool check_finite = true);

struct SvdOptions {
  double removed = 0;  // fraction of the parameters removed, 0 … 1
  bool check_finite = true;
};

// The closest matrix of its rank in the Frobenius norm (Eckart and Young 1936): a = U_r · diag(S_r), b = V_rᵀ.
Factors svd(const at::Tensor& weight, const SvdOptions& options);

}  // namespace hemostat::lowrank
