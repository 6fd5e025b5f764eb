// For loops of passes over many tokens: gives back the holes that they leave in the heap.
#pragma once

#include <atomic>
#include <cstddef>

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

// The same after each of many works that leave holes between what is kept of each: only where the heap has grown for
// them, since pages that were given back cost time when they are touched again.
inline void trim_grown_heap() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
  constexpr size_t kWorth = size_t{16} << 20;
  static std::atomic<size_t> trimmed_at = 0;
  const size_t size = ::mallinfo2().arena;
  if (size > trimmed_at + kWorth) {
    ::malloc_trim(0);
    trimmed_at = size;
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
