// CUDA kernel of `column_moments`. See hemostat/kernels.h for what it computes and column_moments.h for how.
#include <cstdint>

#include "kernels/column_moments/column_moments.h"
#include "kernels/elements.cuh"

namespace hemostat::kernels::cuda {
namespace {

// A thread a column of a part: neighbours read neighbours. Sums are rounded as on the CPU.
template <class Type>
__global__ void __launch_bounds__(128) part_moments(const typename Type::Storage* data, int64_t row_stride,
                                                    int64_t rows, int64_t columns, PartMoments out) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) return;
  const int64_t parts = (rows + kMomentRows - 1) / kMomentRows;
  for (int64_t part = blockIdx.y; part < parts; part += gridDim.y) {
    const int64_t begin = part * kMomentRows, end = min(begin + kMomentRows, rows);
    double squares = 0, magnitudes = 0;
    int32_t largest = 0;
    for (int64_t flush = begin; flush < end; flush += kMomentFlush) {
      float some_squares = 0, some_magnitudes = 0;
      for (int64_t row = flush; row < min(flush + kMomentFlush, end); ++row) {
        const float value = Type::load(data[row * row_stride + column]);
        const int32_t bits = __float_as_int(value) & 0x7fffffff;
        some_squares = __fadd_rn(some_squares, __fmul_rn(value, value));
        some_magnitudes = __fadd_rn(some_magnitudes, __int_as_float(bits));
        largest = max(largest, bits);
      }
      squares += some_squares;
      magnitudes += some_magnitudes;
    }
    out.squares[part * columns + column] = squares;
    out.magnitudes[part * columns + column] = magnitudes;
    out.largest[part * columns + column] = __int_as_float(largest);
  }
}

}  // namespace

Error column_moments(const Matrix& x, const PartMoments& out, void* stream) {
  constexpr int kThreads = 128;
  const int64_t parts = ceil_div(x.rows, kMomentRows);
  const dim3 grid(static_cast<unsigned>(ceil_div(x.columns, kThreads)),
                  static_cast<unsigned>(parts < 65535 ? parts : 65535));
  for_element(x.element, [&](auto type) {
    using Type = decltype(type);
    part_moments<Type><<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const typename Type::Storage*>(x.data), x.row_stride, x.rows, x.columns, out);
  });
  return last_error();
}

}  // namespace hemostat::kernels::cuda
