// In a build without CUDA kernels: what a CUDA tensor gets instead of the dispatcher's own complaint.
#include <ATen/core/stack.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

namespace hemostat::kernels {
namespace {

void no_cuda_kernel(const c10::OperatorHandle& op, torch::jit::Stack* /*stack*/) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().name(),
                              " has no CUDA kernel in this build; rebuild with -DHEMOSTAT_CUDA=ON");
}

}  // namespace
}  // namespace hemostat::kernels

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  for (const char* op : {"mask_smallest", "mask_pattern", "kept_until", "fake_quantize", "quantize", "solve_columns",
                         "gguf_quantize", "gguf_fake_quantize", "gguf_dequantize", "column_moments", "bit_faults_",
                         "search_clip", "block_float", "block_float_encode", "divergence"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&hemostat::kernels::no_cuda_kernel>());
  }
}
