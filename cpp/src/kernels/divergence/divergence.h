// Contract between the loops of `divergence` (divergence.simd.cpp, divergence.cu) and their registration.
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

// One entry a token each; see hemostat/kernels.h.
struct DivergenceOut {
  float *nll_baseline, *nll_damaged;
  float *kl, *kl_reverse;
  float *entropy_baseline, *entropy_damaged;
  float *confidence_baseline, *confidence_damaged;
  int64_t *top1_baseline, *top1_damaged;
  float *top5_overlap, *acceptance;
};

// What one pass over a row of both gathers. Exponents are relative to the largest logit of their own row: with
// x = logit − largest and e = exp(x), the sums over the vocabulary are
struct DivergenceSums {
  double baseline, damaged;                // Σ e
  double baseline_x, damaged_x;            // Σ e·x
  double baseline_excess, damaged_excess;  // Σ e·(x − x of the other), 0 where e is 0
};

struct DivergenceLoops {
  // Tokens [begin, end) of [tokens, vocab ≥ 1] logits of one element type; targets in range. `buffer` has room for
  // divergence_buffer(vocab) floats.
  void (*rows)(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale,
               int64_t begin, int64_t end, const DivergenceOut& out, float* buffer);
};

inline constexpr int64_t kDivergenceBlock = 2048;

// Two blocks of logits; then, of each block of a row, what its e are relative to in both, and its e of both.
inline int64_t divergence_buffer(int64_t vocab) {
  const int64_t blocks = (vocab + kDivergenceBlock - 1) / kDivergenceBlock;
  return 2 * kDivergenceBlock + blocks * (2 + 2 * kDivergenceBlock);
}

HEMOSTAT_FOR_EACH_ISA(extern const DivergenceLoops divergence_loops;)

namespace cuda {

// Fewer than 2^32 columns. A target outside 0 … columns − 1 gives NaN.
Error divergence(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale,
                 const DivergenceOut& out, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
