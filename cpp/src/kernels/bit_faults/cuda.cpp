// Registration of the CUDA kernel of `bit_faults_`. See kernels/cuda.h.
#include <cstdint>

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "kernels/bit_faults/arguments.h"
#include "kernels/bit_faults/bit_faults.h"
#include "kernels/cuda.h"

namespace hemostat::kernels::cuda {
namespace {

void bit_faults_cuda(at::Tensor& values, double rate, int64_t seed, int64_t first_bit, int64_t bits, int64_t fault) {
  check_bit_faults(values, rate, first_bit, bits, fault);
  if (values.numel() == 0 || rate == 0.0) return;
  const Call call("bit_faults_", values);
  call.check(bit_faults(values.mutable_data_ptr(), static_cast<int64_t>(values.nbytes()),
                        fault_kind(values, first_bit, bits, fault), fault_rate(rate, seed), call.stream()));
}

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) { m.impl("bit_faults_", hemostat::kernels::cuda::bit_faults_cuda); }
