// Contract between the loops of `divergence` (divergence.simd.cpp, divergence.cu) and their registration.
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

// One entry per token in each.
struct DivergenceOutputs {
  float *nll_baseline, *nll_damaged, *kl, *kl_reverse, *entropy_baseline, *entropy_damaged;
  float *confidence_baseline, *confidence_damaged, *top5_overlap;
  int64_t *top1_baseline, *top1_damaged;
};

inline constexpr int64_t kDivergenceTile = 2048;  // logits of each model that stay in the first cache

struct DivergenceLoops {
  // Tokens [begin, end); targets in 0 … columns − 1. `buffer` has room for two tiles.
  void (*rows)(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale,
               int64_t begin, int64_t end, const DivergenceOutputs& outputs, float* buffer);
};

HEMOSTAT_FOR_EACH_ISA(extern const DivergenceLoops divergence_loops;)

}  // namespace hemostat::kernels
