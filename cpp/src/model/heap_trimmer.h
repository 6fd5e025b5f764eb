// For loops of passes over many tokens: gives back the holes that they leave in the heap.
#pragma once

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <hemostat/model.h>

namespace hemostat {

// glibc's heap does not fill the holes that aligned tensors leave behind, and would grow to several times what a pass
// holds.
inline void trim_heap(const at::Tensor& x) {
#ifdef __GLIBC__
  if (x.is_cpu() && x.nbytes() > size_t{1} << 20) {
    ::malloc_trim(0);
  }
#endif
}

// The same after each of many works that leave holes between what is kept of each: only where the holes are worth the
// time that it takes to touch pages anew.
inline void trim_large_holes() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  constexpr size_t kWorth = size_t{32} << 20;
  if (::mallinfo2().fordblks > kWorth) {
    ::malloc_trim(0);
  }
#endif
}

class HeapTrimmer : public Observer {
 public:
  void hidden_state(size_t index, const at::Tensor& x) override {
    if (index % 8 == 1) {  // not after each: pages that were given back cost time when they are touched again
      trim_heap(x);
    }
  }
};

}  // namespace hemostat
