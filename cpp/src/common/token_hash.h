// Deterministic pseudo-randomness from integers, on any device: the same for a token however it is batched or cached.
#pragma once

#include <cstdint>
#include <initializer_list>

#include <ATen/core/Tensor.h>

namespace hemostat {

// Mixes int64 tensors that broadcast together, and a seed, into uniformly distributed int64 (splitmix64's finalizer).
at::Tensor hash(int64_t seed, std::initializer_list<at::Tensor> values);

at::Tensor unit_interval(const at::Tensor& hashed);         // float64 in [0, 1)
at::Tensor below(const at::Tensor& hashed, int64_t bound);  // int64 in 0 … bound − 1
at::Tensor standard_normal(const at::Tensor& hashed);       // float32, Box–Muller on two further hashes
at::Tensor gumbel(const at::Tensor& hashed);                // float32, standard Gumbel: −log(−log u)

}  // namespace hemostat
