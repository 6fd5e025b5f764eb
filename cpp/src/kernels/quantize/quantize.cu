// CUDA kernels of `quantize`. See hemostat/kernels.h for what they compute and quantize.h for how they are called.
#include <algorithm>
#include <cstdint>

#include "kernels/elements.cuh"
#include "kernels/quantize/quantize.h"

namespace hemostat::kernels::cuda {
namespace {

template <class Type>
struct Weight {
  const typename Type::Storage* data;
  int64_t row_stride, columns;
  int unit;

  __device__ void load(int64_t row, int64_t column, float* values) const {
    load_unit<Type>(data + row * row_stride + column, unit, values);
  }
};

// `group`: neighbours that are rounded alike, or 0.
template <class Type>
Weight<Type> weight_of(const Matrix& matrix, int64_t group, const Rounded& out) {
  const bool fours = rows_in_fours(matrix) && group % kUnit == 0 && aligned(out.codes, kUnit) &&
                     aligned(out.values, kUnit * size_of(matrix.element));
  return {static_cast<const typename Type::Storage*>(matrix.data), matrix.row_stride, matrix.columns,
          fours ? kUnit : 1};
}

// The extremes of a group as float32 bits (see Extent in quantize.h) and the values met that are not finite.
struct Range {
  int32_t highest = 0;
  uint32_t lowest = 0;
  int invalid = 0;

  __device__ void widen(const float* values, int unit) {
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= unit) break;
      const uint32_t bits = __float_as_uint(values[j]);
      highest = max(highest, static_cast<int32_t>(bits));
      lowest = max(lowest, bits);
      invalid += (bits & 0x7fffffffu) >= 0x7f800000u;
    }
  }

  // The extremes of `lanes` neighbouring lanes (a power of two); every lane of the warp calls it.
  __device__ void merge_lanes(int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      highest = max(highest, __shfl_xor_sync(kAllLanes, highest, distance));
      lowest = max(lowest, __shfl_xor_sync(kAllLanes, lowest, distance));
    }
  }

  // The extremes of the block; every thread calls it.
  __device__ void merge_block() {
    __shared__ int32_t highest_of[kWarp];
    __shared__ uint32_t lowest_of[kWarp];
    merge_lanes(kWarp);
    if (threadIdx.x % kWarp == 0) {
      highest_of[threadIdx.x / kWarp] = highest;
      lowest_of[threadIdx.x / kWarp] = lowest;
    }
    __syncthreads();
    for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) {
      highest = max(highest, highest_of[i]);
      lowest = max(lowest, lowest_of[i]);
    }
  }

  __device__ GroupScale scale(int64_t levels, bool symmetric) const {
    return scale_of_range(least(), most(), levels, symmetric);
  }

  // Counts the group where it leaves the weight's dtype; one thread a group calls it.
  __device__ void count_leaving(GroupScale scale, Grid grid, int64_t* total) const {
    count_invalid(total, leaves_dtype(least(), most(), scale, grid) ? 1 : 0);
  }

  __device__ GroupScale clipped_scale(Grid grid, int64_t factor) const {
    return clipped_scale_of_range(least(), most(), grid.levels, grid.symmetric, factor);
  }

 private:
  __device__ float least() const { return lowest > 0x80000000u ? __uint_as_float(lowest) : 0.0f; }
  __device__ float most() const { return __uint_as_float(static_cast<uint32_t>(highest)); }
};

// Rounds `unit` values and writes them at `index` of the contiguous result.
template <class Type>
__device__ void write_rounded(const Rounded& out, int64_t index, const float* values, int unit, GroupScale scale,
                              float last) {
  float rounded[kUnit];
  uint8_t codes[kUnit];
#pragma unroll
  for (int j = 0; j < kUnit; ++j) {
    if (j >= unit) break;
    float code = __fadd_rn(rintf(__fdiv_rn(values[j], scale.scale)), scale.zero);
    code = code < 0.0f ? 0.0f : code;
    code = code > last ? last : code;
    rounded[j] = __fmul_rn(__fsub_rn(code, scale.zero), scale.scale);
    codes[j] = static_cast<uint8_t>(static_cast<int>(code));
  }
  if (out.codes != nullptr) {
    store_bytes(out.codes + index, unit, codes);
  } else {
    store_unit<Type>(static_cast<typename Type::Storage*>(out.values) + index, unit, rounded);
  }
}

__device__ void write_scale(const Rounded& out, int64_t group, GroupScale scale) {
  if (out.codes == nullptr) return;
  out.scales[group] = scale.scale;
  out.zeros[group] = scale.zero;
}

// `lanes` threads a group (a power of two, at most a warp), each with at most kUnits units of it in registers.
template <class Type, int kUnits>
__global__ void __launch_bounds__(256)
    round_small_groups(Weight<Type> weight, int64_t groups, Grid grid, int lanes, Rounded out, int64_t* invalid) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t group = thread >> (__ffs(lanes) - 1);
  const int lane = static_cast<int>(thread) & (lanes - 1);
  const int unit = weight.unit, units = group < groups ? static_cast<int>(grid.group_size) / unit : 0;
  int64_t row, column;
  split(group, weight.columns / grid.group_size, row, column);
  column *= grid.group_size;

  float values[kUnits][kUnit];
  Range range;
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    const int own = i * lanes + lane;
    if (own >= units) break;
    weight.load(row, column + own * unit, values[i]);
    range.widen(values[i], unit);
  }
  count_invalid(invalid, range.invalid);
  range.merge_lanes(lanes);
  if (units == 0) return;

  const GroupScale scale = range.scale(grid.levels, grid.symmetric);
  const float last = static_cast<float>(grid.levels - 1);
  if (lane == 0) {
    write_scale(out, group, scale);
    range.count_leaving(scale, grid, invalid);
  }
#pragma unroll
  for (int i = 0; i < kUnits; ++i) {
    const int own = i * lanes + lane;
    if (own >= units) break;
    write_rounded<Type>(out, row * weight.columns + column + own * unit, values[i], unit, scale, last);
  }
}

// A block a group, which it reads twice, the second time from the cache.
template <class Type>
__global__ void round_large_group(Weight<Type> weight, Grid grid, Rounded out, int64_t* invalid) {
  const int64_t group = blockIdx.x;
  const int unit = weight.unit;
  int64_t row, column;
  split(group, weight.columns / grid.group_size, row, column);
  column *= grid.group_size;
  const int64_t step = static_cast<int64_t>(blockDim.x) * unit, first = static_cast<int64_t>(threadIdx.x) * unit;

  Range range;
  float values[kUnit];
  for (int64_t i = first; i < grid.group_size; i += step) {
    weight.load(row, column + i, values);
    range.widen(values, unit);
  }
  count_invalid(invalid, range.invalid);
  range.merge_block();

  const GroupScale scale = range.scale(grid.levels, grid.symmetric);
  const float last = static_cast<float>(grid.levels - 1);
  if (threadIdx.x == 0) {
    write_scale(out, group, scale);
    range.count_leaving(scale, grid, invalid);
  }
  for (int64_t i = first; i < grid.group_size; i += step) {
    weight.load(row, column + i, values);
    write_rounded<Type>(out, row * weight.columns + column + i, values, unit, scale, last);
  }
}

// The extremes of a whole tensor, merged by atomics: the same in any order.
struct SharedRange {
  int32_t highest;
  uint32_t lowest;
};

template <class Type>
__global__ void find_range(Weight<Type> weight, int64_t units, SharedRange* shared, int64_t* invalid) {
  const int64_t units_of_row = weight.columns / weight.unit;
  Range range;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < units;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    float values[kUnit];
    weight.load(row, column * weight.unit, values);
    range.widen(values, weight.unit);
  }
  count_invalid(invalid, range.invalid);
  range.merge_block();
  if (threadIdx.x == 0) {
    atomicMax(&shared->highest, range.highest);
    atomicMax(&shared->lowest, range.lowest);
  }
}

template <class Type>
__global__ void round_with_range(Weight<Type> weight, int64_t units, Grid grid, const SharedRange* shared, Rounded out,
                                 int64_t* invalid) {
  const int64_t units_of_row = weight.columns / weight.unit;
  Range range;
  range.highest = shared->highest;
  range.lowest = shared->lowest;
  const GroupScale scale = range.scale(grid.levels, grid.symmetric);
  const float last = static_cast<float>(grid.levels - 1);
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    write_scale(out, 0, scale);
    range.count_leaving(scale, grid, invalid);
  }
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < units;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    float values[kUnit];
    weight.load(row, column * weight.unit, values);
    write_rounded<Type>(out, i * weight.unit, values, weight.unit, scale, last);
  }
}

// The squared error of `unit` values.
__device__ float error_of(const float* values, int unit, GroupScale scale, float last) {
  float total = 0;
#pragma unroll
  for (int j = 0; j < kUnit; ++j) {
    if (j >= unit) break;
    float code = __fadd_rn(rintf(__fdiv_rn(values[j], scale.scale)), scale.zero);
    code = code < 0.0f ? 0.0f : code;
    code = code > last ? last : code;
    const float error = __fsub_rn(__fmul_rn(__fsub_rn(code, scale.zero), scale.scale), values[j]);
    total += error * error;
  }
  return total;
}

// A warp a group; it reads the group once for its range and once a factor, from the cache. Errors are added in one
// order: `lanes` first, then over the warp.
template <class Type>
__global__ void search_groups(Weight<Type> weight, int64_t groups, Grid grid, float* scales, float* zeros,
                              int64_t* invalid) {
  const int64_t group = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (group >= groups) return;
  const int unit = weight.unit;
  int64_t row, column;
  split(group, weight.columns / grid.group_size, row, column);
  column *= grid.group_size;
  const int64_t first = static_cast<int64_t>(threadIdx.x % kWarp) * unit, step = kWarp * unit;

  Range range;
  float values[kUnit];
  for (int64_t i = first; i < grid.group_size; i += step) {
    weight.load(row, column + i, values);
    range.widen(values, unit);
  }
  count_invalid(invalid, range.invalid);
  range.merge_lanes(kWarp);

  const float last = static_cast<float>(grid.levels - 1);
  double least = 0;
  GroupScale best{1, 0};
  for (int64_t factor = 0; factor < kClipFactors; ++factor) {
    const GroupScale scale = range.clipped_scale(grid, factor);
    double error = 0;
    for (int64_t i = first; i < grid.group_size; i += step) {
      weight.load(row, column + i, values);
      error += static_cast<double>(error_of(values, unit, scale, last));
    }
    for (int distance = kWarp / 2; distance > 0; distance /= 2) error += __shfl_xor_sync(kAllLanes, error, distance);
    if (factor == 0 || error < least) {
      least = error;
      best = scale;
    }
  }
  if (threadIdx.x % kWarp == 0) {
    scales[group] = best.scale;
    zeros[group] = best.zero;
  }
}

// A block a factor and a part of the tensor: errors [factors, parts].
template <class Type>
__global__ void clip_errors(Weight<Type> weight, int64_t units, Grid grid, const SharedRange* shared, double* errors) {
  __shared__ double error_of_warp[kWarp];
  const int64_t units_of_row = weight.columns / weight.unit;
  Range range;
  range.highest = shared->highest;
  range.lowest = shared->lowest;
  const GroupScale scale = range.clipped_scale(grid, blockIdx.y);
  const float last = static_cast<float>(grid.levels - 1);
  double error = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < units;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    float values[kUnit];
    weight.load(row, column * weight.unit, values);
    error += static_cast<double>(error_of(values, weight.unit, scale, last));
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) error += __shfl_xor_sync(kAllLanes, error, distance);
  if (threadIdx.x % kWarp == 0) error_of_warp[threadIdx.x / kWarp] = error;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) total += error_of_warp[i];
  errors[blockIdx.y * gridDim.x + blockIdx.x] = total;
}

__global__ void pick_range(const double* errors, Grid grid, const SharedRange* shared, float* scale, float* zero) {
  Range range;
  range.highest = shared->highest;
  range.lowest = shared->lowest;
  double least = 0;
  int64_t best = 0;
  for (int64_t factor = 0; factor < kClipFactors; ++factor) {
    double total = 0;
    for (int64_t part = 0; part < kSearchParts; ++part) total += errors[factor * kSearchParts + part];
    if (factor == 0 || total < least) {
      least = total;
      best = factor;
    }
  }
  const GroupScale found = range.clipped_scale(grid, best);
  *scale = found.scale;
  *zero = found.zero;
}

constexpr int kThreads = 256;
constexpr int64_t kManyUnits = 8;  // registers of a thread: 4 values each

}  // namespace

Error round_groups(const Matrix& weight, Grid grid, Rounded out, int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const int64_t groups = weight.rows * (weight.columns / grid.group_size);
  for_element(weight.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = weight_of<Type>(weight, grid.group_size, out);
    const int64_t units = grid.group_size / source.unit;
    int lanes = 1;
    while (lanes < kWarp && lanes < units) lanes *= 2;
    const auto small_blocks = static_cast<unsigned>(ceil_div(groups * lanes, kThreads));
    if (units <= lanes) {
      round_small_groups<Type, 1><<<small_blocks, kThreads, 0, queue>>>(source, groups, grid, lanes, out, invalid);
    } else if (units <= kManyUnits * lanes) {
      round_small_groups<Type, kManyUnits>
          <<<small_blocks, kThreads, 0, queue>>>(source, groups, grid, lanes, out, invalid);
    } else {
      round_large_group<Type><<<static_cast<unsigned>(groups), kThreads, 0, queue>>>(source, grid, out, invalid);
    }
  });
  return last_error();
}

Error round_all(const Matrix& tensor, Grid grid, Rounded out, void* scratch, int64_t* invalid, void* stream) {
  static_assert(sizeof(SharedRange) <= kRoundAllScratch);
  const auto queue = static_cast<cudaStream_t>(stream);
  Matrix weight = tensor;
  if (weight.row_stride == weight.columns) {  // without gaps: one long row
    weight.columns *= weight.rows;
    weight.rows = 1;
  }
  const int64_t entries = weight.rows * weight.columns;
  auto* shared = static_cast<SharedRange*>(scratch);
  cudaMemsetAsync(shared, 0, sizeof(SharedRange), queue);
  for_element(weight.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = weight_of<Type>(weight, 0, out);
    const int64_t units = entries / source.unit;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(8 * multiprocessors(), ceil_div(units, kThreads)));
    find_range<Type><<<blocks, kThreads, 0, queue>>>(source, units, shared, invalid);
    round_with_range<Type><<<blocks, kThreads, 0, queue>>>(source, units, grid, shared, out, invalid);
  });
  return last_error();
}

Error search_groups(const Matrix& weight, Grid grid, float* scales, float* zeros, int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const int64_t groups = weight.rows * (weight.columns / grid.group_size);
  for_element(weight.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = weight_of<Type>(weight, grid.group_size, Rounded{});
    search_groups<Type><<<static_cast<unsigned>(ceil_div(groups * kWarp, kThreads)), kThreads, 0, queue>>>(
        source, groups, grid, scales, zeros, invalid);
  });
  return last_error();
}

Error search_all(const Matrix& weight, Grid grid, float* scale, float* zero, void* scratch, int64_t* invalid,
                 void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  auto* errors = static_cast<double*>(scratch);
  auto* shared = reinterpret_cast<SharedRange*>(errors + kClipFactors * kSearchParts);
  cudaMemsetAsync(shared, 0, sizeof(SharedRange), queue);
  for_element(weight.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = weight_of<Type>(weight, 0, Rounded{});
    const int64_t units = weight.rows * weight.columns / source.unit;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(8 * multiprocessors(), ceil_div(units, kThreads)));
    find_range<Type><<<blocks, kThreads, 0, queue>>>(source, units, shared, invalid);
    clip_errors<Type><<<dim3(kSearchParts, kClipFactors), kThreads, 0, queue>>>(source, units, grid, shared, errors);
  });
  pick_range<<<1, 1, 0, queue>>>(errors, grid, shared, scale, zero);
  return last_error();
}

}  // namespace hemostat::kernels::cuda
