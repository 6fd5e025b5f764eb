// Elements in the CUDA kernels: reading, writing, and walking over a matrix. Everything has internal linkage.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr uint32_t kAllLanes = 0xffffffffu;

// kSpareBits: low bits of the float32 that are always 0.
struct Float32 {
  using Storage = float;
  static constexpr int kSpareBits = 0;
  static __device__ float load(float value) { return value; }
  static __device__ float store(float value) { return value; }
};

struct Bfloat16 {
  using Storage = uint16_t;
  static constexpr int kSpareBits = 16;
  static __device__ float load(uint16_t value) { return __uint_as_float(uint32_t{value} << 16); }
  static __device__ uint16_t store(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
};

struct Float16 {
  using Storage = uint16_t;
  static constexpr int kSpareBits = 13;
  static __device__ float load(uint16_t value) { return __half2float(__ushort_as_half(value)); }
  static __device__ uint16_t store(float value) { return __half_as_ushort(__float2half_rn(value)); }
};

// Calls launch(Type{}).
template <class Launch>
void for_element(Element element, const Launch& launch) {
  switch (element) {
    case Element::float32:
      return launch(Float32{});
    case Element::bfloat16:
      return launch(Bfloat16{});
    case Element::float16:
      return launch(Float16{});
  }
}

// Kernels handle `unit` neighbours of a row at a time: 4 where every row can be read and written in fours, else 1.
constexpr int kUnit = 4;

struct alignas(16) Four32 {
  float value[kUnit];
};
struct alignas(8) Four16 {
  uint16_t value[kUnit];
};
inline __device__ Four32 four(const float* from) { return *reinterpret_cast<const Four32*>(from); }
inline __device__ Four16 four(const uint16_t* from) { return *reinterpret_cast<const Four16*>(from); }
inline __device__ void put_four(float* to, Four32 values) { *reinterpret_cast<Four32*>(to) = values; }
inline __device__ void put_four(uint16_t* to, Four16 values) { *reinterpret_cast<Four16*>(to) = values; }

template <class Type>
__device__ void load_unit(const typename Type::Storage* from, int unit, float* values) {
  if (unit == kUnit) {
    const auto loaded = four(from);
#pragma unroll
    for (int j = 0; j < kUnit; ++j) values[j] = Type::load(loaded.value[j]);
  } else {
    values[0] = Type::load(*from);
  }
}

template <class Type>
__device__ void store_unit(typename Type::Storage* to, int unit, const float* values) {
  if (unit == kUnit) {
    decltype(four(to)) stored;
#pragma unroll
    for (int j = 0; j < kUnit; ++j) stored.value[j] = Type::store(values[j]);
    put_four(to, stored);
  } else {
    *to = Type::store(values[0]);
  }
}

__device__ inline void store_bytes(uint8_t* to, int unit, const uint8_t* bytes) {
  if (unit == kUnit) {
    *reinterpret_cast<uchar4*>(to) = make_uchar4(bytes[0], bytes[1], bytes[2], bytes[3]);
  } else {
    *to = bytes[0];
  }
}

inline int64_t size_of(Element element) { return element == Element::float32 ? 4 : 2; }

inline bool aligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

inline bool rows_in_fours(const Matrix& matrix) {
  return matrix.columns % kUnit == 0 && aligned(matrix.data, kUnit * size_of(matrix.element)) &&
         (matrix.rows == 1 || matrix.row_stride % kUnit == 0);
}

// index = row · width + column; a 64-bit division only where it takes one.
__device__ inline void split(int64_t index, int64_t width, int64_t& row, int64_t& column) {
  if ((index | width) >> 32 == 0) {
    row = static_cast<uint32_t>(index) / static_cast<uint32_t>(width);
  } else {
    row = index / width;
  }
  column = index - row * width;
}

__device__ inline void count_invalid(int64_t* total, int count) {
  if (count > 0) atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(count));
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int multiprocessors() {
  int device = 0, count = 1;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

inline Error last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace
}  // namespace hemostat::kernels::cuda
