// CUDA kernels of `kept_until`: a stable radix sort of (key, index), then ranks. See hemostat/kernels.h for what they
// compute and select.h for how they are called.
#include <algorithm>
#include <cstdint>

#include <cub/device/device_radix_sort.cuh>

#include "kernels/select/scores.cuh"

namespace hemostat::kernels::cuda {
namespace {

// Keys and indices of the entries of a batch of rows, in row-major order.
template <class Type>
__global__ void load_keys(Source<Type> source, int64_t first_row, int64_t units, uint32_t* keys, uint32_t* indices,
                          int64_t* invalid) {
  const int unit = source.unit;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= units) return;
  int64_t row, column;
  split(i, source.columns / unit, row, column);
  uint32_t own[kUnit];
  count_invalid(invalid, source.keys(first_row + row, column * unit, own));
  const uint32_t index = static_cast<uint32_t>(i * unit);
  if (unit == kUnit) {
    *reinterpret_cast<uint4*>(keys + index) = make_uint4(own[0], own[1], own[2], own[3]);
    *reinterpret_cast<uint4*>(indices + index) = make_uint4(index, index + 1, index + 2, index + 3);
  } else {
    keys[index] = own[0];
    indices[index] = index;
  }
}

__global__ void rows_of(const uint32_t* indices, uint32_t entries, uint32_t columns, uint32_t* rows) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < entries) rows[i] = indices[i] / columns;
}

// indices: the batch's entries, scope by scope, and within a scope from the smallest score to the largest.
template <class Out>
__global__ void place_ranks(const uint32_t* indices, uint32_t entries, uint32_t scope, Out* out) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= entries) return;
  const uint32_t rank = i % scope;
  // The quotient is rounded once, from exact integers: float32 holds them up to 2^24.
  out[indices[i]] = static_cast<Out>(rank + 1) / static_cast<Out>(scope);
}

constexpr int64_t kBatch = int64_t{1} << 24;  // entries; of memory, 16 bytes each

size_t sort_bytes(int64_t entries) {
  size_t bytes = 0;
  cub::DoubleBuffer<uint32_t> keys, values;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, values, static_cast<uint32_t>(entries));
  return bytes;
}

// Rows that are sorted together: all of a tensor, else as many as bound the memory.
int64_t batch_rows(int64_t rows, int64_t columns, bool per_row) {
  return per_row ? std::clamp<int64_t>(kBatch / columns, 1, rows) : rows;
}

int64_t padded(int64_t bytes) { return ceil_div(bytes, 256) * 256; }

}  // namespace

int64_t kept_until_scratch(int64_t rows, int64_t columns, bool per_row) {
  const int64_t entries = batch_rows(rows, columns, per_row) * columns;
  return 4 * padded(4 * entries) + static_cast<int64_t>(sort_bytes(entries));
}

Error kept_until(const Scores& scores, bool per_row, bool wide, void* out, void* scratch, int64_t* invalid,
                 void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const int64_t rows = scores.matrix.rows, columns = scores.matrix.columns;
  const int64_t rows_at_once = batch_rows(rows, columns, per_row), room = padded(4 * rows_at_once * columns);
  const auto scope = static_cast<uint32_t>(per_row ? columns : rows * columns);
  auto* bytes = static_cast<char*>(scratch);
  size_t sort_room = sort_bytes(rows_at_once * columns);
  for (int64_t row = 0; row < rows; row += rows_at_once) {
    const int64_t batch = std::min(rows_at_once, rows - row);
    const auto entries = static_cast<uint32_t>(batch * columns);
    cub::DoubleBuffer<uint32_t> keys(reinterpret_cast<uint32_t*>(bytes), reinterpret_cast<uint32_t*>(bytes + room));
    cub::DoubleBuffer<uint32_t> indices(reinterpret_cast<uint32_t*>(bytes + 2 * room),
                                        reinterpret_cast<uint32_t*>(bytes + 3 * room));
    void* sort = bytes + 4 * room;
    for_element(scores.matrix.element, [&](auto type) {
      using Type = decltype(type);
      const auto source = source_of<Type>(scores, nullptr, 1);
      const int64_t units = entries / source.unit;
      load_keys<Type>
          <<<blocks(units), kThreads, 0, queue>>>(source, row, units, keys.Current(), indices.Current(), invalid);
    });
    cudaError_t error =
        cub::DeviceRadixSort::SortPairs(sort, sort_room, keys, indices, entries, 0, key_bits(scores), queue);
    if (error == cudaSuccess && per_row && batch > 1) {
      // Stable: within a row the order stays.
      int row_bits = 1;
      while ((batch - 1) >> row_bits > 0) ++row_bits;
      rows_of<<<blocks(entries), kThreads, 0, queue>>>(indices.Current(), entries, scope, keys.Current());
      error = cub::DeviceRadixSort::SortPairs(sort, sort_room, keys, indices, entries, 0, row_bits, queue);
    }
    if (error != cudaSuccess) return cudaGetErrorString(error);
    if (wide) {
      place_ranks<<<blocks(entries), kThreads, 0, queue>>>(indices.Current(), entries, scope,
                                                           static_cast<double*>(out) + row * columns);
    } else {
      place_ranks<<<blocks(entries), kThreads, 0, queue>>>(indices.Current(), entries, scope,
                                                           static_cast<float*>(out) + row * columns);
    }
  }
  return last_error();
}

}  // namespace hemostat::kernels::cuda
