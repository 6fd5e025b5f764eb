// Contract between the loops of `bit_faults_` (bit_faults.simd.cpp, bit_faults.cu) and their registration, and the
// draws that both devices share.
//
// Bits come in groups of 512, in the order in which they lie in memory. What a group's uniform draws are follows from
// one hash for each node of a binary tree over its bits, from the top: a node knows how far the smallest draw below it
// is from 1, and hands that on, to the child that has the smallest draw and to the other one, whose draws lie beyond
// it. So a group without a fault costs one hash, a fault about nine more, and no draw depends on the rate.
#pragma once

#include <cstdint>

#include "kernels/host_device.h"
#include "kernels/isa.h"
#include "kernels/launchers.h"

namespace hemostat::kernels {

inline constexpr int kGroupLevels = 9;
inline constexpr int64_t kGroupBits = int64_t{1} << kGroupLevels;
inline constexpr int64_t kGroupBytes = kGroupBits / 8;

// Of every element's bits those in [first, first + count) take the fault: fault 0 and 1 set a bit to that, 2 flips it.
struct FaultKind {
  int element_bits, first, count, fault;
};

// survival[level] = (1 − rate)^(2^level): a node of that level has a draw below the rate where its own is larger.
struct FaultRate {
  uint64_t key;  // of the seed
  double survival[kGroupLevels + 1];
};

static inline HEMOSTAT_BOTH uint64_t mixed_bits(uint64_t x) {  // splitmix64's finalizer
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

inline constexpr uint64_t kGoldenStep = 0x9e3779b97f4a7c15ull;

static inline HEMOSTAT_BOTH uint64_t group_key(uint64_t key, int64_t group) {
  return mixed_bits(key + (static_cast<uint64_t>(group) + 1) * kGoldenStep);
}

// Uniform in (0, 1], in steps of 2^-53.
static inline HEMOSTAT_BOTH double unit_of(uint64_t hash) {
  return static_cast<double>((hash >> 11) + 1) * (1.0 / 9007199254740992.0);
}

// Rounded as IEEE 754 says, so that both devices agree.
static inline HEMOSTAT_BOTH double root_of(double x) {
#ifdef __CUDA_ARCH__
  return __dsqrt_rn(x);
#else
  return __builtin_sqrt(x);
#endif
}

// Calls visit(bit) for each bit of the group, 0 … 511, whose draw is below the rate, in no particular order.
template <class Visit>
static inline HEMOSTAT_BOTH void for_each_fault(uint64_t group, const FaultRate& rate, const Visit& visit) {
  struct Node {
    uint32_t index;
    int level;
    double survival;
  };
  Node waiting[kGroupLevels + 2];
  int count = 0;
  waiting[count++] = {1, kGroupLevels, unit_of(group)};
  while (count > 0) {
    const Node node = waiting[--count];
    if (!(node.survival > rate.survival[node.level])) continue;
    if (node.level == 0) {
      visit(static_cast<int>(node.index) - static_cast<int>(kGroupBits));
      continue;
    }
    const uint64_t hash = mixed_bits(group + node.index * kGoldenStep);
    const double root = root_of(node.survival);
    const uint32_t smallest = static_cast<uint32_t>(hash & 1);
    waiting[count++] = {2 * node.index + 1 - smallest, node.level - 1, root * unit_of(hash)};
    waiting[count++] = {2 * node.index + smallest, node.level - 1, root};
  }
}

static inline HEMOSTAT_BOTH void apply_fault(uint8_t* group_data, int64_t bytes, const FaultKind& kind, int bit) {
  const int of_element = bit % kind.element_bits;
  if (bit / 8 >= bytes || of_element < kind.first || of_element >= kind.first + kind.count) return;
  const uint8_t mask = static_cast<uint8_t>(1u << (bit % 8));
  uint8_t& byte = group_data[bit / 8];
  byte = static_cast<uint8_t>(kind.fault == 0 ? byte & ~mask : kind.fault == 1 ? byte | mask : byte ^ mask);
}

struct BitFaultLoops {
  // Groups [begin, end) of `bytes` bytes.
  void (*apply)(uint8_t* data, int64_t bytes, int64_t begin, int64_t end, const FaultKind& kind, const FaultRate& rate);
};

HEMOSTAT_FOR_EACH_ISA(extern const BitFaultLoops bit_fault_loops;)

namespace cuda {

Error bit_faults(void* data, int64_t bytes, const FaultKind& kind, const FaultRate& rate, void* stream);

}  // namespace cuda

}  // namespace hemostat::kernels
