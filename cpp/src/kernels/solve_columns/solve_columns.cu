// CUDA kernel of `solve_columns`: a thread to a row. See hemostat/kernels.h for what it computes and solve_columns.h
// for how it is called.
#include <algorithm>
#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/solve_columns/solve_columns.h"

namespace hemostat::kernels::cuda {
namespace {

constexpr int64_t kSharedBytes = 48 * 1024;
constexpr int kMostThreads = 128, kLeastThreads = 32;

// A thread's current weights: in shared memory side by side with its neighbours', or in the row of `error`.
struct Current {
  float* first;
  int64_t step;
  __device__ float& operator[](int64_t column) const { return first[column * step]; }
};

__device__ float score(const ColumnBlock& block, const Current& current, int64_t column) {
  return fabsf(current[column]) / block.inverse.data[column * block.inverse.stride + column];
}

// Of the m columns from here on, all but the n of the largest score fall.
__device__ void choose(const ColumnBlock& block, const Current& current, bool* mask, int64_t column) {
  for (int64_t k = column; k < column + block.m; ++k) {
    const float own = score(block, current, k);
    int64_t smaller = 0;
    for (int64_t l = column; l < column + block.m; ++l) {
      const float other = score(block, current, l);
      smaller += other < own || (other == own && l < k);
    }
    mask[k] = smaller >= block.m - block.n;
  }
}

__global__ void __launch_bounds__(kMostThreads) solve(ColumnBlock block, bool shared) {
  extern __shared__ float values[];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= block.rows) return;
  const float* before = block.current.data + row * block.current.stride;
  const float* weight = block.weight.data + row * block.weight.stride;
  float *solution = block.solution.data + row * block.solution.stride,
        *error = block.error.data + row * block.error.stride;
  bool* mask = block.mask.data == nullptr ? nullptr : block.mask.data + row * block.mask.stride;
  const Current current = shared ? Current{values + threadIdx.x, static_cast<int64_t>(blockDim.x)} : Current{error, 1};
  for (int64_t column = 0; column < block.columns; ++column) current[column] = before[column];

  float scale = 1, zero = 0;
  const float last = static_cast<float>(block.levels - 1);
  for (int64_t column = 0; column < block.columns; ++column) {
    if (block.m > 0 && column % block.m == 0) choose(block, current, mask, column);
    const float w = current[column];
    float q = mask == nullptr || mask[column] ? w : 0.0f;
    if (block.levels > 0) {
      const int64_t place = block.first + column;
      if (column == 0 || place % block.group_size == 0) {
        scale = block.scale.data[row * block.scale.stride + place / block.group_size];
        zero = block.zero.data[row * block.zero.stride + place / block.group_size];
      }
      float code = __fadd_rn(rintf(__fdiv_rn(q, scale)), zero);
      code = code < 0.0f ? 0.0f : code;
      code = code > last ? last : code;
      q = __fmul_rn(__fsub_rn(code, zero), scale);
    }
    const float* inverse = block.inverse.data + column * block.inverse.stride;
    const float e = __fdiv_rn(__fsub_rn(w, q), inverse[column]);
    for (int64_t k = column + 1; k < block.columns; ++k) {
      current[k] = __fsub_rn(current[k], __fmul_rn(e, inverse[k]));
    }
    solution[column] = q;
    if (!shared) error[column] = weight[column] - q;  // this column's current weight is done with
  }
  if (!shared) return;
  for (int64_t column = 0; column < block.columns; ++column) error[column] = weight[column] - solution[column];
}

}  // namespace

Error solve_columns(const ColumnBlock& block, void* stream) {
  const int64_t bytes = block.columns * static_cast<int64_t>(sizeof(float));
  const int64_t fit = bytes > 0 ? kSharedBytes / bytes / kLeastThreads * kLeastThreads : kMostThreads;
  const bool shared = fit >= kLeastThreads;
  const int threads = shared ? static_cast<int>(std::min<int64_t>(fit, kMostThreads)) : kMostThreads;
  const int64_t blocks = (block.rows + threads - 1) / threads;
  solve<<<static_cast<unsigned>(blocks), threads, shared ? static_cast<size_t>(bytes) * threads : 0,
          static_cast<cudaStream_t>(stream)>>>(block, shared);
  return last_error();
}

}  // namespace hemostat::kernels::cuda
