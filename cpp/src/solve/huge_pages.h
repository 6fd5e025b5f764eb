// Memory that is written for the first time by what computes: page by page that would cost more than the writing.
#pragma once

#include <ATen/core/Tensor.h>

namespace hemostat::solve {

// Uninitialised; from a few MiB on in huge pages where the system has them.
at::Tensor empty_in_huge_pages(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace hemostat::solve
