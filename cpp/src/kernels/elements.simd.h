// Reading and writing elements in the CPU loops. Included by *.simd.cpp only: everything has internal linkage, so
// that no copy compiled for one instruction set can stand in for another.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matrix.h"

namespace hemostat::kernels {
namespace {

template <class To, class From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

struct Float32 {
  using Storage = float;
  static inline float load(float value) { return value; }
  static inline float store(float value) { return value; }
};

struct Bfloat16 {
  using Storage = uint16_t;
  static inline float load(uint16_t value) { return bit_cast<float>(uint32_t{value} << 16); }
  // To nearest, halves to even; NaN stays NaN.
  static inline uint16_t store(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
  }
};

// In integer arithmetic, because x86-64 alone has no instruction for it; these loops vectorise.
struct Float16 {
  using Storage = uint16_t;
  static inline float load(uint16_t value) {
    const uint32_t magnitude = uint32_t{value} & 0x7fff;
    const uint32_t sign = (uint32_t{value} & 0x8000) << 16;
    const uint32_t shifted = magnitude << 13;
    const uint32_t normal = shifted + (uint32_t{127 - 15} << 23);
    const uint32_t special = shifted + (uint32_t{255 - 31} << 23);
    // A subnormal is the fraction of a number whose exponent is the smallest normal one.
    const float least = bit_cast<float>(uint32_t{127 - 14} << 23);
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(shifted + (uint32_t{127 - 14} << 23)) - least);
    const uint32_t bits = magnitude < 0x0400 ? subnormal : magnitude < 0x7c00 ? normal : special;
    return bit_cast<float>(bits | sign);
  }
  // To nearest, halves to even; beyond 65504 rounds to Inf; NaN stays NaN.
  static inline uint16_t store(float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    const uint32_t sign = (bits >> 16) & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t normal = (magnitude - (uint32_t{127 - 15} << 23) + 0x0fff + ((magnitude >> 13) & 1)) >> 13;
    // Adding 0.5 lines the fraction of a subnormal up with the lowest bits, rounding on the way.
    const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(magnitude) + 0.5f) - 0x3f000000;
    const uint32_t finite = magnitude < (uint32_t{127 - 14} << 23) ? subnormal : normal;
    const uint32_t result = magnitude > 0x7f800000 ? 0x7e00 : magnitude >= 0x47800000 ? 0x7c00 : finite;
    return static_cast<uint16_t>(sign | result);
  }
};

template <class Type>
inline const typename Type::Storage* row_of(const Matrix& matrix, int64_t row) {
  return static_cast<const typename Type::Storage*>(matrix.data) + row * matrix.row_stride;
}

template <class Type>
void widen(const typename Type::Storage* __restrict from, int64_t stride, int64_t count, float* __restrict to) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) to[i] = Type::load(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = Type::load(from[i * stride]);
  }
}

// Entries [begin, begin + count) of a row as float32: in place where they already are, else in `buffer`.
inline const float* row_floats(const Matrix& matrix, int64_t row, int64_t begin, int64_t count, float* buffer) {
  const int64_t stride = matrix.column_stride;
  switch (matrix.element) {
    case Element::float32: {
      const float* from = row_of<Float32>(matrix, row) + begin * stride;
      if (stride == 1) return from;
      widen<Float32>(from, stride, count, buffer);
      break;
    }
    case Element::bfloat16:
      widen<Bfloat16>(row_of<Bfloat16>(matrix, row) + begin * stride, stride, count, buffer);
      break;
    case Element::float16:
      widen<Float16>(row_of<Float16>(matrix, row) + begin * stride, stride, count, buffer);
      break;
  }
  return buffer;
}

}  // namespace
}  // namespace hemostat::kernels
