// Scores as the CUDA kernels of `select` rank them, through keys: uint32 whose order is the order of the float32
// scores, with −0 equal to +0. Included by the .cu files of `select` only.
#pragma once

#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/select/select.h"

namespace hemostat::kernels::cuda {
namespace {

template <class Type>
struct Source {
  const typename Type::Storage* data;
  int64_t row_stride, columns;
  const float* column_scale;
  bool absolute;
  int spare_bits;  // low bits of the keys that say nothing, and are shifted out
  int unit;

  // Keys of the `unit` entries from (row, column) on. Returns how many of them are NaN.
  __device__ int keys(int64_t row, int64_t column, uint32_t* keys) const {
    float values[kUnit];
    load_unit<Type>(data + row * row_stride + column, unit, values);
    float scales[kUnit];
    if (column_scale != nullptr) load_unit<Float32>(column_scale + column, unit, scales);
    int invalid = 0;
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= unit) break;
      float value = absolute ? fabsf(values[j]) : values[j];
      if (column_scale != nullptr) value = __fmul_rn(value, scales[j]);
      invalid += value != value;
      keys[j] = key_of(value);
    }
    return invalid;
  }

  // The key of one entry.
  __device__ uint32_t key(int64_t row, int64_t column) const {
    float value = Type::load(data[row * row_stride + column]);
    if (absolute) value = fabsf(value);
    if (column_scale != nullptr) value = __fmul_rn(value, column_scale[column]);
    return key_of(value);
  }

 private:
  // The bits of a negative number run backwards. Adding 0 turns −0 into +0.
  __device__ uint32_t key_of(float value) const {
    const uint32_t bits = __float_as_uint(__fadd_rn(value, 0.0f));
    const uint32_t flip = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
    return (bits ^ flip) >> spare_bits;
  }
};

int key_bits(const Scores& scores) {
  if (scores.column_scale != nullptr) return 32;
  switch (scores.matrix.element) {
    case Element::bfloat16:
      return 32 - Bfloat16::kSpareBits;
    case Element::float16:
      return 32 - Float16::kSpareBits;
    default:
      return 32;
  }
}

// `out`, of `out_bytes` an entry, is contiguous.
template <class Type>
Source<Type> source_of(const Scores& scores, const void* out, int64_t out_bytes) {
  const Matrix& matrix = scores.matrix;
  const bool fours =
      rows_in_fours(matrix) && aligned(scores.column_scale, sizeof(Four32)) && aligned(out, kUnit * out_bytes);
  return {static_cast<const typename Type::Storage*>(matrix.data),
          matrix.row_stride,
          matrix.columns,
          scores.column_scale,
          scores.absolute,
          32 - key_bits(scores),
          fours ? kUnit : 1};
}

constexpr int kThreads = 256;

unsigned blocks(int64_t threads) { return static_cast<unsigned>(ceil_div(threads, kThreads)); }

}  // namespace
}  // namespace hemostat::kernels::cuda
