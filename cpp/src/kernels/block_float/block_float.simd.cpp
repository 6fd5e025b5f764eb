// CPU loops of `block_float`. See block_float.h.
#include "kernels/block_float/block_float.h"

#include "kernels/elements.simd.h"

namespace hemostat::kernels {
namespace {

constexpr uint32_t kInfinity = 0x7f800000;

// Σ|values| in lanes of its own, so that every instruction set adds in the same order.
double sum_of_magnitudes(const float* values, int64_t count) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += static_cast<double>(__builtin_fabsf(values[i + lane]));
    }
  }
  for (int64_t lane = 0; i + lane < count; ++lane)
    lanes[lane] += static_cast<double>(__builtin_fabsf(values[i + lane]));
  double sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

inline BlockStatistic measure(const float* values, int64_t count, bool sum) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bit_cast<uint32_t>(values[i]) & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  }
  BlockStatistic statistic{largest, 0, 0};
  // Only where there is one, the values that are not finite are counted.
  if (largest >= kInfinity) {
    for (int64_t i = 0; i < count; ++i) statistic.invalid += (bit_cast<uint32_t>(values[i]) & 0x7fffffff) >= kInfinity;
  }
  if (sum) statistic.sum = sum_of_magnitudes(values, count);
  return statistic;
}

BlockScale scale(BlockElement element, BlockStatistic statistic, int64_t entries, float tensor_scale) {
  const auto mean = static_cast<float>(statistic.sum / static_cast<double>(entries));
  return block_elements::scale_of(element, bit_cast<float>(statistic.largest), mean, tensor_scale);
}

// Calls visit(values, count, scale, column) for each block of a row: the blocks that share a scale, or pieces of a row
// where the scale is fixed. Returns the NaN and Inf.
template <class Visit>
inline int64_t for_each_block(const Matrix& weight, int64_t row, const BlockGrid& grid, float* buffer, Visit visit) {
  int64_t invalid = 0;
  for (int64_t column = 0; column < weight.columns; column += grid.block_size) {
    const int64_t left = weight.columns - column;
    const int64_t count = left < grid.block_size ? left : grid.block_size;
    const float* values = row_floats(weight, row, column, count, buffer);
    if (grid.fixed != nullptr) {
      visit(values, count, *grid.fixed, column);
      continue;
    }
    const BlockStatistic statistic = measure(values, count, grid.element == BlockElement::ternary);
    invalid += statistic.invalid;
    visit(values, count, scale(grid.element, statistic, count, grid.tensor_scale), column);
  }
  return invalid;
}

template <class Rounding, class Type>
void round_values(const float* values, int64_t count, BlockScale scale, typename Type::Storage* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Type::store(Rounding::value(values[i], scale) * scale.unit);
}

template <class Rounding, class Type>
int64_t round_rows_of(const Matrix& weight, int64_t begin, int64_t end, const BlockGrid& grid,
                      typename Type::Storage* out, float* buffer) {
  int64_t invalid = 0;
  for (int64_t row = begin; row < end; ++row) {
    invalid += for_each_block(weight, row, grid, buffer,
                              [&](const float* values, int64_t count, BlockScale scale, int64_t column) {
                                round_values<Rounding, Type>(values, count, scale, out + row * weight.columns + column);
                              });
  }
  return invalid;
}

int64_t round_rows(const Matrix& weight, int64_t begin, int64_t end, const BlockGrid& grid, void* out, float* buffer) {
  int64_t invalid = 0;
  block_elements::for_element(grid.element, [&](auto rounding) {
    using Rounding = decltype(rounding);
    switch (weight.element) {
      case Element::float32:
        invalid = round_rows_of<Rounding, Float32>(weight, begin, end, grid, static_cast<float*>(out), buffer);
        break;
      case Element::bfloat16:
        invalid = round_rows_of<Rounding, Bfloat16>(weight, begin, end, grid, static_cast<uint16_t*>(out), buffer);
        break;
      case Element::float16:
        invalid = round_rows_of<Rounding, Float16>(weight, begin, end, grid, static_cast<uint16_t*>(out), buffer);
        break;
    }
  });
  return invalid;
}

// A row's codes, a byte each, into as few bytes as they need.
void pack_row(BlockElement element, const uint8_t* codes, int64_t count, uint8_t* packed, int64_t bytes) {
  int64_t byte = 0;
  if (codes_per_byte(element) == 2) {  // pairs, many at a time
    const bool low_first = element == BlockElement::mxfp4 || element == BlockElement::nvfp4;
    const int32_t first = low_first ? 0 : 4, second = 4 - first;
    for (; byte < count / 2; ++byte) {
      packed[byte] = static_cast<uint8_t>(codes[2 * byte] << first | codes[2 * byte + 1] << second);
    }
  }
  for (; byte < bytes; ++byte) packed[byte] = block_elements::packed_byte(element, codes, count, byte);
}

int64_t encode_rows(const Matrix& weight, int64_t begin, int64_t end, const BlockGrid& grid, uint8_t* codes,
                    void* scales, uint8_t* row_codes, float* buffer) {
  const int64_t per_byte = codes_per_byte(grid.element);
  const int64_t bytes = (weight.columns + per_byte - 1) / per_byte;
  const bool scale_in_a_byte = grid.element == BlockElement::mxfp4 || grid.element == BlockElement::nvfp4;
  int64_t invalid = 0;
  block_elements::for_element(grid.element, [&](auto rounding) {
    using Rounding = decltype(rounding);
    for (int64_t row = begin; row < end; ++row) {
      invalid += for_each_block(weight, row, grid, buffer,
                                [&](const float* values, int64_t count, BlockScale scale, int64_t column) {
                                  for (int64_t i = 0; i < count; ++i) {
                                    row_codes[column + i] = static_cast<uint8_t>(Rounding::code(values[i], scale));
                                  }
                                  if (grid.fixed != nullptr) return;
                                  const int64_t block = (row * weight.columns + column) / grid.block_size;
                                  if (scale_in_a_byte) {
                                    static_cast<uint8_t*>(scales)[block] = scale.code;
                                  } else {
                                    static_cast<float*>(scales)[block] = scale.unit;
                                  }
                                });
      pack_row(grid.element, row_codes, weight.columns, codes + row * bytes, bytes);
    }
  });
  return invalid;
}

void measure_rows(const Matrix& weight, int64_t begin, int64_t end, bool sum, BlockStatistic* statistics,
                  float* buffer) {
  for (int64_t row = begin; row < end; ++row) {
    BlockStatistic total{0, 0, 0};
    for (int64_t column = 0; column < weight.columns; column += kBlockTile) {
      const int64_t left = weight.columns - column;
      const int64_t count = left < kBlockTile ? left : kBlockTile;
      const BlockStatistic own = measure(row_floats(weight, row, column, count, buffer), count, sum);
      total.largest = own.largest > total.largest ? own.largest : total.largest;
      total.sum += own.sum;
      total.invalid += own.invalid;
    }
    statistics[row] = total;
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const BlockFloatLoops block_float_loops = {round_rows, encode_rows, measure_rows, scale};
}

}  // namespace hemostat::kernels
