// CUDA kernels of `select`. See hemostat/kernels.h for what they compute and select.h for how they are called.
// Every count is an integer, so that no result depends on the order in which blocks and threads run.
#include <algorithm>
#include <climits>
#include <cstdint>

#include "kernels/select/scores.cuh"

namespace hemostat::kernels::cuda {
namespace {

// A whole tensor without gaps and scales is one long row.
Scores flattened(Scores scores) {
  Matrix& matrix = scores.matrix;
  if (scores.column_scale == nullptr && (matrix.row_stride == matrix.columns || matrix.rows == 1)) {
    matrix.columns *= matrix.rows;
    matrix.rows = 1;
  }
  return scores;
}

// --- a block's common work -------------------------------------------------------------------------------------

// Sums over the block, of each thread's value and those of the threads before it. Every thread calls it; `sums` is
// shared and has room for a value a warp; it may be reused after the next __syncthreads().
template <class Sum>
__device__ Sum inclusive_sum(Sum value, Sum* sums) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int distance = 1; distance < kWarp; distance *= 2) {
    const Sum before = __shfl_up_sync(kAllLanes, value, distance);
    if (lane >= distance) value += before;
  }
  if (lane == kWarp - 1) sums[warp] = value;
  __syncthreads();
  for (int i = 0; i < warps; ++i) {
    if (i < warp) value += sums[i];
  }
  return value;
}

// What a digit decides: which bin holds the wanted rank, that rank within the bin, and the keys in it.
struct Pick {
  uint32_t bin;
  int64_t rank, entries;
};

// The bin of `bins` (a multiple of the threads) that holds the key of rank `rank`, counted from 0 and below the sum of
// all counts. Every thread calls it; `pick` is shared, and filled when it returns.
template <class Count>
__device__ void pick_bin(const Count* counts, int bins, int64_t rank, int64_t* sums, Pick* pick) {
  const int own_bins = bins / blockDim.x, first = threadIdx.x * own_bins;
  int64_t own = 0;
  for (int i = 0; i < own_bins; ++i) own += static_cast<int64_t>(counts[first + i]);
  int64_t start = inclusive_sum(own, sums) - own;
  if (rank >= start && rank < start + own) {
    for (int i = 0; i < own_bins; ++i) {
      const int64_t entries = static_cast<int64_t>(counts[first + i]);
      if (rank < start + entries) {
        *pick = {static_cast<uint32_t>(first + i), rank - start, entries};
        break;
      }
      start += entries;
    }
  }
  __syncthreads();
}

struct TieSearch {
  uint32_t equal[kWarp];  // keys equal to the threshold that each warp met
  int64_t cut;
};

// Where, from `begin` to `end`, the entry lies whose key is `key` and which `ties` such entries precede: equal keys
// before it are removed. There must be more than `ties` of them. Every thread calls it, with shared `search`.
template <class KeyAt>
__device__ int64_t find_cut(int64_t begin, int64_t end, uint32_t key, int64_t ties, TieSearch& search, KeyAt key_at) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t share = ((end - begin + warps - 1) / warps + kWarp - 1) / kWarp * kWarp;
  const int64_t from = min(begin + warp * share, end), to = min(from + share, end);
  uint32_t equal = 0;
  for (int64_t i = from; i < to; i += kWarp) {
    const bool tie = i + lane < to && key_at(i + lane) == key;
    equal += __popc(__ballot_sync(kAllLanes, tie));
  }
  if (lane == 0) search.equal[warp] = equal;
  __syncthreads();
  int64_t before = 0;
  for (int i = 0; i < warp; ++i) before += search.equal[i];
  if (before <= ties && ties < before + equal) {
    for (int64_t i = from; i < to; i += kWarp) {
      const bool tie = i + lane < to && key_at(i + lane) == key;
      uint32_t ballot = __ballot_sync(kAllLanes, tie);
      const int found = __popc(ballot);
      if (ties < before + found) {
        for (int64_t skipped = before; skipped < ties; ++skipped) ballot &= ballot - 1;
        if (lane == 0) search.cut = i + __ffs(static_cast<int>(ballot)) - 1;
        break;
      }
      before += found;
    }
  }
  __syncthreads();
  return search.cut;
}

__device__ void write_kept(uint8_t* out, int unit, const uint32_t* keys, int64_t index, uint32_t threshold,
                           int64_t cut) {
  uint8_t kept[kUnit];
#pragma unroll
  for (int j = 0; j < kUnit; ++j) {
    if (j < unit) kept[j] = keys[j] > threshold || (keys[j] == threshold && index + j >= cut);
  }
  store_bytes(out, unit, kept);
}

// --- rows: a block each ----------------------------------------------------------------------------------------

constexpr int kRowDigit = 11;
constexpr int kRowBins = 1 << kRowDigit;

// Radix selection from the highest digit down, over the bits in which the row's keys differ. `cached`: the keys of a
// row are kept in shared memory, else they are read again in every pass.
template <class Type>
__global__ void mask_row(Source<Type> source, int64_t removed, bool cached, uint8_t* out, int64_t* invalid) {
  extern __shared__ __align__(16) uint32_t cache[];
  __shared__ uint32_t bins[kRowBins];
  __shared__ int64_t sums[kWarp];
  __shared__ uint32_t extremes[2][kWarp];
  __shared__ Pick pick;
  __shared__ TieSearch search;

  const int64_t row = blockIdx.x, columns = source.columns;
  const int unit = source.unit;
  const int64_t step = static_cast<int64_t>(blockDim.x) * unit, first = static_cast<int64_t>(threadIdx.x) * unit;
  const auto load = [&](int64_t column, uint32_t* keys) {
    if (!cached) {
      source.keys(row, column, keys);
    } else if (unit == kUnit) {
      const uint4 four_keys = *reinterpret_cast<const uint4*>(cache + column);
      keys[0] = four_keys.x;
      keys[1] = four_keys.y;
      keys[2] = four_keys.z;
      keys[3] = four_keys.w;
    } else {
      keys[0] = cache[column];
    }
  };

  uint32_t lowest = 0xffffffffu, highest = 0;
  int nans = 0;
  for (int64_t column = first; column < columns; column += step) {
    uint32_t keys[kUnit];
    nans += source.keys(row, column, keys);
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= unit) break;
      lowest = min(lowest, keys[j]);
      highest = max(highest, keys[j]);
      if (cached && unit == 1) cache[column] = keys[j];
    }
    if (cached && unit == kUnit) {
      *reinterpret_cast<uint4*>(cache + column) = make_uint4(keys[0], keys[1], keys[2], keys[3]);
    }
  }
  count_invalid(invalid, nans);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    lowest = min(lowest, __shfl_xor_sync(kAllLanes, lowest, distance));
    highest = max(highest, __shfl_xor_sync(kAllLanes, highest, distance));
  }
  if (lane == 0) {
    extremes[0][warp] = lowest;
    extremes[1][warp] = highest;
  }
  __syncthreads();
  for (int i = 0; i < warps; ++i) {
    lowest = min(lowest, extremes[0][i]);
    highest = max(highest, extremes[1][i]);
  }

  // The threshold is lowest + found; `rest` of the keys equal to it are removed.
  uint32_t found = 0;
  int64_t rest = removed, equal = columns;
  int known = 32 - __clz(static_cast<int>(highest - lowest));  // bits from here up are in `found`
  if (removed == columns) {
    found = highest - lowest;
    equal = 0;
    known = 0;
  }
  while (known > 0 && rest > 0) {
    const int shift = max(known - kRowDigit, 0);
    const uint32_t mask = (1u << (known - shift)) - 1;
    for (int i = threadIdx.x; i < kRowBins; i += blockDim.x) bins[i] = 0;
    __syncthreads();
    for (int64_t column = first; column < columns; column += step) {
      uint32_t keys[kUnit];
      load(column, keys);
#pragma unroll
      for (int j = 0; j < kUnit; ++j) {
        if (j >= unit) break;
        const uint32_t key = keys[j] - lowest;
        if (static_cast<uint64_t>(key ^ found) >> known == 0) atomicAdd(&bins[(key >> shift) & mask], 1u);
      }
    }
    __syncthreads();
    pick_bin(bins, kRowBins, rest, sums, &pick);
    found |= pick.bin << shift;
    rest = pick.rank;
    equal = pick.entries;
    known = shift;
  }

  const uint32_t threshold = lowest + found;
  int64_t cut = 0;
  if (rest > 0) {
    cut = columns;
    if (rest < equal) {
      cut = find_cut(0, columns, threshold, rest, search,
                     [&](int64_t i) { return cached ? cache[i] : source.key(row, i); });
    }
  }
  for (int64_t column = first; column < columns; column += step) {
    uint32_t keys[kUnit];
    load(column, keys);
    write_kept(out + row * columns + column, unit, keys, column, threshold, cut);
  }
}

// --- groups ----------------------------------------------------------------------------------------------------

// A thread a group: every key is ranked by comparing it with each other one.
template <class Type, int m>
__global__ void mask_small_groups(Source<Type> source, int64_t groups, int removed, uint8_t* out, int64_t* invalid) {
  const int64_t group = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (group >= groups) return;
  int64_t row, column;
  split(group, source.columns / m, row, column);
  column *= m;
  uint32_t keys[m];
  int nans = 0;
  if (source.unit == kUnit) {
#pragma unroll
    for (int j = 0; j < m; j += kUnit) nans += source.keys(row, column + j, keys + j);
  } else {
#pragma unroll
    for (int j = 0; j < m; ++j) nans += source.keys(row, column + j, keys + j);
  }
  count_invalid(invalid, nans);

  uint8_t kept[m];
#pragma unroll
  for (int j = 0; j < m; ++j) {
    int smaller = 0;
#pragma unroll
    for (int other = 0; other < m; ++other) {
      if (other != j) smaller += other < j ? keys[other] <= keys[j] : keys[other] < keys[j];
    }
    kept[j] = smaller >= removed;
  }
  uint8_t* to = out + group * m;
  if (source.unit == kUnit) {
#pragma unroll
    for (int j = 0; j < m; j += kUnit) store_bytes(to + j, kUnit, kept + j);
  } else {
#pragma unroll
    for (int j = 0; j < m; ++j) to[j] = kept[j];
  }
}

constexpr int kGroupSlots = 32;
constexpr int64_t kMaxGroup = int64_t{kGroupSlots} * kWarp;

// A warp a group of m ≤ kMaxGroup: the threshold is built bit by bit, counting the keys below it with ballots.
template <class Type>
__global__ void __launch_bounds__(256)
    mask_large_groups(Source<Type> source, int64_t groups, int m, int removed, uint8_t* out, int64_t* invalid) {
  const int lane = threadIdx.x % kWarp;
  const int64_t group = static_cast<int64_t>(blockIdx.x) * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (group >= groups) return;
  int64_t row, column;
  split(group, source.columns / m, row, column);
  column *= m;
  uint32_t keys[kGroupSlots];
  uint32_t lowest = 0xffffffffu, highest = 0;
  int nans = 0;
#pragma unroll
  for (int slot = 0; slot < kGroupSlots; ++slot) {
    if (slot * kWarp >= m) break;
    const int i = slot * kWarp + lane;
    keys[slot] = 0xffffffffu;  // is never below the threshold
    if (i >= m) continue;
    nans += source.keys(row, column + i, keys + slot);
    lowest = min(lowest, keys[slot]);
    highest = max(highest, keys[slot]);
  }
  count_invalid(invalid, nans);
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    lowest = min(lowest, __shfl_xor_sync(kAllLanes, lowest, distance));
    highest = max(highest, __shfl_xor_sync(kAllLanes, highest, distance));
  }

  // The largest threshold that no more than `removed` keys are below.
  uint32_t threshold = lowest;
  int below = 0, bits = 32 - __clz(static_cast<int>(lowest ^ highest));
  if (bits > 0) threshold = bits == 32 ? 0 : lowest >> bits << bits;
  for (int bit = bits - 1; bit >= 0 && below < removed; --bit) {
    const uint32_t raised = threshold | (1u << bit);
    int count = 0;
#pragma unroll
    for (int slot = 0; slot < kGroupSlots; ++slot) {
      if (slot * kWarp >= m) break;
      count += __popc(__ballot_sync(kAllLanes, keys[slot] < raised));
    }
    if (count <= removed) {
      threshold = raised;
      below = count;
    }
  }

  int ties = removed - below;
  uint8_t* to = out + group * m;
#pragma unroll
  for (int slot = 0; slot < kGroupSlots; ++slot) {
    if (slot * kWarp >= m) break;
    const int i = slot * kWarp + lane;
    const bool tie = i < m && keys[slot] == threshold;
    const uint32_t tied = __ballot_sync(kAllLanes, tie);
    const int earlier = __popc(tied & ((1u << lane) - 1));
    if (i < m) to[i] = tie ? earlier >= ties : keys[slot] > threshold;
    ties = max(ties - __popc(tied), 0);
  }
}

// --- a whole tensor --------------------------------------------------------------------------------------------

// Radix selection with digits of 12 bits, but the last, of at most 8: that one is counted for every chunk of the
// tensor by itself, so that each chunk knows how many ties precede it.
constexpr int kDigit = 12;
constexpr int kLastDigit = 8;
constexpr int kBins = 1 << kDigit;
constexpr int kLastBins = 1 << kLastDigit;
constexpr int kDigits = 3;
constexpr int64_t kMaxChunks = 4096;
constexpr int64_t kLeastChunk = 4096;

struct Selection {
  uint64_t bins[kDigits][kBins];
  Pick pick;       // of the latest digit
  uint32_t found;  // the digits picked so far, in place
};

struct Chunks {
  int64_t units, chunk_units;  // of the tensor; of a chunk
};

struct Scratch {
  Selection* selection;
  uint32_t* counts;  // [chunks, kLastBins]: keys of the last digit's bins
  uint32_t* ties;    // [chunks]: removed ones among the chunk's keys that are equal to the threshold
};

int64_t chunks_of(int64_t entries) { return std::clamp<int64_t>(entries / kLeastChunk, 1, kMaxChunks); }

// Counts a digit, (key >> shift) & (bins − 1), of the keys whose higher bits are those found. In shared memory a bin is
// kept twice, side by side, for even and odd lanes: few values share the highest digit of a matrix of weights.
template <class Type>
__global__ void count_digit(Source<Type> source, int64_t units, int known, int shift, bool first, uint64_t* bins,
                            const Selection* selection, int64_t* invalid) {
  __shared__ uint32_t counts[2 * kBins];
  for (int i = threadIdx.x; i < 2 * kBins; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  const uint32_t found = first ? 0 : selection->found, mask = (1u << (known - shift)) - 1;
  const int64_t units_of_row = source.columns / source.unit;
  int nans = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < units;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    uint32_t keys[kUnit];
    nans += source.keys(row, column * source.unit, keys);
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= source.unit) break;
      if (static_cast<uint64_t>(keys[j] ^ found) >> known != 0) continue;
      atomicAdd(&counts[2 * ((keys[j] >> shift) & mask) + (threadIdx.x & 1)], 1u);
    }
  }
  if (first) count_invalid(invalid, nans);
  __syncthreads();
  for (int i = threadIdx.x; i < kBins; i += blockDim.x) {
    const uint64_t count = uint64_t{counts[2 * i]} + counts[2 * i + 1];
    if (count > 0) atomicAdd(reinterpret_cast<unsigned long long*>(bins + i), static_cast<unsigned long long>(count));
  }
}

// The same for the last digit, the lowest `known` bits, chunk by chunk.
template <class Type>
__global__ void count_last_digit(Source<Type> source, Chunks chunks, int known, uint64_t* bins,
                                 const Selection* selection, uint32_t* counts_of_chunks) {
  __shared__ uint32_t counts[kLastBins];
  for (int i = threadIdx.x; i < kLastBins; i += blockDim.x) counts[i] = 0;
  __syncthreads();
  const uint32_t found = selection->found, mask = (1u << known) - 1;
  const int64_t units_of_row = source.columns / source.unit;
  const int64_t begin = blockIdx.x * chunks.chunk_units, end = min(begin + chunks.chunk_units, chunks.units);
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    uint32_t keys[kUnit];
    source.keys(row, column * source.unit, keys);
#pragma unroll
    for (int j = 0; j < kUnit; ++j) {
      if (j >= source.unit) break;
      if ((keys[j] ^ found) >> known == 0) atomicAdd(&counts[keys[j] & mask], 1u);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kLastBins; i += blockDim.x) {
    counts_of_chunks[blockIdx.x * int64_t{kLastBins} + i] = counts[i];
    if (counts[i] > 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(bins + i), static_cast<unsigned long long>(counts[i]));
    }
  }
}

// One block. `rank` is the wanted one for the first digit; afterwards it follows from the pick before.
__global__ void pick_digit(Selection* selection, int digit, int64_t rank, int shift) {
  __shared__ int64_t sums[kWarp];
  __shared__ Pick pick;
  pick_bin(selection->bins[digit], kBins, digit == 0 ? rank : selection->pick.rank, sums, &pick);
  if (threadIdx.x == 0) {
    selection->pick = pick;
    selection->found = (digit == 0 ? 0 : selection->found) | (pick.bin << shift);
  }
}

// One block: gives the ties to the chunks, in order.
__global__ void share_ties(const Selection* selection, int64_t chunks, const uint32_t* counts, uint32_t* ties) {
  __shared__ int64_t sums[kWarp];
  const uint32_t bin = selection->pick.bin;
  const int64_t removed = selection->pick.rank;
  const int64_t share = (chunks + blockDim.x - 1) / blockDim.x;
  const int64_t begin = min(threadIdx.x * share, chunks), end = min(begin + share, chunks);
  int64_t own = 0;
  for (int64_t i = begin; i < end; ++i) own += counts[i * kLastBins + bin];
  int64_t before = inclusive_sum(own, sums) - own;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t entries = counts[i * kLastBins + bin];
    ties[i] = static_cast<uint32_t>(min(max(removed - before, int64_t{0}), entries));
    before += entries;
  }
}

template <class Type>
__global__ void mask_chunk(Source<Type> source, Chunks chunks, const Selection* selection, const uint32_t* counts,
                           const uint32_t* ties_of_chunks, uint8_t* out) {
  __shared__ TieSearch search;
  const int unit = source.unit;
  const int64_t units_of_row = source.columns / unit;
  const int64_t begin = blockIdx.x * chunks.chunk_units, end = min(begin + chunks.chunk_units, chunks.units);
  const uint32_t threshold = selection->found;
  const uint32_t ties = ties_of_chunks[blockIdx.x];
  int64_t cut = 0;
  if (ties > 0) {
    cut = end * unit;
    if (ties < counts[blockIdx.x * int64_t{kLastBins} + selection->pick.bin]) {
      cut = find_cut(begin * unit, end * unit, threshold, ties, search, [&](int64_t i) {
        int64_t row, column;
        split(i, source.columns, row, column);
        return source.key(row, column);
      });
    }
  }
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
    int64_t row, column;
    split(i, units_of_row, row, column);
    uint32_t keys[kUnit];
    source.keys(row, column * unit, keys);
    write_kept(out + i * unit, unit, keys, i * unit, threshold, cut);
  }
}

template <class Type>
__global__ void count_nan(Source<Type> source, int64_t units, int64_t* invalid) {
  int nans = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < units;
       i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    int64_t row, column;
    split(i, source.columns / source.unit, row, column);
    uint32_t keys[kUnit];
    nans += source.keys(row, column * source.unit, keys);
  }
  count_invalid(invalid, nans);
}

}  // namespace

Error mask_rows(const Scores& scores, int64_t removed, bool* out, int64_t* invalid, void* stream) {
  const int64_t columns = scores.matrix.columns;
  if (columns <= kMaxGroup) return mask_groups(scores, columns - removed, columns, out, invalid, stream);
  int device = 0, most_shared = 48 << 10;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  // The histogram and what else is shared take less than 12 KiB.
  const bool cached = columns * 4 <= most_shared - (12 << 10);
  const size_t shared = cached ? static_cast<size_t>(columns) * 4 : 0;
  const int threads = columns <= 4096 ? 256 : columns <= 16384 ? 512 : 1024;
  for_element(scores.matrix.element, [&](auto type) {
    using Type = decltype(type);
    if (shared > 0) {
      cudaFuncSetAttribute(mask_row<Type>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    }
    mask_row<Type><<<static_cast<unsigned>(scores.matrix.rows), threads, shared, static_cast<cudaStream_t>(stream)>>>(
        source_of<Type>(scores, out, 1), removed, cached, reinterpret_cast<uint8_t*>(out), invalid);
  });
  return last_error();
}

int64_t mask_tensor_scratch(int64_t entries) {
  return static_cast<int64_t>(sizeof(Selection)) + chunks_of(entries) * (kLastBins + 1) * 4;
}

Error mask_tensor(const Scores& tensor, int64_t removed, bool* out, void* scratch, int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const Scores scores = flattened(tensor);
  const int64_t entries = scores.matrix.rows * scores.matrix.columns;
  const int most_blocks = 2 * multiprocessors();
  auto* kept = reinterpret_cast<uint8_t*>(out);

  if (removed == 0 || removed == entries) {
    cudaMemsetAsync(out, removed == 0, static_cast<size_t>(entries), queue);
    for_element(scores.matrix.element, [&](auto type) {
      using Type = decltype(type);
      const auto source = source_of<Type>(scores, out, 1);
      const int64_t units = entries / source.unit;
      const int64_t grid = std::min<int64_t>(4 * most_blocks, ceil_div(units, kThreads));
      count_nan<Type><<<static_cast<unsigned>(grid), kThreads, 0, queue>>>(source, units, invalid);
    });
    return last_error();
  }

  auto* selection = static_cast<Selection*>(scratch);
  auto* counts = reinterpret_cast<uint32_t*>(selection + 1);
  uint32_t* ties = counts + chunks_of(entries) * kLastBins;
  cudaMemsetAsync(selection, 0, sizeof(Selection), queue);
  for_element(scores.matrix.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = source_of<Type>(scores, out, 1);
    const int64_t units = entries / source.unit;
    int known = key_bits(scores), digit = 0;
    for (; known > kLastDigit; ++digit, known -= kDigit) {
      constexpr int kMany = 1024;
      const int64_t grid = std::min<int64_t>(most_blocks, ceil_div(units, kMany));
      count_digit<Type><<<static_cast<unsigned>(grid), kMany, 0, queue>>>(
          source, units, known, known - kDigit, digit == 0, selection->bins[digit], selection, invalid);
      pick_digit<<<1, kMany, 0, queue>>>(selection, digit, removed, known - kDigit);
    }
    const Chunks chunks{units, ceil_div(units, chunks_of(entries))};
    const int64_t used = ceil_div(units, chunks.chunk_units);
    count_last_digit<Type><<<static_cast<unsigned>(used), kThreads, 0, queue>>>(
        source, chunks, known, selection->bins[digit], selection, counts);
    pick_digit<<<1, 1024, 0, queue>>>(selection, digit, removed, 0);
    share_ties<<<1, 1024, 0, queue>>>(selection, used, counts, ties);
    mask_chunk<Type>
        <<<static_cast<unsigned>(used), kThreads, 0, queue>>>(source, chunks, selection, counts, ties, kept);
  });
  return last_error();
}

Error mask_groups(const Scores& scores, int64_t n, int64_t m, bool* out, int64_t* invalid, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const int64_t groups = scores.matrix.rows * (scores.matrix.columns / m);
  const int removed = static_cast<int>(m - n);
  auto* kept = reinterpret_cast<uint8_t*>(out);
  for_element(scores.matrix.element, [&](auto type) {
    using Type = decltype(type);
    const auto source = source_of<Type>(scores, out, 1);
    switch (m) {
      case 4:
        mask_small_groups<Type, 4><<<blocks(groups), kThreads, 0, queue>>>(source, groups, removed, kept, invalid);
        break;
      case 8:
        mask_small_groups<Type, 8><<<blocks(groups), kThreads, 0, queue>>>(source, groups, removed, kept, invalid);
        break;
      case 16:
        mask_small_groups<Type, 16><<<blocks(groups), kThreads, 0, queue>>>(source, groups, removed, kept, invalid);
        break;
      default: {
        auto by_one = source;
        by_one.unit = 1;
        mask_large_groups<Type><<<blocks(groups * kWarp), kThreads, 0, queue>>>(by_one, groups, static_cast<int>(m),
                                                                                removed, kept, invalid);
      }
    }
  });
  return last_error();
}

}  // namespace hemostat::kernels::cuda
