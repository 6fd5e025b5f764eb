// Room `noise`: random damage to weights. Tensors in, tensors out.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace hemostat::noise {

// Standard normal float32 numbers that depend on nothing but the sizes and the seed: drawn on the CPU for every
// device. One direction serves every severity.
at::Tensor direction(at::IntArrayRef sizes, uint64_t seed, c10::Device device = c10::kCPU);

struct ApplyOptions {
  double sigma = 0;                              // ≥ 0, in standard deviations of the weight
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;
};

// weight + sigma · std(weight) · direction, in float32, in the weight's dtype. std is that of the whole tensor as a
// population (divided by n), so a constant or one-element tensor has none and stays unchanged, as does every tensor at
// sigma 0. The noise is a constant to autograd.
//   weight     [out_features, in_features], float32, bfloat16 or float16
//   direction  float32, weight's shape and device
// ValueError for NaN or Inf in the weight (seen before any work), unless check_finite is false.
at::Tensor apply(const at::Tensor& weight, const at::Tensor& direction, const ApplyOptions& options);

struct GaussianOptions {
  double sigma = 0;
  uint64_t seed = 0;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;
};

// apply(weight, direction(weight.sizes(), seed, weight.device()), …)
at::Tensor gaussian(const at::Tensor& weight, const GaussianOptions& options);

struct IsotropicOptions {
  double norm = 0;    // ≥ 0, of the noise: Frobenius
  uint64_t seed = 0;  // of its direction
  bool check_finite = true;
};

// weight + norm · z / ‖z‖ with z = direction(weight.sizes(), seed, weight.device()), in float32, in the weight's dtype:
// a change of a given size in no direction in particular. A weight without entries stays as it is.
//   weight  [out_features, in_features], float32, bfloat16 or float16
// ValueError for a norm that is negative or not finite, and for NaN or Inf in the weight, unless check_finite is false.
at::Tensor isotropic(const at::Tensor& weight, const IsotropicOptions& options);

}  // namespace hemostat::noise
