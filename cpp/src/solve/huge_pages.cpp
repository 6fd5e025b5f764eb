#include "huge_pages.h"

#include <cstdint>

#include <ATen/ops/empty.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace hemostat::solve {

at::Tensor empty_in_huge_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor tensor = at::empty(sizes, options);
#ifdef __linux__
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  if (tensor.is_cpu() && tensor.nbytes() >= 2 * kHuge) {
    const auto begin = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
    const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge, last = (begin + tensor.nbytes()) / kHuge * kHuge;
    if (last > first) {
      madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
    }
  }
#endif
  return tensor;
}

}  // namespace hemostat::solve
