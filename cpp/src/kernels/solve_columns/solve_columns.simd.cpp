// CPU loops of `solve_columns`: as many rows side by side as a register has lanes, so that every decision is a
// vector's. See solve_columns.h.
#include "kernels/solve_columns/solve_columns.h"

#include "kernels/width.simd.h"

namespace hemostat::kernels {
namespace {

constexpr int kLanes = kWidth;
static_assert(kSolveLanes % kLanes == 0);

typedef float Lanes __attribute__((vector_size(4 * kLanes)));
typedef int32_t Flags __attribute__((vector_size(4 * kLanes)));  // −1: true
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

// Columns whose errors are spread over the rest of the block in one pass.
constexpr int64_t kTogether = 4;

inline Lanes magnitude(Lanes x) {
  Flags bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  bits &= 0x7fffffff;
  __builtin_memcpy(&x, &bits, sizeof(x));
  return x;
}

// To the nearest integer, halves to even, for |x| < 2^22; what is larger is clamped afterwards like every other.
inline Lanes round_even(Lanes x) {
  constexpr float kShift = 12582912.0f;  // 1.5 · 2^23
  return (x + kShift) - kShift;
}

// What interleaves two registers: their lower halves from lane 0 on, or from the middle on their upper halves.
inline Flags interleave(int first) {
  Flags lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = first + i / 2 + i % 2 * kLanes;
  return lanes;
}

// As many registers as lanes: register i, lane j goes to register j, lane i. With both numbers in binary each pass
// rotates the bits of (register, lane) by one.
template <class Vector>
inline void transpose(Vector* tile) {
  const Flags low = interleave(0), high = interleave(kLanes / 2);
  for (int pass = 1; pass < kLanes; pass *= 2) {
    Vector next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = __builtin_shuffle(tile[i], tile[i + kLanes / 2], low);
      next[2 * i + 1] = __builtin_shuffle(tile[i], tile[i + kLanes / 2], high);
    }
    for (int i = 0; i < kLanes; ++i) tile[i] = next[i];
  }
}

inline Lanes load_lanes(const float* from) {
  Lanes values;
  __builtin_memcpy(&values, from, sizeof(values));
  return values;
}
inline void store_lanes(Lanes values, float* to) { __builtin_memcpy(to, &values, sizeof(values)); }

inline Flags load_lanes(const bool* from) {
  Bytes bytes;
  __builtin_memcpy(&bytes, from, sizeof(bytes));
  return -__builtin_convertvector(bytes, Flags);
}
inline void store_lanes(Flags values, bool* to) {
  const Bytes bytes = -__builtin_convertvector(values, Bytes);
  __builtin_memcpy(to, &bytes, sizeof(bytes));
}

inline float lane_of(float value) { return value; }
inline int32_t lane_of(bool value) { return value ? -1 : 0; }

// Row r of the block in lane r, column by column; rows past `rows` repeat the last one.
template <class Vector, class T>
inline void load_transposed(Rows<T> from, int64_t row, int64_t rows, int64_t columns, Vector* to) {
  const T* starts[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    starts[lane] = from.data + (row + (lane < rows ? lane : rows - 1)) * from.stride;
  }
  int64_t column = 0;
  for (; column + kLanes <= columns; column += kLanes) {
    Vector tile[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) tile[lane] = load_lanes(starts[lane] + column);
    transpose(tile);
    for (int i = 0; i < kLanes; ++i) to[column + i] = tile[i];
  }
  for (; column < columns; ++column) {
    for (int lane = 0; lane < kLanes; ++lane) to[column][lane] = lane_of(starts[lane][column]);
  }
}

template <class Vector, class T>
inline void store_transposed(const Vector* from, int64_t row, int64_t rows, int64_t columns, Rows<T> to) {
  int64_t column = 0;
  for (; column + kLanes <= columns; column += kLanes) {
    Vector tile[kLanes];
    for (int i = 0; i < kLanes; ++i) tile[i] = from[column + i];
    transpose(tile);
    for (int lane = 0; lane < rows; ++lane) store_lanes(tile[lane], to.data + (row + lane) * to.stride + column);
  }
  for (; column < columns; ++column) {
    for (int lane = 0; lane < rows; ++lane)
      to.data[(row + lane) * to.stride + column] = static_cast<T>(from[column][lane]);
  }
}

inline Lanes load_column(Rows<const float> from, int64_t row, int64_t rows, int64_t column) {
  Lanes values;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    values[lane] = from.data[(row + (lane < rows ? lane : rows - 1)) * from.stride + column];
  }
  return values;
}

// A tile of up to kLanes rows.
struct Solver {
  const ColumnBlock& block;
  Lanes* current;  // [columns]
  Flags* kept;     // [columns]
  Lanes* scores;   // [columns]
  int64_t row, rows;
  Lanes scale, zero;

  // Of the m columns from here on, all but n fall: those of the smallest (value / inverse's diagonal)², ties in order.
  void choose(int64_t column) {
    const int64_t m = block.m;
    const int32_t removed = static_cast<int32_t>(m - block.n);
    for (int64_t k = 0; k < m; ++k) {
      scores[k] = magnitude(current[column + k]) / inverse_row(column + k)[column + k];
    }
    for (int64_t k = 0; k < m; ++k) {
      Flags smaller{};
      for (int64_t l = 0; l < k; ++l) smaller -= scores[l] <= scores[k];
      for (int64_t l = k + 1; l < m; ++l) smaller -= scores[l] < scores[k];
      kept[column + k] = smaller >= removed;
    }
  }

  // The value that column takes, whose weights are now `w`.
  inline Lanes decide(int64_t column, Lanes w) {
    if (block.m > 0 && column % block.m == 0) choose(column);
    Lanes q = w;
    if (block.mask.data != nullptr) q = kept[column] ? q : Lanes{};
    if (block.levels > 0) {
      if (column == 0 || (block.first + column) % block.group_size == 0) {
        const int64_t group = (block.first + column) / block.group_size;
        scale = load_column(block.scale, row, rows, group);
        zero = load_column(block.zero, row, rows, group);
      }
      const float last = static_cast<float>(block.levels - 1);
      Lanes code = round_even(q / scale) + zero;
      code = code < 0.0f ? Lanes{} : code;
      code = code > last ? Lanes{} + last : code;
      q = (code - zero) * scale;
    }
    return q;
  }

  const float* inverse_row(int64_t column) const { return block.inverse.data + column * block.inverse.stride; }

  // current[k] loses error · inverse[column][k] for the columns k in [begin, end).
  inline void spread(int64_t column, Lanes error, int64_t begin, int64_t end) {
    const float* inverse = inverse_row(column);
    for (int64_t k = begin; k < end; ++k) current[k] -= error * inverse[k];
  }

  void solve() {
    const int64_t columns = block.columns, m = block.m;
    // A pattern must see every column before it spread over its own.
    const bool fits = m == 0 || m % kTogether == 0 || kTogether % m == 0;
    for (int64_t begin = 0; begin < columns; begin += kTogether) {
      const int64_t end = begin + kTogether < columns ? begin + kTogether : columns;
      const bool whole = fits && end - begin == kTogether;
      Lanes errors[kTogether];
      for (int64_t column = begin; column < end; ++column) {
        const Lanes w = current[column], q = decide(column, w);
        const Lanes error = (w - q) / inverse_row(column)[column];
        errors[column - begin] = error;
        spread(column, error, column + 1, whole ? end : columns);
        current[column] = q;
      }
      if (!whole) continue;
      const float *a = inverse_row(begin), *b = inverse_row(begin + 1), *c = inverse_row(begin + 2),
                  *d = inverse_row(begin + 3);
      for (int64_t k = end; k < columns; ++k) {
        current[k] = (((current[k] - errors[0] * a[k]) - errors[1] * b[k]) - errors[2] * c[k]) - errors[3] * d[k];
      }
    }
  }
};

void solve_rows(const ColumnBlock& block, int64_t begin, int64_t end, float* buffer) {
  const int64_t columns = block.columns;
  Lanes *current = reinterpret_cast<Lanes*>(buffer), *scores = current + columns;
  Flags* kept = reinterpret_cast<Flags*>(scores + columns);
  for (int64_t row = begin; row < end; row += kLanes) {
    const int64_t rows = end - row < kLanes ? end - row : kLanes;
    load_transposed(block.current, row, rows, columns, current);
    if (block.mask.data != nullptr && block.m == 0) load_transposed(block.mask, row, rows, columns, kept);
    Solver{block, current, kept, scores, row, rows, {}, {}}.solve();
    store_transposed(current, row, rows, columns, block.solution);
    if (block.m > 0) store_transposed(kept, row, rows, columns, block.mask);
    for (int64_t r = row; r < row + rows; ++r) {
      const float *weight = block.weight.data + r * block.weight.stride,
                  *solution = block.solution.data + r * block.solution.stride;
      float* error = block.error.data + r * block.error.stride;
      for (int64_t column = 0; column < columns; ++column) error[column] = weight[column] - solution[column];
    }
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const SolveLoops solve_loops = {solve_rows};
}

}  // namespace hemostat::kernels
