// Sums and maxima of columns: schema, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/column_moments/column_moments.h"

#include <algorithm>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/column_moments/arguments.h"
#include "kernels/library.h"

namespace hemostat::kernels {

void check_column_moments(const at::Tensor& x) { check_matrix("column_moments", "x", x); }

MomentTensors empty_moments(const at::Tensor& x) {
  const int64_t parts = (x.size(0) + kMomentRows - 1) / kMomentRows, columns = x.size(1);
  const auto of = [&](at::ScalarType dtype) { return at::empty({parts, columns}, x.options().dtype(dtype)); };
  return {of(at::kDouble), of(at::kDouble), of(at::kFloat)};
}

MomentTensors merged(const MomentTensors& parts) {
  const auto& [squares, magnitudes, largest] = parts;
  const bool any = squares.size(0) > 0;
  return {squares.sum(0), magnitudes.sum(0), any ? largest.amax(0) : at::zeros({largest.size(1)}, largest.options())};
}

namespace {

const ColumnMomentLoops& loops() {
  static const ColumnMomentLoops& chosen = HEMOSTAT_PICK(column_moment_loops);
  return chosen;
}

MomentTensors column_moments_cpu(const at::Tensor& given) {
  check_column_moments(given);
  const at::Tensor x = given.stride(1) == 1 || given.size(1) == 1 ? given : given.contiguous();
  const MomentTensors parts = empty_moments(x);
  const auto& [squares, magnitudes, largest] = parts;
  if (x.numel() > 0) {
    Matrix matrix = matrix_of(x);
    matrix.column_stride = 1;
    const PartMoments all{squares.mutable_data_ptr<double>(), magnitudes.mutable_data_ptr<double>(),
                          largest.mutable_data_ptr<float>()};
    const int64_t tiles = (matrix.columns + kMomentColumns - 1) / kMomentColumns;
    at::parallel_for(0, squares.size(0) * tiles, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task / tiles, row = part * kMomentRows, column = task % tiles * kMomentColumns;
        const int64_t offset = part * matrix.columns;
        loops().moments(matrix, row, std::min(kMomentRows, matrix.rows - row), column,
                        std::min(kMomentColumns, matrix.columns - column),
                        {all.squares + offset, all.magnitudes + offset, all.largest + offset});
      }
    });
  }
  return merged(parts);
}

MomentTensors column_moments_meta(const at::Tensor& x) {
  check_column_moments(x);
  const auto of = [&](at::ScalarType dtype) { return at::empty_symint({x.sym_size(1)}, x.options().dtype(dtype)); };
  return {of(at::kDouble), of(at::kDouble), of(at::kFloat)};
}

}  // namespace

ColumnMoments column_moments(const at::Tensor& x) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::column_moments", "")
                             .typed<MomentTensors(const at::Tensor&)>();
  const auto [squares, magnitudes, largest] = op.call(x);
  return {squares, magnitudes, largest};
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(m, "column_moments(Tensor x) -> (Tensor squares, Tensor magnitudes, Tensor largest)");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("column_moments", hemostat::kernels::column_moments_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("column_moments", hemostat::kernels::column_moments_meta); }
