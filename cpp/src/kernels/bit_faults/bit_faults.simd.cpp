// CPU loops of `bit_faults_`. See bit_faults.h.
#include "kernels/bit_faults/bit_faults.h"

namespace hemostat::kernels {
namespace {

constexpr int64_t kBlock = 64;  // groups whose hashes are computed side by side

void apply(uint8_t* data, int64_t bytes, int64_t begin, int64_t end, const FaultKind& kind, const FaultRate& rate) {
  // unit_of(key) > survival, in integers.
  const uint64_t least = static_cast<uint64_t>(rate.survival[kGroupLevels] * 9007199254740992.0);
  uint64_t keys[kBlock];
  for (int64_t block = begin; block < end; block += kBlock) {
    const int64_t count = end - block < kBlock ? end - block : kBlock;
    uint64_t found = 0;
    for (int64_t i = 0; i < kBlock; ++i) {
      keys[i] = group_key(rate.key, block + i);
      found |= static_cast<uint64_t>((keys[i] >> 11) >= least);
    }
    if (found == 0) continue;
    for (int64_t i = 0; i < count; ++i) {
      if ((keys[i] >> 11) < least) continue;
      uint8_t* group = data + (block + i) * kGroupBytes;
      const int64_t left = bytes - (block + i) * kGroupBytes;
      for_each_fault(keys[i], rate, [&](int bit) { apply_fault(group, left, kind, bit); });
    }
  }
}

}  // namespace

namespace HEMOSTAT_ISA {
const BitFaultLoops bit_fault_loops = {apply};
}

}  // namespace hemostat::kernels
