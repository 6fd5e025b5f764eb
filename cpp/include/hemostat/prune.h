// Room `prune`: which weights of a matrix are removed, and what the others become. Tensors in, tensors out.
//
// A weight is [out_features, in_features] in float32, bfloat16 or float16, on any device, of any strides; a mask is
// bool of the same shape, true = kept. Scores are ranked in float32. Of equal scores those with the lower index are
// removed first, so every count is exact and every mask is the same for any number of threads.
//
// `sparsity` is the fraction removed, 0 … 1: floor(sparsity · n) of every scope's n weights fall. `pattern` "n:m" keeps
// n of every m consecutive weights of a row instead; m must divide in_features. Give exactly one of the two.
//
// Errors: ValueError for a shape, device or severity that cannot be (before any work) and for NaN scores (counted in
// the selection's own pass, so `out` is then unspecified; check_finite = false skips the look); TypeError for a dtype.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/kernels.h>
#include <hemostat/options.h>
#include <hemostat/solve.h>

namespace hemostat {

template <>
inline constexpr auto words<kernels::Scope> =
    std::array{Word{kernels::Scope::tensor, "tensor"}, Word{kernels::Scope::row, "row"}};

}  // namespace hemostat

namespace hemostat::prune {

using kernels::Scope;

// floor(sparsity · entries), where a product within double rounding of an integer is that integer: .29 · 100 is 29,
// although the product of the doubles is 28.999…96. The one place that turns a sparsity into a count.
int64_t removed_count(double sparsity, int64_t entries);

// "n:m": keep n of every m, 0 ≤ n ≤ m, 1 ≤ m ≤ 1024.
struct Pattern {
  int64_t n;
  int64_t m;
};
Pattern parse_pattern(std::string_view text);

// What choosing by a score takes, whatever the score.
template <typename Options>
constexpr auto sparsity_fields() {
  return std::tuple{Field{"sparsity", &Options::sparsity, "fraction removed; give this or ``pattern``", between(0, 1),
                          SetBy::severity},
                    Field{"pattern",
                          &Options::pattern,
                          "``\"n:m\"`` keeps n of every m weights of a row; m divides in_features",
                          {},
                          SetBy::severity}};
}

template <typename Options>
constexpr auto scope_field() {
  return std::tuple{Field{"scope", &Options::scope, "what the fraction counts over"}};
}

template <typename Options>
constexpr auto mask_fields() {
  return std::tuple{out_field<Options>("contiguous bool tensor of the same shape and device that receives the mask"),
                    check_finite_field<Options>()};
}

template <typename Options>
constexpr auto selection_fields() {
  return std::tuple_cat(sparsity_fields<Options>(), scope_field<Options>(), mask_fields<Options>());
}

template <Scope kScope>
struct Selection {
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  Scope scope = kScope;                          // what `sparsity` counts over; a pattern always counts within a row
  std::optional<at::Tensor> out = std::nullopt;  // bool, contiguous, the score's shape and device
  bool check_finite = true;

  static constexpr auto fields() { return selection_fields<Selection>(); }
};

using MaskOptions = Selection<Scope::row>;

// The mask that removes the smallest scores.   score [out_features, in_features], float32, bfloat16 or float16
at::Tensor mask(const at::Tensor& score, const MaskOptions& options);

struct KeptUntilOptions {
  Scope scope = Scope::row;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        Field{"scope", &KeptUntilOptions::scope, "what is ranked together"},
        out_field<KeptUntilOptions>("contiguous tensor of score's shape and device that receives the result"),
        check_finite_field<KeptUntilOptions>()};
  }
};

// The sparsity at which each weight falls: (rank of its score within the scope + 1) / n, so that
// `kept_until(score) > sparsity` is the mask of any sparsity.   → float32; float64 where a scope holds more than 2^24
at::Tensor kept_until(const at::Tensor& score, const KeptUntilOptions& options = {});

// The mask of one sparsity from `kept_until`, exact also where the sparsity is no multiple of 1/n in float32: equal to
// mask(score, {.sparsity = sparsity, .scope = scope}) for every sparsity. float64 is taken for any scope; float32,
// which tells 2^24 ranks apart, for no larger one: TypeError. NaN and negative entries: ValueError, unless check_finite
// is false.
at::Tensor mask_at(const at::Tensor& kept_until, double sparsity, Scope scope = Scope::row,
                   const std::optional<at::Tensor>& out = std::nullopt, bool check_finite = true);

// |weight|, in float32. This and the other scores: ValueError for NaN and infinities, NumericalError where a score is
// beyond float32.
at::Tensor score_magnitude(const at::Tensor& weight);

using MagnitudeOptions = Selection<Scope::tensor>;

// Removes the smallest |weight| of the whole matrix, or of each row (Han et al. 2015, arXiv 1506.02626).
at::Tensor magnitude(const at::Tensor& weight, const MagnitudeOptions& options);

// |weight| · activation_norm, in float32.
//   activation_norm  [in_features]: the root mean square of each input feature; finite, not negative
at::Tensor score_wanda(const at::Tensor& weight, const at::Tensor& activation_norm);

struct WandaOptions {
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple_cat(sparsity_fields<WandaOptions>(), mask_fields<WandaOptions>());
  }
};

// Removes the smallest |weight| · activation_norm of each row (Sun et al. 2024, "A Simple and Effective Pruning
// Approach for Large Language Models", arXiv 2306.11695, equation 1). The score is never stored.
at::Tensor wanda(const at::Tensor& weight, const at::Tensor& activation_norm, const WandaOptions& options);

// A weight with zeros where the mask is false, and the others changed to make up for them.
struct Pruned {
  at::Tensor weight;  // contiguous, in the dtype of the weight that was pruned; exact zeros where the mask is false
  at::Tensor mask;    // bool, true = kept
};

struct SparseGptOptions {
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  // Columns whose mask is chosen together. With "n:m" the largest multiple of m up to it, at least m.
  int64_t block_size = 128;
  double damp = 0.01;  // see solve::GramFactorOptions
  // Rounds what is kept as well, in the same pass (the paper's joint sparsification and quantization).
  std::optional<solve::Rounding> rounding = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple_cat(sparsity_fields<SparseGptOptions>(),
                          std::tuple{Field{"block_size", &SparseGptOptions::block_size,
                                           "columns whose mask is chosen together", at_least(1)},
                                     solve::damp_field<SparseGptOptions>(), check_finite_field<SparseGptOptions>()});
  }
};

// SparseGPT (Frantar & Alistarh 2023, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot",
// arXiv 2301.00774, algorithm 1): column by column, every removed weight's error is taken up by the columns to come. In
// each block of columns, over all rows, the floor(sparsity · n) weights of the smallest (w / [chol(H⁻¹)]_jj)² fall.
//   gram  XᵀX over the number of tokens, float32 [in_features, in_features]
// The authors' code removes every weight up to the threshold, one more in each block.
Pruned sparsegpt(const at::Tensor& weight, const at::Tensor& gram, const SparseGptOptions& options);

// The same from a factor made once, whose damp and block size count instead of the options'.
Pruned sparsegpt(const at::Tensor& weight, const solve::GramFactor& factor, const SparseGptOptions& options);

// The block size of the factor that n:m pruning takes: the largest multiple of m up to `block_size`, at least m.
int64_t pattern_block_size(int64_t block_size, int64_t m);

// (|w_ij| / Σ_k |w_kj| + |w_ij| / Σ_k |w_ik|) · activation_norm_j^alpha, in float32: how large a weight is among those
// of its input and among those of its output. 0 in a row or column of zeros.
//   activation_norm  [in_features]: the root mean square of each input feature; finite, not negative
//   alpha            0 or more, finite; 0 leaves the activations out
// ValueError for NaN or infinite weights: they would spoil their whole row and column.
at::Tensor score_ria(const at::Tensor& weight, const at::Tensor& activation_norm, double alpha = 0.5);

struct RiaOptions {
  double alpha = 0.5;
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  Scope scope = Scope::row;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple_cat(
        std::tuple{Field{"alpha", &RiaOptions::alpha, "exponent of the activation norm", at_least(0)}},
        selection_fields<RiaOptions>());
  }
};

// Removes the smallest relative importance and activation of each row, or of the whole matrix as the authors' code does
// unless told otherwise (Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large
// Language Models", ICLR).
at::Tensor ria(const at::Tensor& weight, const at::Tensor& activation_norm, const RiaOptions& options);

// |weight · gradient|, in float32: how far the loss would move, to first order, if the weight were 0.
//   gradient  [out_features, in_features], float32, bfloat16 or float16: of the loss, mean over calibration
at::Tensor score_taylor(const at::Tensor& weight, const at::Tensor& gradient);

// weight² · gradient_square / 2, in float32: the same to second order, where the diagonal of the empirical Fisher
// information stands for that of the Hessian.
//   gradient_square  [out_features, in_features]: mean of the squared gradients of single sequences; not negative
at::Tensor score_fisher(const at::Tensor& weight, const at::Tensor& gradient_square);

// |weight| · (activation_norm + alpha · gradient_norm), in float32.
//   activation_norm  [in_features]: sqrt of the mean, over sequences, of the sum of squares over a sequence's tokens;
//                    finite, not negative
//   gradient_norm    [out_features, in_features]: norm over the gradients of single sequences, their sum of absolute
//                    values (L1) or the root of their sum of squares (L2); not negative
//   alpha            0 or more, finite
at::Tensor score_gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                      double alpha = 100);

using GradientOptions = Selection<Scope::tensor>;

// Removes the smallest |weight · gradient| (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning",
// arXiv 1906.10771, equation 7; Ma et al. 2023, "LLM-Pruner", arXiv 2305.11627).
at::Tensor taylor(const at::Tensor& weight, const at::Tensor& gradient, const GradientOptions& options);

// Removes the smallest weight² · gradient_square / 2 (LeCun et al. 1990, "Optimal Brain Damage"; Theis et al. 2018,
// "Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787).
at::Tensor fisher(const at::Tensor& weight, const at::Tensor& gradient_square, const GradientOptions& options);

struct GblmOptions {
  double alpha = 100;
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  Scope scope = Scope::row;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple_cat(std::tuple{Field{"alpha", &GblmOptions::alpha, "weight of the gradient norm", at_least(0)}},
                          selection_fields<GblmOptions>());
  }
};

// Removes the smallest |weight| · (activation_norm + alpha · gradient_norm) of each row (Das et al. 2023, "Beyond Size:
// How Gradients Shape Pruning Decisions in Large Language Models", arXiv 2311.04902).
at::Tensor gblm(const at::Tensor& weight, const at::Tensor& activation_norm, const at::Tensor& gradient_norm,
                const GblmOptions& options);

// An order of the columns in which an n:m pattern keeps more of a score's sum than in their own: mask(score[:, order])
// with that pattern, its columns put back in place, is the mask of the permuted matrix. Columns in the order of their
// sums are dealt out to the groups of m, there and back; then, for each of the m places in turn, the columns in that
// place are exchanged among all groups so that the sum kept is the largest (linear sum assignment). It keeps at least
// as much as the columns' own order does (Zhang et al. 2024: channel permutation).
//   score    [out_features, in_features], float32, bfloat16 or float16; finite
//   pattern  "n:m"; m divides in_features
//   → int64 [in_features], on the score's device
// Time grows with out_features · in_features² / m and, at worst, (in_features / m)³.
at::Tensor channel_permutation(const at::Tensor& score, const std::string& pattern);

// What ADMM takes from a Gram matrix, once for every weight on that input and every severity. With
// D = diag(√(diag gram)) and A = D⁻¹ · gram · D⁻¹:
struct AdmmFactor {
  at::Tensor norm;     // float32 [in_features]: the diagonal of D over its largest entry, at least 1e-8
  at::Tensor inverse;  // float32 [in_features, in_features]: P = (A + (damp · mean(diag A) + 1) · I)⁻¹
};

//   gram  [in_features, in_features]: XᵀX / tokens, symmetric, of any floating dtype that weights have
//   damp  ≥ 0, of the mean diagonal
// Unless check_finite is false: ValueError for NaN, infinities, a negative diagonal or one that is not symmetric,
// NumericalError where it is not positive semidefinite, all but for rounding. Then the damping leaves a Cholesky
// factor.
AdmmFactor admm_factor(const at::Tensor& gram, double damp = 0.1, bool check_finite = true);

struct AdmmOptions {
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  Scope scope = Scope::tensor;
  double damp = 0.1;  // as admm_factor takes it
  int64_t iterations = 20;
  std::optional<at::Tensor> row_weight = std::nullopt;  // [out_features], not negative
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple_cat(
        sparsity_fields<AdmmOptions>(), scope_field<AdmmOptions>(),
        std::tuple{
            Field{"iterations", &AdmmOptions::iterations, "how often weights and mask are adjusted", at_least(0)},
            Field{"damp", &AdmmOptions::damp,
                  "added to the diagonal of the Gram matrix of inputs of length 1, as a share of its mean",
                  at_least(0)},
            Field{"row_weight",
                  &AdmmOptions::row_weight,
                  "[out_features]: what an error of each row costs, such as the row Fisher; not negative",
                  {},
                  SetBy::call},
            check_finite_field<AdmmOptions>()});
  }
};

// Prunes and adjusts what stays, by the alternating direction method of multipliers (Boža 2024, "Fast and Effective
// Weight Update for Pruned Large Language Models", arXiv 2401.02938). With Ŵ = weight · D and V = Ŵ at first, every
// iteration ranks |V|, and with Z = V where it is kept, 0 elsewhere, U = V − Z,
//   V ← α · (Ŵ + (Z − U − Ŵ) · P) + (1 − α) · Z + U,   over-relaxed by α = 1.7 (Boyd et al. 2011, section 3.4.3);
// at the end weight = Z · D⁻¹. The first three quarters of the iterations choose the mask anew, the first quarter at
// a share of the severity that rises as 1 − (1 − t/T)³; the last quarter leaves it. With pattern "n:m" those fall first
// that are the smallest of the matrix among the m − n smallest of their group. With row_weight f rows are ranked and
// solved as √(f / mean f), at least 1e-2, times what they are: where the scope is the tensor, rows that cost more keep
// more. Features that never were on (a zero on gram's diagonal) lose their weights first. Where nothing falls, the
// weight comes back as it is.
Pruned admm(const at::Tensor& weight, const at::Tensor& gram, const AdmmOptions& options);

// The same with a factor at hand, whose damping is not options.damp's.
Pruned admm(const at::Tensor& weight, const AdmmFactor& factor, const AdmmOptions& options);

struct DsnotOptions {
  std::optional<std::string> pattern = std::nullopt;  // that of the mask, which is kept
  int64_t max_cycles = 50;
  double threshold = 0.1 / 2048;  // the authors' .1, of sums over windows of 2048 tokens
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        Field{"pattern",
              &DsnotOptions::pattern,
              "``\"n:m\"``, that of the mask, which is kept: what is removed is then the least of the regrown weight's "
              "group, and a row ends before a swap that would turn its error's sign",
              {},
              SetBy::severity},
        Field{"max_cycles", &DsnotOptions::max_cycles, "swaps in a row at most", at_least(0)},
        Field{"threshold", &DsnotOptions::threshold,
              "``|error|`` at which a row is done; the authors' 0.1 is of sums over windows of 2048 tokens",
              at_least(0)},
        check_finite_field<DsnotOptions>()};
  }
};

// Refines a mask by swapping weights between kept and removed, row by row, until the mean output is right (Zhang et al.
// 2024, "Dynamic Sparse No Training", arXiv 2310.08915). With C_ij = weight_ij · activation_mean_j and the error
// e_i = Σ C_ij over removed j, every cycle of a row with |e| > threshold
//   regrows the removed weight of e's sign with the largest |C| / variance of its input,
//   removes the kept weight of the other sign with the least |weight| · activation_norm,
// each at most once, and takes e + C(now removed) − C(regrown) for the next; it ends where either kind has run out.
// With a pattern the weight that is removed is, of either sign, the one with the least |weight| · activation_norm in
// the group of the regrown one, and a row ends before a swap that would turn e's sign.
//   mask             bool, of weight's shape, true = kept
//   activation_mean  [in_features]: mean of each input feature, with its sign; finite
//   activation_norm  [in_features]: its root mean square; finite, not negative. Variance: norm² − mean²
// → a mask with as many kept in each row (and group)
at::Tensor dsnot(const at::Tensor& weight, const at::Tensor& mask, const at::Tensor& activation_mean,
                 const at::Tensor& activation_norm, const DsnotOptions& options = {});

// The share of |weight| · activation_norm, over all weights of a block together, that exceeds outlier_threshold times
// their mean: 0 … 1 (Yin et al. 2024, "Outlier Weighed Layerwise Sparsity (OWL)", arXiv 2310.05175, section 3).
//   weights           at least one, [out_features, in_features]
//   activation_norms  one [in_features] for each weight: the root mean square of its input features; finite, not
//                     negative
//   outlier_threshold M, 0 or more
double outlier_ratio(at::TensorList weights, at::TensorList activation_norms, double outlier_threshold = 5,
                     bool check_finite = true);

struct OwlOptions {
  double sparsity = 0;
  double lamda = 0.08;  // λ

  static constexpr auto fields() {
    return std::tuple{Field{"sparsity", &OwlOptions::sparsity, "mean over blocks", between(0, 1), SetBy::severity},
                      Field{"lamda", &OwlOptions::lamda, "half of what the blocks' sparsities span", at_least(0)}};
  }
};

// The sparsity of each block, less for blocks with more outliers: s − (d − mean d), where d spreads the ratios over
// 0 … 2λ, the least on 0 and the largest on 2λ (the same source; equal ratios: s). Where one would leave 0 … 1 all
// differences shrink until it lies on that end, so that the mean over blocks is s in any case.
//   ratios  finite: one for each block
std::vector<double> owl(const std::vector<double>& ratios, const OwlOptions& options);

// The weight with exact zeros where the mask is false, also where it held NaN or Inf. Differentiable: gradients of
// removed weights are 0. `out` may be `weight` itself.
at::Tensor apply(const at::Tensor& weight, const at::Tensor& mask, const std::optional<at::Tensor>& out = std::nullopt);

}  // namespace hemostat::prune
