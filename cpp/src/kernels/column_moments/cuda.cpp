// Registration of the CUDA kernels of `column_moments`. See kernels/cuda.h.
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "kernels/column_moments/arguments.h"
#include "kernels/column_moments/column_moments.h"
#include "kernels/cuda.h"

namespace hemostat::kernels::cuda {
namespace {

MomentTensors column_moments_cuda(const at::Tensor& x) {
  check_column_moments(x);
  const Call call("column_moments", x);
  const at::Tensor dense = with_dense_rows(x);
  const MomentTensors parts = empty_moments(dense);
  const auto& [squares, magnitudes, largest] = parts;
  if (x.numel() > 0) {
    call.check(column_moments(
        matrix_of(dense),
        {squares.mutable_data_ptr<double>(), magnitudes.mutable_data_ptr<double>(), largest.mutable_data_ptr<float>()},
        call.stream()));
  }
  return merged(parts);
}

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) { m.impl("column_moments", hemostat::kernels::cuda::column_moments_cuda); }
