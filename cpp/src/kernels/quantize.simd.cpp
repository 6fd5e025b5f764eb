// CPU loops of `quantize`. See quantize.h.
#include "kernels/quantize.h"

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

GroupScale group_scale(Extent extent, Grid grid) {
  const float highest = bit_cast<float>(extent.highest);
  const float lowest = extent.lowest > 0x80000000 ? bit_cast<float>(extent.lowest) : 0.0f;
  return scale_of_range(lowest, highest, grid.levels, grid.symmetric);
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
      invalid += extent.invalid;
      round_into(weight.element, values, grid.group_size, group_scale(extent, grid), last, out,
                 row * weight.columns + column);
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
      invalid += extent.invalid;
      const GroupScale scale = group_scale(extent, grid);
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

}  // namespace

namespace HEMOSTAT_ISA {
const QuantizeLoops quantize_loops = {fake_quantize_rows, quantize_rows,     extent,
                                      group_scale,        fake_quantize_all, quantize_all};
}

}  // namespace hemostat::kernels
