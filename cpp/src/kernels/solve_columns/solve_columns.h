// Contract between the loops of `solve_columns` (solve_columns.simd.cpp, solve_columns.cu) and their registration.
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/launchers.h"

namespace hemostat::kernels {

// A matrix whose rows have no gaps between neighbours.
template <class T>
struct Rows {
  T* data;  // null: there is none
  int64_t stride;
};

// A block of columns; see kernels::solve_columns in hemostat/kernels.h for what each means.
struct ColumnBlock {
  int64_t rows, columns;
  Rows<const float> current, weight, inverse;
  Rows<bool> mask;
  int64_t n, m;  // m 0: the mask is given
  Rows<const float> scale, zero;
  int64_t group_size, first;
  int64_t levels;  // 0: values are not rounded
  Rows<float> solution, error;
};

// Rows that the CPU loops take side by side, one to a lane.
inline constexpr int64_t kSolveLanes = 16;

struct SolveLoops {
  // Rows [begin, end); `buffer` has solve_buffer(columns) floats, aligned to 64 bytes.
  void (*solve_rows)(const ColumnBlock& block, int64_t begin, int64_t end, float* buffer);
};

// The current values, what a pattern looks at, and what is kept.
inline int64_t solve_buffer(int64_t columns) { return 3 * columns * kSolveLanes; }

HEMOSTAT_FOR_EACH_ISA(extern const SolveLoops solve_loops;)

namespace cuda {

// Leaves no count: rows that hold NaN give NaN.
Error solve_columns(const ColumnBlock& block, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
