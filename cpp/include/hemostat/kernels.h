// Room `kernels`: the few device kernels that operators compose. Each is a registered torch operator
// (torch.ops.hemostat.*) with CPU, CUDA and Meta implementations; these functions call the dispatcher.
//
// Common rules. Floating arguments are float32, bfloat16 or float16; arithmetic is in float32. The last
// dimension may have any stride. Results do not depend on the number of threads, nor, on the CPU, on its vector
// instructions; they carry no gradient. Shapes, dtypes and scalars are
// checked before any work (c10::ValueError, c10::TypeError). Values are not: a kernel counts in its own pass the
// entries that its formula cannot take (NaN, and Inf where stated) and returns that count as `invalid`, an
// int64 scalar tensor on the argument's device, for the caller to look at; `out` is unspecified where it is not 0.
#pragma once

#include <cstdint>
#include <optional>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

namespace hemostat::kernels {

// Which entries a selection ranks together.
enum class Scope { tensor, row };

// Removes the `removed` smallest of every scope (the whole tensor, or each row), by selection, not by sorting.
//   score         [rows, columns]
//   column_scale  [columns] float32 or none: score · column_scale is ranked (float32 product)
//   removed       0 … entries of a scope
//   absolute      rank |score| instead of score
//   out           bool [rows, columns], contiguous: true = kept
// Ties fall in index order: of equal scores, those with the lower index are removed first.
// invalid counts NaN scores. Inf is a score like any other.
at::Tensor mask_smallest(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, int64_t removed,
                         Scope scope, bool absolute, at::Tensor& out);

// Keeps the n largest of every m consecutive entries of a row; columns must be a multiple of m.
// Arguments, ties and `invalid` as in mask_smallest; 0 ≤ n ≤ m, 1 ≤ m ≤ 1024.
at::Tensor mask_pattern(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, int64_t n, int64_t m,
                        bool absolute, at::Tensor& out);

// out[i] = (rank of score i within its scope + 1) / entries of the scope: the sparsity at which it falls.
//   out  float32, or float64, [rows, columns], contiguous; float64 is required where a scope holds more than 2^24.
at::Tensor kept_until(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, Scope scope,
                      bool absolute, at::Tensor& out);

// Rounds every group of `group_size` consecutive entries of a row to `levels` equally spaced values and back.
//   weight      [rows, columns], group_size divides columns; or group_size 0: one group for the whole tensor
//   levels      2 … 65536
//   symmetric   false: the range is [min(0, min), max(0, max)], scale = (max − min)/(levels − 1),
//               zero = round(−min/scale), code = clamp(round(w/scale) + zero, 0, levels − 1)
//               true (as GPTQ): amax = max |w|, scale = 2·amax/(levels − 1), zero = floor(levels/2), same code
//   out         weight's dtype and shape, contiguous: (code − zero) · scale. `out` may be `weight` itself.
// round is to nearest, halves to even. A group of zeros stays zero. invalid counts NaN and Inf, and
// groups whose extremes round to infinite values of weight's dtype.
at::Tensor fake_quantize(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric, at::Tensor& out);

// The codes themselves, levels ≤ 256: codes uint8 [rows, columns]; scale, zero float32 [rows, groups]
// ([1, 1] for group_size 0); invalid. (codes − zero) · scale equals fake_quantize's out before its cast.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> quantize(const at::Tensor& weight, int64_t levels,
                                                                    int64_t group_size, bool symmetric);

// A block of columns of SparseGPT and GPTQ, solved one after the other, each row by itself. With c the current weights:
//   q = c where kept, else 0; then, where `levels` is not 0, on the grid of the column's group
//   e = (c − q) / inverse[j][j], and every later column k of the block loses e · inverse[j][k]
struct ColumnArguments {
  at::Tensor current;  // float32 [rows, columns]: the weights when the block begins
  at::Tensor weight;   // float32 [rows, columns]: as they were at first
  at::Tensor inverse;  // float32 [columns, columns]: upper triangular, the block of chol(H⁻¹)ᵀ on the diagonal
  // bool [rows, columns], true = kept; none: all are. With m > 0 it is written: of every m columns, when the first of
  // them comes, all but the n of the largest (c / inverse[j][j])² fall, of equal ones the lower index first.
  std::optional<at::Tensor> mask = std::nullopt;
  int64_t n = 0, m = 0;  // m divides the columns
  // float32 [rows, groups]: of column j, that of the group (first + j) / group_size
  std::optional<at::Tensor> scale = std::nullopt, zero = std::nullopt;
  int64_t group_size = 1, first = 0;
  int64_t levels = 0;  // 2 or more: value → (clamp(round(value / scale) + zero, 0, levels − 1) − zero) · scale
};

// Rows of every argument have no gaps between neighbours. solution: float32 [rows, columns], the q, which may take the
// place of `current`; error: weight − q.
void solve_columns(const ColumnArguments& block, at::Tensor& solution, at::Tensor& error);

// llama.cpp's block formats. `type` is ggml's number of the type: 2 Q4_0, 3 Q4_1, 6 Q5_0, 7 Q5_1, 8 Q8_0,
// 10 … 14 Q2_K … Q6_K, 20 IQ4_NL; `columns`, the weights of a row, are a multiple of its block size: 32, or 256 for a K
// type.
//   weight      [rows, columns]
//   importance  float32 [columns], finite and at least 0: what the squared error of each column counts for
//   data        uint8 [rows, bytes of a row]
// quantize::gguf states what they compute. invalid counts NaN and Inf, and scales beyond float16.
std::tuple<at::Tensor, at::Tensor> gguf_quantize(const at::Tensor& weight, int64_t type,
                                                 const std::optional<at::Tensor>& importance);

// The same as weights: out is contiguous, of weight's dtype and shape, and may be `weight` itself. Returns invalid.
at::Tensor gguf_fake_quantize(const at::Tensor& weight, int64_t type, const std::optional<at::Tensor>& importance,
                              at::Tensor& out);

// Blocks as weights [rows, columns] in float32, or that rounded to bfloat16 or float16.
at::Tensor gguf_dequantize(const at::Tensor& data, int64_t type, int64_t columns, at::ScalarType dtype);

// Of each column its sum of squares, sum of |x| and largest |x|; x is read from memory once.
//   x  [rows, columns]
// NaN and Inf are summed as they are; a column with NaN has NaN for its largest. Sums of 32 rows are in float32.
struct ColumnMoments {
  at::Tensor squares, magnitudes;  // float64 [columns]
  at::Tensor largest;              // float32 [columns]; 0 where there are no rows
};
ColumnMoments column_moments(const at::Tensor& x);

// What becomes of a faulty bit of memory: it reads 0, it reads 1, or it reads the other than was written.
enum class BitFault : int64_t { stuck_at_0 = 0, stuck_at_1 = 1, flip = 2 };

// In place: every bit of a tensor's memory is faulty with probability `rate`, independently. A bit is faulty where its
// own uniform draw, of (seed, its position in the row-major tensor) alone, is below the rate: what is faulty at one
// rate is so at every higher one.
//   values     float32, bfloat16, float16 or uint8, contiguous
//   rate       0 … 1
//   first_bit  of every element the bits first_bit … first_bit + bits − 1 take the fault (0: the least significant);
//   bits       the others keep what they hold, and the draws of those that do stay the same
void bit_faults_(at::Tensor& values, double rate, int64_t seed, int64_t first_bit, int64_t bits, BitFault fault);

// The ranges of `quantize`, each shrunk by the factor of 1, .99, … .21 whose rounding has the least squared error (the
// grid of GPTQ's quantizer; of equal errors the largest factor): scale, zero float32 [rows, groups] ([1, 1] for
// group_size 0); invalid. Arguments as in quantize.
std::tuple<at::Tensor, at::Tensor, at::Tensor> search_clip(const at::Tensor& weight, int64_t levels, int64_t group_size,
                                                           bool symmetric);

// Formats whose blocks share a scale. amax is the largest |w| of a block; every element is rounded to the nearest.
//   nf4, fp4    scale = amax; element = the nearest of 16 values to w · (1/max(amax, 1e-38)), from a middle downwards:
//               NormalFloat (Dettmers et al. 2023, arXiv 2305.14314) and bitsandbytes' 4-bit float
//   fp8_e4m3,   scale = amax/448, amax/57344 (1 where that is 0); element = w/scale in 1-4-3, 1-5-2 bits, halves to
//   fp8_e5m2    even, saturating
//   mxfp4       scale = 2^(floor(log2 amax) − 2), at least 2^−127 (OCP Microscaling Formats 1.0, 6.3);
//               element = w/scale in e2m1 (0, ½, 1, 1½, 2, 3, 4, 6), halves to even, saturating
//   nvfp4       tensor_scale = max(largest |w| of the tensor/(448 · 6), 2^−121), scale = amax/6/tensor_scale in e4m3,
//               at least 2^−6; element = w · ((1/tensor_scale)/scale) in e2m1
//   ternary     scale = mean |w| of the block (1 where that is 0); element = −1, 0 or 1: w/scale, halves to 0
enum class BlockFormat { nf4, fp4, fp8_e4m3, fp8_e5m2, mxfp4, nvfp4, ternary };

// Rounds every block of `block_size` consecutive entries of a row to its format and back.
//   weight      [rows, columns], block_size divides columns; or block_size 0: one block for the whole tensor
//   out         weight's dtype and shape, contiguous: element · scale · tensor_scale. `out` may be `weight` itself.
// invalid counts NaN and Inf.
at::Tensor block_float(const at::Tensor& weight, BlockFormat format, int64_t block_size, at::Tensor& out);

// What the format stores.
struct BlockFloat {
  // uint8 [rows, ceil(columns / per byte)]; an odd last byte is filled up with the code of 0:
  //   nf4, fp4      two a byte, the first in the high half; codes in bitsandbytes' order
  //   mxfp4, nvfp4  two a byte, the first in the low half: sign, two bits of exponent, one of fraction
  //   fp8           one a byte
  //   ternary       five a byte, Σ (element_i + 1) · 3^i
  at::Tensor codes;
  // [rows, blocks], [1, 1] for block_size 0: float32; uint8 for mxfp4 (exponent + 127) and nvfp4 (e4m3 bits)
  at::Tensor scale;
  at::Tensor tensor_scale;  // float32 scalar; 1 but for nvfp4
  at::Tensor invalid;
};
BlockFloat block_float_encode(const at::Tensor& weight, BlockFormat format, int64_t block_size);

// Per token comparison of two sets of logits; each logit is read from memory once. All outputs are [tokens].
struct Divergence {
  at::Tensor nll_baseline, nll_damaged;                // float32, nats: −log p(target)
  at::Tensor kl;                                       // float32, nats: KL(baseline ‖ damaged)
  at::Tensor kl_reverse;                               // float32, nats: KL(damaged ‖ baseline)
  at::Tensor entropy_baseline, entropy_damaged;        // float32, nats
  at::Tensor confidence_baseline, confidence_damaged;  // float32: the largest probability
  at::Tensor top1_baseline, top1_damaged;              // int64: its token; of equal logits the lowest index
  at::Tensor top5_overlap;                             // float32: |top-5 ∩ top-5| / 5 (of vocab where it is < 5)
  at::Tensor acceptance;                               // float32, 0 … 1: Σ min(p, q)
};

// baseline_logits, damaged_logits [tokens, vocab] of one dtype; targets int64 [tokens] in 0 … vocab − 1
// (a target outside raises ValueError on the CPU; on CUDA its row's NLL is NaN).
// damaged_scale multiplies the damaged logits (1/temperature), which are ranked as they were. NaN or +Inf logits, or
// none but −Inf, give NaN in what depends on them. Elsewhere a logit of −Inf has no mass and adds nothing; KL is +Inf
// where the other has mass. Mass below exp(−87) of the largest is 0. KL of equal rows is 0, and never negative; its
// rounding error is about 1e-7 nats, or 2^-23 of the largest logit where that is more. The acceptance of equal rows is
// exactly 1, and off by about 1e-7 elsewhere.
Divergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale = 1.0);

}  // namespace hemostat::kernels
