// Registration of the CUDA kernels of `divergence`. See kernels/cuda.h.
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "kernels/cuda.h"
#include "kernels/divergence/arguments.h"
#include "kernels/divergence/divergence.h"

namespace hemostat::kernels::cuda {
namespace {

DivergenceTensors divergence_cuda(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                                  const at::Tensor& targets, double damaged_scale) {
  check_divergence(baseline_logits, damaged_logits, targets, damaged_scale);
  const Call call("divergence", baseline_logits);
  DivergenceTensors result = empty_divergence(baseline_logits);
  if (baseline_logits.size(0) == 0) return result;
  const at::Tensor baseline = with_dense_rows(baseline_logits), damaged = with_dense_rows(damaged_logits);
  const at::Tensor target = targets.contiguous();
  call.check(divergence(matrix_of(baseline), matrix_of(damaged), target.const_data_ptr<int64_t>(),
                        static_cast<float>(damaged_scale), divergence_out(result), call.stream()));
  return result;
}

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) { m.impl("divergence", hemostat::kernels::cuda::divergence_cuda); }
