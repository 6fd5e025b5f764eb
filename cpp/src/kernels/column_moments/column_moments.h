// Contract between the loops of `column_moments` (column_moments.simd.cpp, column_moments.cu) and their registration.
//
// Rows come in parts, whose sums are merged in order: the same for any number of threads. Within a part, sums of
// kMomentFlush rows are in float32, in the order of the rows, and go to float64.
#pragma once

#include <cstdint>

#include "kernels/isa.h"
#include "kernels/launchers.h"
#include "kernels/matrix.h"

namespace hemostat::kernels {

inline constexpr int64_t kMomentRows = 128;     // of a part
inline constexpr int64_t kMomentFlush = 32;     // divides it
inline constexpr int64_t kMomentColumns = 512;  // of a task

// Of one part, each [columns].
struct PartMoments {
  double *squares, *magnitudes;
  float* largest;
};

struct ColumnMomentLoops {
  // Rows [row, row + rows) of at most kMomentRows, columns [column, column + columns) of at most kMomentColumns; x has
  // a column stride of 1.
  void (*moments)(const Matrix& x, int64_t row, int64_t rows, int64_t column, int64_t columns, PartMoments out);
};

HEMOSTAT_FOR_EACH_ISA(extern const ColumnMomentLoops column_moment_loops;)

namespace cuda {

// The parts, one after another in `out`.
Error column_moments(const Matrix& x, const PartMoments& out, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
