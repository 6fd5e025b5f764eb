// Contract between the loops of `quantize` (quantize.simd.cpp, quantize.cu) and their registration.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

struct Grid {
  int64_t levels;
  int64_t group_size;  // divides the columns
  bool symmetric;
  float limit = __builtin_inff();  // magnitudes from here on are infinite in the weight's dtype
};

// value → (clamp(round(value / scale) + zero, 0, levels − 1) − zero) · scale
struct GroupScale {
  float scale, zero;
};

// What a group's scale depends on: the largest value and the smallest (at least, at most 0), and how many are not
// finite. Extremes are kept as float32 bits, which order positive values upwards and negative values downwards.
struct Extent {
  int32_t highest;  // bits of the largest value, if positive, else 0
  uint32_t lowest;  // bits of the smallest value, if negative, else at most 0x80000000
  int64_t invalid;
};

struct QuantizeLoops {
  // Rows [begin, end); out has weight's element type. `buffer` has room for a group. Returns the NaN and Inf, and
  // groups that leave the weight's dtype.
  int64_t (*fake_quantize_rows)(const Matrix& weight, int64_t begin, int64_t end, Grid grid, void* out, float* buffer);
  // codes [rows, columns]; scales, zeros [rows, columns / group_size].
  int64_t (*quantize_rows)(const Matrix& weight, int64_t begin, int64_t end, Grid grid, uint8_t* codes, float* scales,
                           float* zeros, float* buffer);
  // For one group over the whole tensor: the extent of rows [begin, end), and the rows rounded with a given scale.
  // `buffer` has room for kQuantizeTile values.
  void (*extent)(const Matrix& weight, int64_t begin, int64_t end, Extent* extent, float* buffer);
  GroupScale (*group_scale)(Extent extent, Grid grid);
  bool (*leaves)(Extent extent, GroupScale scale, Grid grid);  // the weight's dtype
  void (*fake_quantize_all)(const Matrix& weight, int64_t begin, int64_t end, GroupScale scale, Grid grid, void* out,
                            float* buffer);
  void (*quantize_all)(const Matrix& weight, int64_t begin, int64_t end, GroupScale scale, Grid grid, uint8_t* codes,
                       float* buffer);
  // The shrunk ranges of rows [begin, end): scales, zeros [rows, columns / group_size]. Returns the NaN and Inf.
  int64_t (*search_rows)(const Matrix& weight, int64_t begin, int64_t end, Grid grid, float* scales, float* zeros,
                         float* buffer);
  // For one group over the whole tensor: the squared error of each row with each of the ranges,
  // errors [rows, kClipFactors]. `buffer` has room for kQuantizeTile values.
  void (*clip_errors)(const Matrix& weight, int64_t begin, int64_t end, Grid grid, const GroupScale* ranges,
                      double* errors, float* buffer);
  GroupScale (*clipped_scale)(Extent extent, Grid grid, int64_t factor);
};

inline constexpr int64_t kQuantizeTile = 4096;

HEMOSTAT_FOR_EACH_ISA(extern const QuantizeLoops quantize_loops;)

// The scale of a group whose extremes are lowest ≤ 0 ≤ highest, as the operator's documentation defines it. Shared by
// both devices: a group of zeros, or one so small that its scale underflows, has the range −1 … 1 (as GPTQ).
static inline HEMOSTAT_BOTH GroupScale scale_of_range(float lowest, float highest, int64_t levels, bool symmetric) {
  const float steps = static_cast<float>(levels - 1);
  if (symmetric) {
    const float amax = -lowest > highest ? -lowest : highest;
    float scale = 2 * amax / steps;
    if (scale - scale != 0) scale = amax / steps * 2;  // 2 · amax overflowed
    if (scale == 0) scale = 2 / steps;
    return {scale, static_cast<float>(levels / 2)};
  }
  float scale = (highest - lowest) / steps;
  if (scale - scale != 0) scale = highest / steps - lowest / steps;  // highest − lowest overflowed
  if (scale == 0) {
    lowest = -1;
    scale = 2 / steps;
  }
  const float zero = __builtin_rintf(-lowest / scale);
  return {scale, zero};
}

// Where finite values round to infinite ones.
static inline float limit_of(Element element) {
  return element == Element::float16 ? 65520.0f : element == Element::bfloat16 ? 0x1.ffp127f : __builtin_inff();
}

// Whether the extremes of a group, which a coarse grid moves outwards, leave the weight's dtype.
static inline HEMOSTAT_BOTH bool leaves_dtype(float lowest, float highest, GroupScale scale, Grid grid) {
  const float last = static_cast<float>(grid.levels - 1);
  float top = __builtin_rintf(highest / scale.scale) + scale.zero,
        bottom = __builtin_rintf(lowest / scale.scale) + scale.zero;
  top = top > last ? last : top;
  bottom = bottom < 0 ? 0 : bottom;
  return (top - scale.zero) * scale.scale >= grid.limit || (bottom - scale.zero) * scale.scale <= -grid.limit;
}

// GPTQ's grid: factors 1, .99, … .21 of the range.
inline constexpr int64_t kClipFactors = 80;

// The scale of a group whose range is shrunk by 1 − factor/100. A group of zeros, or one so small that its scale
// underflows, has scale 1: any divisor gives it its zero point.
static inline HEMOSTAT_BOTH GroupScale clipped_scale_of_range(float lowest, float highest, int64_t levels,
                                                              bool symmetric, int64_t factor) {
  const float steps = static_cast<float>(levels - 1);
  const float shrink = static_cast<float>(1.0 - static_cast<double>(factor) / 100.0);
  if (symmetric) {
    highest = -lowest > highest ? -lowest : highest;
    lowest = -highest;
  }
  float scale = (highest * shrink - lowest * shrink) / steps;
  if (scale - scale != 0) scale = (highest / steps - lowest / steps) * shrink;  // highest − lowest overflowed
  if (scale == 0) scale = 1;
  const float zero = symmetric ? static_cast<float>(levels / 2) : __builtin_rintf(lowest * -shrink / scale);
  return {scale, zero};
}

namespace cuda {

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

// The shrunk range of each group; of one group over the whole tensor, `scratch` has kSearchAllScratch bytes, aligned
// to 8.
Error search_groups(const Matrix& weight, Grid grid, float* scales, float* zeros, int64_t* invalid, void* stream);
inline constexpr int64_t kSearchParts = 64;
inline constexpr int64_t kSearchAllScratch = kClipFactors * kSearchParts * 8 + 16;
Error search_all(const Matrix& weight, Grid grid, float* scale, float* zero, void* scratch, int64_t* invalid,
                 void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
