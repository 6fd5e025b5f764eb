// Room `solve`: the column solver that SparseGPT and GPTQ share. Columns of a weight are rounded or removed one after
// the other, and those not yet done take up the error, so that the layer's output changes least (OBS; Frantar &
// Alistarh 2023, "SparseGPT", arXiv 2301.00774; Frantar et al. 2023, "GPTQ", arXiv 2210.17323).
//
// With H the damped Gram matrix, H = U·Uᵀ (U upper triangular) and D = W − Q, column j's weight when its turn comes is
//   W_j + Σ_{i<j} D_i · U_ij / U_jj
// and the papers' [chol(H⁻¹)]_jj is 1/U_jj: one Cholesky factorization, and half a GEMM for each solution. No inverse
// of H is formed.
//
// Errors: ValueError for a shape, device or option that cannot be (before any work) and for NaN or infinite entries
// (check_finite = false skips the look); TypeError for a dtype; NumericalError where no damping makes H positive
// definite.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/options.h>

namespace hemostat::solve {

template <typename Options>
constexpr auto damp_field() {
  return Field{"damp", &Options::damp,
               "share of the mean diagonal entry added to the Gram matrix's diagonal; more where that is too little",
               at_least(0)};
}

struct GramFactorOptions {
  // The entry of a feature which never was active counts as 1, as in the authors' code. Where H is not positive
  // definite then, ten times as much is tried, from 1e-6 on up to 1.
  double damp = 0.01;
  bool act_order = false;    // GPTQ's act-order
  int64_t block_size = 128;  // SparseGPT chooses its mask in each
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        damp_field<GramFactorOptions>(),
        Field{"act_order", &GramFactorOptions::act_order, "takes the features of the largest diagonal entries first"},
        Field{"block_size", &GramFactorOptions::block_size, "columns that are solved together", at_least(1)},
        check_finite_field<GramFactorOptions>()};
  }
};

// A Gram matrix factored once, for every weight with that input and every severity. Immutable.
class GramFactor {
 public:
  // gram  XᵀX over the number of tokens, float32 [in_features, in_features], symmetric (only its lower triangle
  // counts). Features that never were active (a diagonal entry of 0) take no part: their weights become 0.
  //   operation  what errors begin with
  explicit GramFactor(const at::Tensor& gram, const GramFactorOptions& options = {},
                      std::string_view operation = "hemostat.solve.GramFactor");

  int64_t in_features() const { return matrix_.size(0); }
  int64_t block_size() const { return block_size_; }
  double damp() const { return damp_; }  // what was added in the end, as a share of the mean diagonal entry

  // float32 [in_features, in_features], columns in the solver's order. The blocks on the diagonal are U_bb⁻¹, those
  // above it U_ab · U_bb⁻¹, those below it mean nothing.
  const at::Tensor& matrix() const { return matrix_; }

  // int64 [in_features]: order[i] is the feature that comes i-th; undefined where they come as they are.
  const at::Tensor& order() const { return order_; }

  // bool [in_features], of features as they are: never active; undefined where all were.
  const at::Tensor& dead() const { return dead_; }

  GramFactor to(c10::Device device) const;
  GramFactor with_matrix(at::Tensor matrix) const;  // the same matrix at another place, as in a mapped file

 private:
  at::Tensor matrix_, order_, dead_;
  int64_t block_size_ = 0;
  double damp_ = 0;
};

// What falls: floor(sparsity · n) weights of each block of columns, over all rows, those of the smallest
// (w / [chol(H⁻¹)]_jj)²; or all but n of every m columns of a row.
struct Pruning {
  double sparsity = 0;
  int64_t n = 0, m = 0;  // m > 0: n:m, and sparsity says nothing; m divides the block size and in_features
};

// The grid of values, as quantize::rtn_packed makes it of a group's weights when the group's block begins.
struct Rounding {
  double bits = 4;  // 2 … 8
  int64_t group_size =
      -1;  // −1: whole rows, whose range is that of the weights as they were; or a divisor of in_features
  bool symmetric = false;
  // Groups are of neighbours as they are, whatever the factor's order, and their ranges those of the weights as they
  // were.
  bool static_groups = false;
};

struct SolveOptions {
  std::optional<Pruning> pruning = std::nullopt;
  std::optional<Rounding> rounding = std::nullopt;  // with `pruning`: what is kept is rounded too
  bool check_finite = true;
};

// Columns as they are, whatever the factor's order.
struct Solution {
  at::Tensor weight;       // float32 [out_features, in_features]
  at::Tensor mask;         // bool, true = kept; undefined without pruning
  at::Tensor scale, zero;  // float32 [out_features, groups]; undefined without rounding
  at::Tensor order;  // in which neighbours are grouped: the factor's; undefined where they are grouped as they are
};

// weight  [out_features, in_features], float32, bfloat16 or float16, on the factor's device
// `operation` is what messages begin with.
Solution columns(const at::Tensor& weight, const GramFactor& factor, const SolveOptions& options,
                 std::string_view operation = "hemostat.solve.columns");

// The same for one weight alone: every argument is checked before the factor is made.
Solution columns(const at::Tensor& weight, const at::Tensor& gram, const GramFactorOptions& factor,
                 const SolveOptions& options, std::string_view operation = "hemostat.solve.columns");

}  // namespace hemostat::solve
