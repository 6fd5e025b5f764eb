// CPU loops of `quantize`. See quantize.h.
#include "kernels/quantize/quantize.h"

#include "kernels/elements.simd.h"

namespace hemostat::kernels {
namespace {

// To the nearest integer, halves to even, for |value| < 2^22: the sum has no fraction bits left. Larger quotients only
// arise where a scale is a rounded subnormal; they are clamped like every other.
inline float round_even(float value) {
  constexpr float kShift = 12582912.0f;  // 1.5 · 2^23
  return (value + kShift) - kShift;
}

constexpr uint32_t kInfinity = 0x7f800000;

void widen_extent(const float* values, int64_t count, Extent& extent) {
  int32_t highest = extent.highest;
  uint32_t lowest = extent.lowest;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = bit_cast<int32_t>(values[i]);
    highest = bits > highest ? bits : highest;
    const uint32_t unsigned_bits = bit_cast<uint32_t>(values[i]);
    lowest = unsigned_bits > lowest ? unsigned_bits : lowest;
  }
  extent.highest = highest;
  extent.lowest = lowest;
  // Only where there is one, the values that are not finite are counted.
  if (static_cast<uint32_t>(highest) >= kInfinity || (lowest & 0x7fffffff) >= kInfinity) {
    for (int64_t i = 0; i < count; ++i) extent.invalid += (bit_cast<uint32_t>(values[i]) & 0x7fffffff) >= kInfinity;
  }
}

inline float highest_of(Extent extent) { return bit_cast<float>(extent.highest); }
inline float lowest_of(Extent extent) { return extent.lowest > 0x80000000 ? bit_cast<float>(extent.lowest) : 0.0f; }

GroupScale group_scale(Extent extent, Grid grid) {
  return scale_of_range(lowest_of(extent), highest_of(extent), grid.levels, grid.symmetric);
}

bool leaves(Extent extent, GroupScale scale, Grid grid) {
  return leaves_dtype(lowest_of(extent), highest_of(extent), scale, grid);
}

inline float code_of(float value, GroupScale scale, float last) {
  float code = round_even(value / scale.scale) + scale.zero;
  code = code < 0.0f ? 0.0f : code;
  return code > last ? last : code;
}

template <class Type>
void round_values(const float* values, int64_t count, GroupScale scale, float last, typename Type::Storage* out) {
  for (int64_t i = 0; i < count; ++i) {
    out[i] = Type::store((code_of(values[i], scale, last) - scale.zero) * scale.scale);
  }
}

void round_into(Element element, const float* values, int64_t count, GroupScale scale, float last, void* out,
                int64_t offset) {
  switch (element) {
    case Element::float32:
      return round_values<Float32>(values, count, scale, last, static_cast<float*>(out) + offset);
    case Element::bfloat16:
      return round_values<Bfloat16>(values, count, scale, last, static_cast<uint16_t*>(out) + offset);
    case Element::float16:
      return round_values<Float16>(values, count, scale, last, static_cast<uint16_t*>(out) + offset);
  }
}

void round_codes(const float* values, int64_t count, GroupScale scale, float last, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i)
    codes[i] = static_cast<uint8_t>(static_cast<int32_t>(code_of(values[i], scale, last)));
}

int64_t fake_quantize_rows(const Matrix& weight, int64_t begin, int64_t end, Grid grid, void* out, float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t column = 0; column < weight.columns; column += grid.group_size) {
      const float* values = row_floats(weight, row, column, grid.group_size, buffer);
      Extent extent{0, 0, 0};
      widen_extent(values, grid.group_size, extent);
      const GroupScale scale = group_scale(extent, grid);
      invalid += extent.invalid + static_cast<int64_t>(leaves(extent, scale, grid));
      round_into(weight.element, values, grid.group_size, scale, last, out, row * weight.columns + column);
    }
  }
  return invalid;
}

int64_t quantize_rows(const Matrix& weight, int64_t begin, int64_t end, Grid grid, uint8_t* codes, float* scales,
                      float* zeros, float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  const int64_t groups = weight.columns / grid.group_size;
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const int64_t column = group * grid.group_size;
      const float* values = row_floats(weight, row, column, grid.group_size, buffer);
      Extent extent{0, 0, 0};
      widen_extent(values, grid.group_size, extent);
      const GroupScale scale = group_scale(extent, grid);
      invalid += extent.invalid + static_cast<int64_t>(leaves(extent, scale, grid));
      scales[row * groups + group] = scale.scale;
      zeros[row * groups + group] = scale.zero;
      round_codes(values, grid.group_size, scale, last, codes + row * weight.columns + column);
    }
  }
  return invalid;
}

// Calls visit(values, count, offset in the row-major result) tile by tile.
template <class Visit>
inline void for_each_tile(const Matrix& weight, int64_t begin, int64_t end, float* buffer, Visit visit) {
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t column = 0; column < weight.columns; column += kQuantizeTile) {
      const int64_t left = weight.columns - column;
      const int64_t count = left < kQuantizeTile ? left : kQuantizeTile;
      visit(row_floats(weight, row, column, count, buffer), count, row * weight.columns + column);
    }
  }
}

void extent(const Matrix& weight, int64_t begin, int64_t end, Extent* extent, float* buffer) {
  for_each_tile(weight, begin, end, buffer, [&](const float* values, int64_t count, int64_t) {
    Extent own{0, 0, 0};
    widen_extent(values, count, own);
    extent->highest = own.highest > extent->highest ? own.highest : extent->highest;
    extent->lowest = own.lowest > extent->lowest ? own.lowest : extent->lowest;
    extent->invalid += own.invalid;
  });
}

void fake_quantize_all(const Matrix& weight, int64_t begin, int64_t end, GroupScale scale, Grid grid, void* out,
                       float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  for_each_tile(weight, begin, end, buffer, [&](const float* values, int64_t count, int64_t offset) {
    round_into(weight.element, values, count, scale, last, out, offset);
  });
}

void quantize_all(const Matrix& weight, int64_t begin, int64_t end, GroupScale scale, Grid grid, uint8_t* codes,
                  float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  for_each_tile(weight, begin, end, buffer, [&](const float* values, int64_t count, int64_t offset) {
    round_codes(values, count, scale, last, codes + offset);
  });
}

GroupScale clipped_scale(Extent extent, Grid grid, int64_t factor) {
  return clipped_scale_of_range(lowest_of(extent), highest_of(extent), grid.levels, grid.symmetric, factor);
}

// Sums in sixteen lanes whatever the instruction set, so that every one of them adds in the same order.
constexpr int64_t kLanes = 16;

inline float squared_error(float value, GroupScale scale, float last) {
  const float error = (code_of(value, scale, last) - scale.zero) * scale.scale - value;
  return error * error;
}

// Σ (rounded − value)² of at most kQuantizeTile values.
double tile_error(const float* values, int64_t count, GroupScale scale, float last) {
  float sum[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sum[lane] += squared_error(values[i + lane], scale, last);
  }
  for (int64_t lane = 0; i + lane < count; ++lane) sum[lane] += squared_error(values[i + lane], scale, last);
  double total = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) total += static_cast<double>(sum[lane]);
  return total;
}

double squared_error_of(const float* values, int64_t count, GroupScale scale, float last) {
  double total = 0;
  for (int64_t i = 0; i < count; i += kQuantizeTile) {
    total += tile_error(values + i, count - i < kQuantizeTile ? count - i : kQuantizeTile, scale, last);
  }
  return total;
}

int64_t search_rows(const Matrix& weight, int64_t begin, int64_t end, Grid grid, float* scales, float* zeros,
                    float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  const int64_t groups = weight.columns / grid.group_size;
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      const float* values = row_floats(weight, row, group * grid.group_size, grid.group_size, buffer);
      Extent extent{0, 0, 0};
      widen_extent(values, grid.group_size, extent);
      invalid += extent.invalid;
      GroupScale best = clipped_scale(extent, grid, 0);
      double least = squared_error_of(values, grid.group_size, best, last);
      for (int64_t factor = 1; factor < kClipFactors; ++factor) {
        const GroupScale scale = clipped_scale(extent, grid, factor);
        const double error = squared_error_of(values, grid.group_size, scale, last);
        if (error < least) {
          least = error;
          best = scale;
        }
      }
      scales[row * groups + group] = best.scale;
      zeros[row * groups + group] = best.zero;
    }
  }
  return invalid;
}

void clip_errors(const Matrix& weight, int64_t begin, int64_t end, Grid grid, const GroupScale* ranges, double* errors,
                 float* buffer) {
  const float last = static_cast<float>(grid.levels - 1);
  for (int64_t i = begin * kClipFactors; i < end * kClipFactors; ++i) errors[i] = 0;
  for_each_tile(weight, begin, end, buffer, [&](const float* values, int64_t count, int64_t offset) {
    double* of_row = errors + offset / weight.columns * kClipFactors;
    for (int64_t factor = 0; factor < kClipFactors; ++factor) {
      of_row[factor] += tile_error(values, count, ranges[factor], last);
    }
  });
}

}  // namespace

namespace HEMOSTAT_ISA {
const QuantizeLoops quantize_loops = {fake_quantize_rows, quantize_rows, extent,      group_scale, leaves,
                                      fake_quantize_all,  quantize_all,  search_rows, clip_errors, clipped_scale};
}

}  // namespace hemostat::kernels
