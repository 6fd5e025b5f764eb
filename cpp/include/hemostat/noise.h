// Room `noise`: random damage to weights and to the inputs of linear layers. Tensors in, tensors out.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <hemostat/options.h>

namespace hemostat::noise {

// Standard normal float32 numbers that depend on nothing but the sizes and the seed: drawn on the CPU for every
// device. One direction serves every severity.
at::Tensor direction(at::IntArrayRef sizes, uint64_t seed, c10::Device device = c10::kCPU);

// What several of the operators below take.
template <typename Options>
constexpr auto sigma_field(const Range& range = at_least(0)) {
  return Field{"sigma", &Options::sigma,
               "standard deviation of the noise, in those of the weight (of each token, where it goes to inputs)",
               range, SetBy::severity};
}

template <typename Options>
constexpr auto seed_field() {
  return Field{"seed", &Options::seed, "of the hash or generator that draws", at_least(0)};
}

struct ApplyOptions {
  double sigma = 0;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{sigma_field<ApplyOptions>(), out_field<ApplyOptions>(), check_finite_field<ApplyOptions>()};
  }
};

// weight + sigma · std(weight) · direction, in float32, in the weight's dtype. std is that of the whole tensor as a
// population (divided by n), so a constant or one-element tensor has none and stays unchanged, as does every tensor at
// sigma 0. The noise is a constant to autograd.
//   weight     [out_features, in_features], float32, bfloat16 or float16
//   direction  float32, weight's shape and device
// Unless check_finite is false: ValueError for NaN or Inf in the weight or the direction (seen before any work),
// NumericalError where the noise takes entries beyond the weight's dtype, here and in those below.
at::Tensor apply(const at::Tensor& weight, const at::Tensor& direction, const ApplyOptions& options);

struct GaussianOptions {
  double sigma = 0;
  uint64_t seed = 0;
  std::optional<at::Tensor> out = std::nullopt;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{sigma_field<GaussianOptions>(), seed_field<GaussianOptions>(), out_field<GaussianOptions>(),
                      check_finite_field<GaussianOptions>()};
  }
};

// apply(weight, direction(weight.sizes(), seed, weight.device()), …)
at::Tensor gaussian(const at::Tensor& weight, const GaussianOptions& options);

struct IsotropicOptions {
  double norm = 0;
  uint64_t seed = 0;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{
        Field{"norm", &IsotropicOptions::norm, "Frobenius norm of the noise", at_least(0), SetBy::severity},
        seed_field<IsotropicOptions>(), check_finite_field<IsotropicOptions>()};
  }
};

// weight + norm · z / ‖z‖ with z = direction(weight.sizes(), seed, weight.device()), in float32, in the weight's dtype:
// a change of a given size in no direction in particular. A weight without entries stays as it is.
//   weight  [out_features, in_features], float32, bfloat16 or float16
// ValueError for a norm that is negative or not finite, and for NaN or Inf in the weight, unless check_finite is false.
at::Tensor isotropic(const at::Tensor& weight, const IsotropicOptions& options);

// Faults of the memory that a weight is stored in.
struct BitFaultOptions {
  double rate = 0;
  uint64_t seed = 0;
  std::optional<int64_t> bit = std::nullopt;
  std::optional<int64_t> bits = std::nullopt;
  std::optional<at::Tensor> out = std::nullopt;  // weight's dtype and shape, contiguous; may be `weight` itself

  static constexpr auto fields() {
    return std::tuple{Field{"rate", &BitFaultOptions::rate, "probability of each bit", between(0, 1), SetBy::severity},
                      seed_field<BitFaultOptions>(),
                      Field{"bit",
                            &BitFaultOptions::bit,
                            "only this position: 0 is the least significant, the highest the sign; None: all",
                            {},
                            SetBy::call},
                      Field{"bits", &BitFaultOptions::bits,
                            "of uint8 codes, how many low bits each is stored in; None: 8", between(1, 8), SetBy::call},
                      out_field<BitFaultOptions>()};
  }
};

// The weight with every stored bit inverted with probability `rate`, independently (the fault model of Ares: Reagen et
// al. 2018, "Ares: a framework for quantifying the resilience of deep neural networks", DAC).
//   weight  [out_features, in_features], float32, bfloat16 or float16, or uint8 codes; any value
// Each bit has one uniform draw, a hash of (seed, its position), and is faulty where that is below the rate: the faults
// of a rate are among those of every higher one, those of one `bit` among those of all. The result may hold NaN and
// infinities, as memory does, and carries no gradient.
at::Tensor bit_flip(const at::Tensor& weight, const BitFaultOptions& options);

// The weight with bits that are stuck at `value`, 0 or 1, whatever was written to them: permanent faults, whose bits
// are those that bit_flip inverts for the same seed and rate. About half of them hold that value anyway.
at::Tensor stuck_at(const at::Tensor& weight, int64_t value, const BitFaultOptions& options);

struct ActivationNoiseOptions {
  double sigma = 0;  // finite in float32
  int64_t seed = 0;
  bool check_finite = true;

  static constexpr auto fields() {
    return std::tuple{sigma_field<ActivationNoiseOptions>(not_negative_in_float32()),
                      seed_field<ActivationNoiseOptions>(), check_finite_field<ActivationNoiseOptions>()};
  }
};

// input + sigma · std(the token's input) · z, in float32, in the input's dtype. z is standard normal, a hash of (seed,
// the token's position, feature): the same for every sequence, however tokens are batched or cached. std is that of the
// features as a population, so that a token without spread stays unchanged. The noise is a constant to autograd.
//   input  [..., tokens, in_features], or [in_features], a token at position 0; float32, bfloat16 or float16
// ValueError for NaN or Inf in the input, unless check_finite is false.
at::Tensor activation_noise(const at::Tensor& input, const ActivationNoiseOptions& options);

// Its two halves, for a forward pass, which knows where its tokens stand: z of int64 positions, of any shape, →
// float32 [..., in_features]; and the noise of a direction that broadcasts to the input.
at::Tensor activation_direction(const at::Tensor& positions, int64_t in_features, int64_t seed);
at::Tensor with_activation_noise(const at::Tensor& input, const at::Tensor& direction, double sigma);

}  // namespace hemostat::noise
