// Contract between the CUDA kernels (*.cu, free of Torch headers) and their registration (cuda.cpp).
// Pointers are the device's, `stream` is a cudaStream_t. Rows are read with a column stride of 1; no tensor is empty.
// A launcher adds what its kernel counts as invalid to *invalid, which the caller has zeroed, and returns null or what
// went wrong.
#pragma once

#include <cstdint>

#include "kernels/bit_faults/bit_faults.h"
#include "kernels/block_float/block_float.h"
#include "kernels/column_moments/column_moments.h"
#include "kernels/divergence/divergence.h"
#include "kernels/gguf/gguf.h"
#include "kernels/matrix.h"
#include "kernels/quantize/quantize.h"
#include "kernels/select/select.h"
#include "kernels/solve_columns/solve_columns.h"

namespace hemostat::kernels::cuda {

using Error = const char*;

// At most 2^31 − 1 columns.
Error mask_rows(const Scores& scores, int64_t removed, bool* out, int64_t* invalid, void* stream);

// The whole tensor; `scratch` has mask_tensor_scratch(entries) bytes, aligned to 16.
int64_t mask_tensor_scratch(int64_t entries);
Error mask_tensor(const Scores& scores, int64_t removed, bool* out, void* scratch, int64_t* invalid, void* stream);

// Keeps n of every m ≤ 1024.
Error mask_groups(const Scores& scores, int64_t n, int64_t m, bool* out, int64_t* invalid, void* stream);

// At most 2^31 − 1 entries in a scope. `scratch` has kept_until_scratch() bytes, aligned to 256. out is float, or
// double where `wide`.
int64_t kept_until_scratch(int64_t rows, int64_t columns, bool per_row);
Error kept_until(const Scores& scores, bool per_row, bool wide, void* out, void* scratch, int64_t* invalid,
                 void* stream);

// Where the result goes: values of weight's type (which may lie in its place), or else codes, scales and zeros.
struct Rounded {
  void* values;
  uint8_t* codes;
  float *scales, *zeros;
};

Error round_groups(const Matrix& weight, Grid grid, Rounded out, int64_t* invalid, void* stream);

// One group over the whole tensor; `scratch` has kRoundAllScratch bytes, aligned to 8.
inline constexpr int64_t kRoundAllScratch = 16;
Error round_all(const Matrix& weight, Grid grid, Rounded out, void* scratch, int64_t* invalid, void* stream);

// Leaves no count: rows that hold NaN give NaN.
Error solve_columns(const ColumnBlock& block, void* stream);

// values float32 [rows, blocks of a row · weights of a block] without gaps; importance [columns] or null.
Error gguf_quantize(const float* values, const float* importance, BlockType type, int64_t rows, int64_t columns,
                    uint8_t* data, int64_t* invalid, void* stream);

// `blocks` consecutive blocks as values of `element`.
Error gguf_dequantize(const uint8_t* data, BlockType type, int64_t blocks, Element element, void* out, void* stream);

// The shrunk range of each group; of one group over the whole tensor, `scratch` has kSearchAllScratch bytes, aligned
// to 8.
Error search_groups(const Matrix& weight, Grid grid, float* scales, float* zeros, int64_t* invalid, void* stream);
inline constexpr int64_t kSearchParts = 64;
inline constexpr int64_t kSearchAllScratch = kClipFactors * kSearchParts * 8 + 16;
Error search_all(const Matrix& weight, Grid grid, float* scale, float* zero, void* scratch, int64_t* invalid,
                 void* stream);

// Where the result goes: values of weight's type (which may lie in its place), or else packed codes, by way of codes of
// a byte each [rows, columns], scales and the tensor's scale.
struct BlockRounded {
  void* values;
  uint8_t *codes, *packed;
  void* scales;
  float* tensor_scale;
};

// `scratch` has block_float_scratch(rows) bytes, aligned to 8.
int64_t block_float_scratch(int64_t rows);
Error block_float(const Matrix& weight, BlockElement element, int64_t block_size, BlockRounded out, void* scratch,
                  int64_t* invalid, void* stream);

// Fewer than 2^32 columns. A target outside 0 … columns − 1 gives NaN.
Error divergence(const Matrix& baseline, const Matrix& damaged, const int64_t* targets, float damaged_scale,
                 const DivergenceOut& out, void* stream);

// The parts of column_moments.h, one after another in `out`.
Error column_moments(const Matrix& x, const PartMoments& out, void* stream);

Error bit_faults(void* data, int64_t bytes, const FaultKind& kind, const FaultRate& rate, void* stream);

}  // namespace hemostat::kernels::cuda
