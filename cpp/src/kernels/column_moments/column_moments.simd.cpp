// CPU loops of `column_moments`. See column_moments.h.
#include "kernels/column_moments/column_moments.h"

#include "kernels/elements.simd.h"

namespace hemostat::kernels {
namespace {

struct Sums {
  float squares[kMomentColumns], magnitudes[kMomentColumns];
  int32_t largest[kMomentColumns];  // bits of |x|, which order as |x| does, NaN above all
};

// Several rows at a time: the sums are loaded and stored once for all of them.
template <class Type, int kRows>
void add_rows(const typename Type::Storage* first, int64_t stride, int64_t columns, Sums& sums) {
  const typename Type::Storage* rows[kRows];
  for (int r = 0; r < kRows; ++r) rows[r] = first + r * stride;
#pragma omp simd
  for (int64_t j = 0; j < columns; ++j) {
    float squares = sums.squares[j], magnitudes = sums.magnitudes[j];
    int32_t largest = sums.largest[j];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float value = Type::load(rows[r][j]);
      const int32_t bits = bit_cast<int32_t>(value) & 0x7fffffff;
      squares += value * value;
      magnitudes += bit_cast<float>(bits);
      largest = bits > largest ? bits : largest;
    }
    sums.squares[j] = squares;
    sums.magnitudes[j] = magnitudes;
    sums.largest[j] = largest;
  }
}

template <class Type>
void moments_of(const Matrix& x, int64_t row, int64_t rows, int64_t column, int64_t columns, PartMoments out) {
  constexpr int kTogether = 8;
  Sums sums;
  for (int64_t j = 0; j < columns; ++j) {
    out.squares[column + j] = out.magnitudes[column + j] = 0;
    sums.largest[j] = 0;
  }
  for (int64_t begin = 0; begin < rows; begin += kMomentFlush) {
    const int64_t count = rows - begin < kMomentFlush ? rows - begin : kMomentFlush;
    for (int64_t j = 0; j < columns; ++j) sums.squares[j] = sums.magnitudes[j] = 0;
    int64_t i = 0;
    for (; i + kTogether <= count; i += kTogether) {
      add_rows<Type, kTogether>(row_of<Type>(x, row + begin + i) + column, x.row_stride, columns, sums);
    }
    for (; i < count; ++i) {
      add_rows<Type, 1>(row_of<Type>(x, row + begin + i) + column, x.row_stride, columns, sums);
    }
    for (int64_t j = 0; j < columns; ++j) {
      out.squares[column + j] += static_cast<double>(sums.squares[j]);
      out.magnitudes[column + j] += static_cast<double>(sums.magnitudes[j]);
    }
  }
  for (int64_t j = 0; j < columns; ++j) out.largest[column + j] = bit_cast<float>(sums.largest[j]);
}

void moments(const Matrix& x, int64_t row, int64_t rows, int64_t column, int64_t columns, PartMoments out) {
  switch (x.element) {
    case Element::float32:
      return moments_of<Float32>(x, row, rows, column, columns, out);
    case Element::bfloat16:
      return moments_of<Bfloat16>(x, row, rows, column, columns, out);
    case Element::float16:
      return moments_of<Float16>(x, row, rows, column, columns, out);
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const ColumnMomentLoops column_moment_loops = {moments};
}

}  // namespace hemostat::kernels
