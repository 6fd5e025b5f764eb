// Room `lowrank`: a weight as the product of two thinner ones. Tensors in, tensors out.
#pragma once

#include <cstdint>
#include <tuple>

#include <ATen/core/Tensor.h>

#include <hemostat/options.h>

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
  at::Tensor us;                      // float32 [out_features, largest rank], in falling order of singular values
  at::Tensor vh;                      // float32 [largest rank, in_features]
  at::ScalarType dtype = at::kFloat;  // of the weight, and of the factors

  // The leading rank_for(removed) columns and rows. Contiguous, in `dtype`.
  Factors at(double removed) const;
};

// Singular value decomposition in float32 (LAPACK, or cuSOLVER): us = U · diag(S), vh = Vᵀ.
//   weight  [out_features, in_features], float32, bfloat16 or float16
// NaN or Inf: ValueError, unless check_finite is false. NumericalError if the iteration does not converge, or a factor
// is beyond its dtype.
Decomposition decompose(const at::Tensor& weight, bool check_finite = true);

template <typename Options>
constexpr auto removed_field() {
  return Field{"removed", &Options::removed, "fraction of the parameters removed", between(0, 1), SetBy::severity};
}

struct SvdOptions {
  double removed = 0;
  bool check_finite = true;

  static constexpr auto fields() { return std::tuple{removed_field<SvdOptions>(), check_finite_field<SvdOptions>()}; }
};

// The closest matrix of its rank in the Frobenius norm (Eckart and Young 1936): a = U_r · diag(S_r), b = V_rᵀ.
Factors svd(const at::Tensor& weight, const SvdOptions& options);

// What follows is closest in another norm: ‖(W − W')·S‖, with S of the layer's inputs. Let U_r be the leading left
// singular vectors of W·S. Then W' = [W·S]_r·S⁻¹ = U_r·U_rᵀ·W, so that S is never inverted, and the squared error is
// the sum of the squares of the singular values left out. a = U_r, b = U_rᵀ·W. U_r are eigenvectors of W·(S·Sᵀ)·Wᵀ,
// or where W is taller than wide, Q times those of R·(S·Sᵀ)·Rᵀ with W = Q·R; in float64, since squaring halves digits.

struct AsvdOptions {
  double removed = 0;
  double alpha = 0.5;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        removed_field<AsvdOptions>(),
        Field{"alpha", &AsvdOptions::alpha, "exponent of the mean |activation|; at 0 this is svd", at_least(0)},
        check_finite_field<AsvdOptions>()};
  }
};

// S = diag(activation_absmean^alpha + 1e-6): input features that are large count more (Yuan et al. 2023, "ASVD:
// Activation-aware Singular Value Decomposition for Compressing Large Language Models", arXiv 2312.05821).
//   activation_absmean  [in_features]: mean |x| of each input feature; finite, not negative
// ValueError for NaN or Inf, unless check_finite is false; NumericalError where the iteration does not converge, or
// meets numbers beyond float64.
Factors asvd(const at::Tensor& weight, const at::Tensor& activation_absmean, const AsvdOptions& options);
Decomposition decompose_asvd(const at::Tensor& weight, const at::Tensor& activation_absmean, double alpha = 0.5,
                             bool check_finite = true);

struct SvdLlmOptions {
  double removed = 0;
  double damp = 0;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{removed_field<SvdLlmOptions>(),
                      Field{"damp", &SvdLlmOptions::damp,
                            "what the Gram matrix's diagonal grows by, in fractions of its mean", at_least(0)},
                      check_finite_field<SvdLlmOptions>()};
  }
};

// S·Sᵀ = gram (the whitening of Wang et al. 2024, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large
// Language Model Compression", arXiv 2403.07378): the least error ‖(W − W')·X‖ of its rank on the inputs X that the
// Gram matrix saw. It takes any Gram matrix, also of fewer tokens than features, or with features that are
// always 0. Its diagonal grows by 2^-23 of its largest entry at least, which is float32's own rounding: directions that
// no input had are then ordered by the weight alone. A Gram matrix of zeros is taken for the identity.
//   gram  [in_features, in_features], symmetric: XᵀX / tokens
// Errors as asvd; NumericalError where gram is not positive semidefinite, but for rounding.
Factors svd_llm(const at::Tensor& weight, const at::Tensor& gram, const SvdLlmOptions& options);
Decomposition decompose_svd_llm(const at::Tensor& weight, const at::Tensor& gram, double damp = 0,
                                bool check_finite = true);

}  // namespace hemostat::lowrank
