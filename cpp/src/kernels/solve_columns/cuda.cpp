// Registration of the CUDA kernels of `solve_columns`. See kernels/cuda.h.
#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "kernels/cuda.h"
#include "kernels/solve_columns/arguments.h"
#include "kernels/solve_columns/solve_columns.h"

namespace hemostat::kernels::cuda {
namespace {

void solve_columns_cuda(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                        const std::optional<at::Tensor>& mask, int64_t n, int64_t m,
                        const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                        int64_t group_size, int64_t first, int64_t levels, at::Tensor& solution, at::Tensor& error) {
  check_solve_columns(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error);
  if (current.numel() == 0) return;
  const Call call("solve_columns", current);
  call.check(solve_columns(
      column_block(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error),
      call.stream()));
}

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) { m.impl("solve_columns", hemostat::kernels::cuda::solve_columns_cuda); }
