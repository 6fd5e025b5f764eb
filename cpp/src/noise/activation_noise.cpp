#include <limits>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/std.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/noise.h>

#include "common/arguments.h"
#include "common/token_hash.h"

namespace hemostat::noise {

at::Tensor activation_direction(const at::Tensor& positions, int64_t in_features, int64_t seed) {
  const at::Tensor features = at::arange(in_features, positions.options());
  return standard_normal(hash(seed, {positions.unsqueeze(-1), features}));
}

at::Tensor activation_noise(const at::Tensor& input, const ActivationNoiseOptions& options) {
  constexpr std::string_view kOperation = "hemostat.noise.activation_noise";
  arguments::check_floating(kOperation, "input", input);
  if (input.dim() == 0) {
    throw ValueError(fmt::format("{}: input is a scalar, but must be [..., tokens, in_features]", kOperation));
  }
  check_options(kOperation, options);
  const at::Tensor values = input.detach().to(at::kFloat);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "input", values);
  }
  if (input.numel() == 0 || options.sigma == 0.0) {
    return input.clone(at::MemoryFormat::Contiguous);
  }
  const auto of_tokens = at::TensorOptions().dtype(at::kLong).device(input.device());
  const at::Tensor positions = input.dim() > 1 ? at::arange(input.size(-2), of_tokens) : at::zeros({}, of_tokens);
  const at::Tensor noisy =
      with_activation_noise(input, activation_direction(positions, input.size(-1), options.seed), options.sigma);
  if (options.check_finite) {
    arguments::check_result(kOperation, fmt::format("input with noise of sigma = {}", options.sigma), noisy.detach());
  }
  return noisy.contiguous();
}

at::Tensor with_activation_noise(const at::Tensor& input, const at::Tensor& direction, double sigma) {
  const at::Tensor deviation = input.detach().to(at::kFloat).std(-1, /*unbiased=*/false, /*keepdim=*/true);
  return at::add(input.to(at::kFloat), at::mul(deviation, direction), sigma).to(input.scalar_type());
}

}  // namespace hemostat::noise
