// The operator library torch.ops.hemostat. Each kernel defines its operators in a fragment of it.
#pragma once

#include <torch/library.h>

namespace hemostat::kernels {

// Defines an operator. It is not differentiable: results carry no gradient. In a build without CUDA kernels, a CUDA
// tensor gets an error that says so instead of the dispatcher's own complaint.
void define(torch::Library& library, const char* schema);

}  // namespace hemostat::kernels
