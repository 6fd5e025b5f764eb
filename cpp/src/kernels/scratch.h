// Uninitialised memory for the length of a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace hemostat::kernels {

// `count` uninitialised values of T. From 4 MiB up it asks for huge pages: a first touch of small ones would cost
// more than several passes over them.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) {
    constexpr size_t kHugePage = size_t{2} << 20;
    size_t bytes = static_cast<size_t>(count > 0 ? count : 1) * sizeof(T);
    const bool huge = bytes >= 2 * kHugePage;
    const size_t alignment = huge ? kHugePage : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef __linux__
    if (huge) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

}  // namespace hemostat::kernels
