// CUDA kernel of `bit_faults_`. See hemostat/kernels.h for what it computes and bit_faults.h for how.
#include <algorithm>
#include <cstdint>

#include "kernels/bit_faults/bit_faults.h"
#include "kernels/elements.cuh"

namespace hemostat::kernels::cuda {
namespace {

// A thread a group: almost every one ends at its first hash, without touching the tensor.
__global__ void __launch_bounds__(256)
    fault_groups(uint8_t* data, int64_t bytes, int64_t groups, FaultKind kind, FaultRate rate) {
  for (int64_t group = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; group < groups;
       group += static_cast<int64_t>(gridDim.x) * blockDim.x) {
    uint8_t* own = data + group * kGroupBytes;
    const int64_t left = bytes - group * kGroupBytes;
    for_each_fault(group_key(rate.key, group), rate, [&](int bit) { apply_fault(own, left, kind, bit); });
  }
}

}  // namespace

Error bit_faults(void* data, int64_t bytes, const FaultKind& kind, const FaultRate& rate, void* stream) {
  constexpr int kThreads = 256;
  const int64_t groups = ceil_div(bytes, kGroupBytes);
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(ceil_div(groups, kThreads), 32 * multiprocessors()));
  fault_groups<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<uint8_t*>(data), bytes, groups,
                                                                           kind, rate);
  return last_error();
}

}  // namespace hemostat::kernels::cuda
