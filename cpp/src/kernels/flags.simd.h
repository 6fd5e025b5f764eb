// Walking through the few set flags of many. Included by *.simd.cpp only; internal linkage.
#pragma once

#include <cstdint>

namespace hemostat::kernels {
namespace {

// Calls visit(i) for each of the `count` flags (a multiple of 8, each 0 or 1) that is set, in order.
template <class Visit>
inline void for_each_set(const uint8_t* flags, int64_t count, Visit visit) {
  for (int64_t word = 0; word < count; word += 8) {
    uint64_t bits;
    __builtin_memcpy(&bits, flags + word, 8);
    // Little endian: the first flag is the lowest byte.
    for (; bits != 0; bits &= bits - 1) visit(word + __builtin_ctzll(bits) / 8);
  }
}

}  // namespace
}  // namespace hemostat::kernels
