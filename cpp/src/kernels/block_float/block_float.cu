// CUDA kernels of `block_float`. See hemostat/kernels.h for what they compute and block_float.h for how they are
// called.
#include <algorithm>
#include <cstdint>

#include "kernels/block_float/block_float.h"
#include "kernels/elements.cuh"

namespace hemostat::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

template <class Type>
struct Weight {
  const typename Type::Storage* data;
  int64_t rows, columns, row_stride;
  int unit;

  __device__ void load(int64_t row, int64_t column, float* values) const {
    load_unit<Type>(data + row * row_stride + column, unit, values);
  }
};

// `block`: neighbours that share a scale.
template <class Type>
Weight<Type> weight_of(const Matrix& matrix, int64_t block, const BlockRounded& out) {
  const bool fours = rows_in_fours(matrix) && block % kUnit == 0 && aligned(out.codes, kUnit) &&
                     aligned(out.values, kUnit * size_of(matrix.element));
  return {static_cast<const typename Type::Storage*>(matrix.data), matrix.rows, matrix.columns, matrix.row_stride,
          fours ? kUnit : 1};
}

struct Statistic {
  uint32_t largest = 0;
  double sum = 0;
  int invalid = 0;

  __device__ void add(const float* values, int unit) {
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= unit) break;
      const uint32_t magnitude = __float_as_uint(values[j]) & 0x7fffffffu;
      largest = max(largest, magnitude);
      sum += static_cast<double>(__uint_as_float(magnitude));
      invalid += magnitude >= 0x7f800000u;
    }
  }

  // Every lane of the warp calls it and gets the same.
  __device__ void merge_warp() {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      largest = max(largest, __shfl_xor_sync(kAllLanes, largest, distance));
      sum += __shfl_xor_sync(kAllLanes, sum, distance);
    }
  }

  // Of the whole block of threads, in one order; every thread calls it.
  __device__ void merge_block() {
    __shared__ uint32_t largest_of[kWarps];
    __shared__ double sum_of[kWarps];
    merge_warp();
    if (threadIdx.x % kWarp == 0) {
      largest_of[threadIdx.x / kWarp] = largest;
      sum_of[threadIdx.x / kWarp] = sum;
    }
    __syncthreads();
    largest = 0;
    sum = 0;
    for (int i = 0; i < kWarps; ++i) {
      largest = max(largest, largest_of[i]);
      sum += sum_of[i];
    }
  }

  __device__ BlockScale scale(BlockElement element, int64_t entries, float tensor_scale) const {
    return block_elements::scale_of(element, __uint_as_float(largest),
                                    static_cast<float>(sum / static_cast<double>(entries)), tensor_scale);
  }
};

// What is known of the whole tensor once all of it was seen.
struct Whole {
  BlockScale scale;
  float tensor_scale;
};

// A block of threads a row.
template <class Type>
__global__ void measure_rows(Weight<Type> weight, BlockStatistic* rows, int64_t* invalid) {
  const int64_t row = blockIdx.x;
  Statistic statistic;
  float values[kUnit];
  for (int64_t i = static_cast<int64_t>(threadIdx.x) * weight.unit; i < weight.columns; i += kThreads * weight.unit) {
    weight.load(row, i, values);
    statistic.add(values, weight.unit);
  }
  count_invalid(invalid, statistic.invalid);
  statistic.merge_block();
  if (threadIdx.x == 0) rows[row] = {statistic.largest, statistic.sum, 0};
}

// One block of threads.
__global__ void merge_rows(const BlockStatistic* rows, int64_t count, int64_t entries, BlockElement element,
                           Whole* whole) {
  Statistic statistic;
  for (int64_t row = threadIdx.x; row < count; row += kThreads) {
    statistic.largest = max(statistic.largest, rows[row].largest);
    statistic.sum += rows[row].sum;
  }
  statistic.merge_block();
  if (threadIdx.x != 0) return;
  whole->tensor_scale =
      element == BlockElement::nvfp4 ? block_elements::tensor_scale_of(__uint_as_float(statistic.largest)) : 1.0f;
  whole->scale = statistic.scale(element, entries, whole->tensor_scale);
}

__device__ void write_scale(const BlockRounded& out, BlockElement element, int64_t block, BlockScale scale) {
  if (out.codes == nullptr) return;
  if (element == BlockElement::mxfp4 || element == BlockElement::nvfp4) {
    static_cast<uint8_t*>(out.scales)[block] = scale.code;
  } else {
    static_cast<float*>(out.scales)[block] = scale.unit;
  }
}

// A warp a block (`width` columns of a row), which it reads twice, the second time from the cache. `whole` is null
// where a block's scale depends on itself alone; `fixed`: all have whole's.
template <class Type, class Rounding>
__global__ void __launch_bounds__(kThreads)
    round_blocks(Weight<Type> weight, int64_t width, int64_t blocks, BlockElement element, const Whole* whole,
                 bool fixed, BlockRounded out, int64_t* invalid) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (block >= blocks) return;
  int64_t row, column;
  split(block, (weight.columns + width - 1) / width, row, column);
  column *= width;
  const int unit = weight.unit;
  const int64_t begin = column + static_cast<int64_t>(threadIdx.x % kWarp) * unit, step = kWarp * unit;
  const int64_t end = min(column + width, weight.columns);
  const bool first = threadIdx.x % kWarp == 0;

  float values[kUnit];
  BlockScale scale;
  if (fixed) {
    scale = whole->scale;
    if (first && block == 0) write_scale(out, element, 0, scale);
  } else {
    Statistic statistic;
    for (int64_t i = begin; i < end; i += step) {
      weight.load(row, i, values);
      statistic.add(values, unit);
    }
    if (whole == nullptr) count_invalid(invalid, statistic.invalid);
    statistic.merge_warp();
    scale = statistic.scale(element, width, whole == nullptr ? 1.0f : whole->tensor_scale);
    if (first) write_scale(out, element, block, scale);
  }
  if (first && block == 0 && out.codes != nullptr) *out.tensor_scale = whole == nullptr ? 1.0f : whole->tensor_scale;

  for (int64_t i = begin; i < end; i += step) {
    weight.load(row, i, values);
    float rounded[kUnit];
    uint8_t codes[kUnit];
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= unit) break;
      if (out.codes != nullptr) {
        codes[j] = static_cast<uint8_t>(Rounding::code(values[j], scale));
      } else {
        rounded[j] = __fmul_rn(Rounding::value(values[j], scale), scale.unit);
      }
    }
    const int64_t index = row * weight.columns + i;
    if (out.codes != nullptr) {
      store_bytes(out.codes + index, unit, codes);
    } else {
      store_unit<Type>(static_cast<typename Type::Storage*>(out.values) + index, unit, rounded);
    }
  }
}

// A thread a packed byte.
__global__ void pack_codes(const uint8_t* codes, int64_t columns, int64_t bytes, int64_t total, BlockElement element,
                           uint8_t* packed) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= total) return;
  int64_t row, byte;
  split(index, bytes, row, byte);
  packed[index] = block_elements::packed_byte(element, codes + row * columns, columns, byte);
}

}  // namespace

int64_t block_float_scratch(int64_t rows) {
  return static_cast<int64_t>(sizeof(BlockStatistic)) * rows + static_cast<int64_t>(sizeof(Whole));
}

Error block_float(const Matrix& weight, BlockElement element, int64_t block_size, BlockRounded out, void* scratch,
                  int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const bool fixed = block_size == 0, needs_whole = fixed || element == BlockElement::nvfp4;
  const int64_t width = fixed ? std::min(weight.columns, kBlockTile) : block_size;
  const int64_t blocks = weight.rows * ceil_div(weight.columns, width);
  auto* rows = static_cast<BlockStatistic*>(scratch);
  Whole* whole = needs_whole ? reinterpret_cast<Whole*>(rows + weight.rows) : nullptr;
  for_element(weight.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = weight_of<Type>(weight, fixed ? kUnit : block_size, out);
    if (needs_whole) {
      measure_rows<Type><<<static_cast<unsigned>(weight.rows), kThreads, 0, queue>>>(source, rows, invalid);
      merge_rows<<<1, kThreads, 0, queue>>>(rows, weight.rows, weight.rows * weight.columns, element, whole);
    }
    block_elements::for_element(element, [&](auto rounding) {
      round_blocks<Type, decltype(rounding)><<<static_cast<unsigned>(ceil_div(blocks, kWarps)), kThreads, 0, queue>>>(
          source, width, blocks, element, whole, fixed, out, invalid);
    });
  });
  if (out.codes != nullptr) {
    const int64_t bytes = ceil_div(weight.columns, codes_per_byte(element)), total = weight.rows * bytes;
    pack_codes<<<static_cast<unsigned>(ceil_div(total, kThreads)), kThreads, 0, queue>>>(
        out.codes, weight.columns, bytes, total, element, out.packed);
  }
  return last_error();
}

}  // namespace hemostat::kernels::cuda
