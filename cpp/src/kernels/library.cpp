#include "kernels/library.h"

#include <cstring>
#include <string>

#include <ATen/core/stack.h>
#include <c10/util/Exception.h>

namespace hemostat::kernels {
#ifndef HEMOSTAT_WITH_CUDA
namespace {

void no_cuda_kernel(const c10::OperatorHandle& op, torch::jit::Stack* /*stack*/) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.schema().name(),
                              " has no CUDA kernel in this build; rebuild with -DHEMOSTAT_CUDA=ON");
}

}  // namespace
#endif

void define(torch::Library& library, const char* schema) {
  library.def(schema, {at::Tag::pt2_compliant_tag});
  const std::string name(schema, std::strcspn(schema, "("));
  library.impl(name.c_str(), torch::dispatch(c10::DispatchKey::Autograd, torch::CppFunction::makeFallthrough()));
#ifndef HEMOSTAT_WITH_CUDA
  library.impl(name.c_str(),
               torch::dispatch(c10::DispatchKey::CUDA, torch::CppFunction::makeFromBoxedFunction<&no_cuda_kernel>()));
#endif
}

}  // namespace hemostat::kernels

TORCH_LIBRARY(hemostat, m) { (void)m; }
