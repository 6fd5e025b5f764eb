#include "huge_pages.h"

#include <ATen/ops/empty.h>

#include "kernels/huge_pages.h"

namespace hemostat::solve {

at::Tensor empty_in_huge_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
  if (tensor.is_cpu()) {
    kernels::advise_huge_pages(tensor.mutable_data_ptr(), tensor.nbytes());
  }
  return tensor;
}

}  // namespace hemostat::solve
