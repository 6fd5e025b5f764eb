// Contract between the loops of `select` (select.simd.cpp, select.cu, kept_until.cu) and their registration.
// Scores are ranked through keys: int32 whose order is the order of the float32 scores, with −0 equal to +0.
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

struct Scores {
  Matrix matrix;
  const float* column_scale;  // [columns], contiguous, or null
  bool absolute;              // rank |score| · column_scale
};

// Removed are the keys below `key` and the first `ties` of those equal to it.
struct Threshold {
  int32_t key;
  int64_t ties;
};

// How a tile lies around a bracket [low, high].
struct Bracketed {
  int64_t below, at_low, between, at_high;
};

// Where a radix pass finds its digit: (key − base) >> shift.
struct Digit {
  int32_t base;
  int32_t shift;
};

inline constexpr int32_t kCells = 1 << 16;  // histogram cells of a whole-tensor selection
inline constexpr int64_t kTile = 4096;      // keys that a thread holds at a time

struct SelectLoops {
  // Rows [begin, end). `keys` has room for one row. Returns the NaN scores.
  int64_t (*mask_rows)(const Scores& scores, int64_t begin, int64_t end, int64_t removed, bool* out, int32_t* keys);
  // Keeps n of every m.
  int64_t (*mask_groups)(const Scores& scores, int64_t begin, int64_t end, int64_t n, int64_t m, bool* out,
                         int32_t* keys);
  // Keys of the entries [begin, begin + count) in row-major order, and their range. Returns the NaN scores.
  int64_t (*load_keys)(const Scores& scores, int64_t begin, int64_t count, int32_t* keys, int32_t* lowest,
                       int32_t* highest);
  // The threshold that removes `removed` < count of the keys.
  Threshold (*find_threshold)(const int32_t* keys, int64_t count, int64_t removed);
  // out = key ≥ high; the entries strictly between low and high go to `between` (room for count), in order.
  Bracketed (*split)(const int32_t* keys, int64_t count, int32_t low, int32_t high, bool* out, int32_t* between,
                     int32_t* positions);
  // counts[kCells] += the cells of the keys; a key beyond the last cell is not counted.
  void (*histogram)(const int32_t* keys, int64_t count, Digit digit, int32_t* counts);
  int64_t (*count_equal)(const int32_t* keys, int64_t count, int32_t key);
  // Writes the mask; ties are taken from threshold->ties as they are met.
  void (*write_mask)(const int32_t* keys, int64_t count, Threshold* threshold, bool* out);

  // kept_until of rows [begin, end): out float, or double where `wide`. `scratch` has room for scratch_of(columns).
  int64_t (*kept_rows)(const Scores& scores, int64_t begin, int64_t end, bool wide, void* out, int32_t* scratch);
  // The same for a whole tensor, by buckets of neighbouring cells. slots[bucket_of[cell]]++ says where a key goes.
  void (*scatter)(const int32_t* keys, int64_t count, Digit digit, const uint16_t* bucket_of, int32_t* slots,
                  int32_t* to);
  // Replaces the keys by first + their stable rank. `scratch` has room for scratch_of(count).
  void (*rank)(int32_t* keys, int64_t count, int32_t first, int32_t* scratch);
  // out[i] = (ranks[slot of key i] + 1) / entries.
  void (*gather)(const int32_t* keys, int64_t count, Digit digit, const uint16_t* bucket_of, int32_t* slots,
                 const int32_t* ranks, double entries, bool wide, void* out);
};

// Bins of three digits of 11 bits, or of one digit of up to 16 where there are keys enough.
constexpr int64_t bins_of(int64_t count) {
  const int64_t most = 2 * count < (1 << 16) ? 2 * count : 1 << 16;
  return most > 3 * 2048 ? most : 3 * 2048;
}
// The keys, two arrays of (key, index), and the bins.
constexpr int64_t scratch_of(int64_t count) { return 5 * count + bins_of(count); }

HEMOSTAT_FOR_EACH_ISA(extern const SelectLoops select_loops;)

namespace cuda {

// At most 2^31 − 1 columns.
Error mask_rows(const Scores& scores, int64_t removed, bool* out, int64_t* invalid, void* stream);

// The whole tensor; `scratch` has mask_tensor_scratch(entries) bytes, aligned to 16.
int64_t mask_tensor_scratch(int64_t entries);
Error mask_tensor(const Scores& scores, int64_t removed, bool* out, void* scratch, int64_t* invalid, void* stream);

// Keeps n of every m ≤ 1024.
Error mask_groups(const Scores& scores, int64_t n, int64_t m, bool* out, int64_t* invalid, void* stream);

// At most 2^31 − 1 entries in a scope. `scratch` has kept_until_scratch() bytes, aligned to 256. out is float, or
// double where `wide`.
int64_t kept_until_scratch(int64_t rows, int64_t columns, bool per_row);
Error kept_until(const Scores& scores, bool per_row, bool wide, void* out, void* scratch, int64_t* invalid,
                 void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
