// Sixteen sub-blocks side by side, so that a search over their scales has no branches: as many of them in a vector as
// the instruction set has lanes, one on CUDA. A lane's result does not depend on how many there are.
// Everything has internal linkage, so that no copy compiled for one instruction set can stand in for another.
#pragma once

#include <cstdint>
#include <utility>

#include "kernels/gguf/blocks.h"
#ifndef __CUDACC__
#include "kernels/width.simd.h"
#endif

namespace hemostat::kernels {
namespace {

constexpr int kLanes = 16;

#ifdef __CUDACC__
constexpr int kWidth = 1;
using Lanes = float;
HEMOSTAT_BLOCKS Lanes splat(float value) { return value; }
HEMOSTAT_BLOCKS Lanes load(const float* from) { return *from; }
HEMOSTAT_BLOCKS void store(float* to, Lanes lanes) { *to = lanes; }
HEMOSTAT_BLOCKS void store_codes(int32_t* to, Lanes lanes) { *to = static_cast<int32_t>(lanes); }
HEMOSTAT_BLOCKS Lanes magnitude(Lanes lanes) { return fabsf(lanes); }
#else
typedef float Lanes __attribute__((vector_size(4 * kWidth)));
typedef int32_t Integers __attribute__((vector_size(4 * kWidth)));
inline Lanes splat(float value) { return Lanes{} + value; }
inline Lanes load(const float* from) {
  Lanes lanes;
  __builtin_memcpy(&lanes, from, sizeof(Lanes));
  return lanes;
}
inline void store(float* to, Lanes lanes) { __builtin_memcpy(to, &lanes, sizeof(Lanes)); }
inline void store_codes(int32_t* to, Lanes lanes) {
  const Integers codes = __builtin_convertvector(lanes, Integers);
  __builtin_memcpy(to, &codes, sizeof(codes));
}
inline Lanes magnitude(Lanes lanes) { return lanes < 0.0f ? -lanes : lanes; }
#endif

HEMOSTAT_BLOCKS Lanes least(Lanes a, Lanes b) { return a < b ? a : b; }
HEMOSTAT_BLOCKS Lanes most(Lanes a, Lanes b) { return a > b ? a : b; }

// The least of a vector's entries.
#ifdef __CUDACC__
HEMOSTAT_BLOCKS float least_lane(Lanes lanes) { return lanes; }
#else
template <int... kLane>
inline float least_lane(Lanes lanes, std::integer_sequence<int, kLane...>) {
  if constexpr (kWidth > 8) lanes = least(lanes, __builtin_shufflevector(lanes, lanes, (kLane ^ 8)...));
  if constexpr (kWidth > 4) lanes = least(lanes, __builtin_shufflevector(lanes, lanes, (kLane ^ 4)...));
  lanes = least(lanes, __builtin_shufflevector(lanes, lanes, (kLane ^ 2)...));
  return least(lanes, __builtin_shufflevector(lanes, lanes, (kLane ^ 1)...))[0];
}
inline float least_lane(Lanes lanes) { return least_lane(lanes, std::make_integer_sequence<int, kWidth>()); }
#endif

// To the nearest integer, halves to even, for |value| < 2^22.
HEMOSTAT_BLOCKS Lanes nearest(Lanes value) {
  constexpr float kShift = 12582912.0f;  // 1.5 · 2^23
  return (value + kShift) - kShift;
}

// 1 / value; 0 where the value is so small that no float16 scale tells it from 0.
HEMOSTAT_BLOCKS Lanes inverse_or_zero(Lanes value) {
  const Lanes zero = splat(0.0f);
  return magnitude(value) < 1e-20f ? zero : 1.0f / value;
}

// Entry i of every sub-block stands beside entry i of the others: at(i) + lane.
template <int N>
struct Group {
  alignas(64) float value[N * kLanes];
  alignas(64) float weight[N * kLanes];  // of the squared error
};

// `count` ≤ 16 sub-blocks of N values; the rest are zeros.
template <int N>
HEMOSTAT_BLOCKS void transpose(const float* __restrict from, int count, float* __restrict to) {
  for (int i = 0; i < N; ++i) {
    for (int lane = 0; lane < kLanes; ++lane) to[i * kLanes + lane] = lane < count ? from[lane * N + i] : 0.0f;
  }
}

// Weights relative to the largest of a sub-block; all 1 where that is 0.
template <int N>
HEMOSTAT_BLOCKS void normalize_weights(float* weight) {
  for (int lane = 0; lane < kLanes; lane += kWidth) {
    Lanes largest = splat(0.0f);
    for (int i = 0; i < N; ++i) largest = most(largest, load(weight + i * kLanes + lane));
    const Lanes one = splat(1.0f);
    const auto none = largest < 1e-35f;
    const Lanes inverse = none ? one : 1.0f / largest;
    for (int i = 0; i < N; ++i) {
      const Lanes scaled = load(weight + i * kLanes + lane) * inverse;
      store(weight + i * kLanes + lane, none ? one : scaled);
    }
  }
}

}  // namespace
}  // namespace hemostat::kernels
