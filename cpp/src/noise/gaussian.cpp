#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/std.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/noise.h>

#include "common/arguments.h"

namespace hemostat::noise {

namespace {

void check_arguments(std::string_view operation, const at::Tensor& weight, double sigma,
                     const std::optional<at::Tensor>& out) {
  arguments::check_matrix(operation, "weight", weight);
  check_range(operation, "sigma", sigma, at_least(0));
  if (out) {
    arguments::check_out(operation, *out, weight.sizes(), weight.scalar_type(), weight.device());
    arguments::check_out_without_gradient(operation, "weight", weight);
    arguments::is_in_place(operation, *out, "weight", weight);
  }
}

at::Tensor add(std::string_view operation, const at::Tensor& weight, const at::Tensor& direction, double sigma,
               const std::optional<at::Tensor>& out, bool check_finite) {
  at::Tensor noisy;
  if (weight.numel() == 0 || sigma == 0.0) {
    if (check_finite) {
      arguments::check_finite(operation, "weight", weight.detach());
    }
    noisy = weight.clone(at::MemoryFormat::Contiguous);
  } else {
    const at::Tensor values = weight.detach().to(at::kFloat);
    if (check_finite) {
      arguments::check_finite(operation, "weight", values);
    }
    at::Tensor deviation = at::std(values, at::OptionalIntArrayRef(), /*correction=*/0).mul_(sigma);
    // A constant has none, which a rounded mean would hide.
    const auto [lowest, highest] = at::aminmax(values);
    deviation.masked_fill_(lowest.eq(highest), 0);
    noisy = at::addcmul(weight.to(at::kFloat), direction, deviation).to(weight.scalar_type()).contiguous();
    if (check_finite) {
      arguments::check_result(operation, fmt::format("weight with noise of sigma = {}", sigma), noisy);
    }
  }
  if (!out) {
    return noisy;
  }
  at::Tensor result = *out;
  return result.copy_(noisy.detach());
}

}  // namespace

at::Tensor direction(at::IntArrayRef sizes, uint64_t seed, c10::Device device) {
  for (const int64_t size : sizes) {
    if (size < 0) {
      throw ValueError(
          fmt::format("hemostat.noise.direction: sizes are {}, but must be 0 or more", arguments::shape(sizes)));
    }
  }
  at::Tensor numbers = at::empty(sizes, at::TensorOptions().dtype(at::kFloat));
  numbers.normal_(0.0, 1.0, at::detail::createCPUGenerator(seed));
  return numbers.to(device);
}

at::Tensor apply(const at::Tensor& weight, const at::Tensor& direction, const ApplyOptions& options) {
  constexpr std::string_view kOperation = "hemostat.noise.apply";
  check_arguments(kOperation, weight, options.sigma, options.out);
  arguments::check_dense(kOperation, "direction", direction);
  if (direction.scalar_type() != at::kFloat) {
    throw TypeError(fmt::format("{}: direction must be float32, but is {}", kOperation,
                                arguments::dtype_name(direction.scalar_type())));
  }
  if (direction.sizes() != weight.sizes()) {
    throw ValueError(fmt::format("{}: direction has shape {}, but weight has {}", kOperation,
                                 arguments::shape(direction.sizes()), arguments::shape(weight.sizes())));
  }
  arguments::check_device(kOperation, "direction", direction, "weight", weight);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "direction", direction.detach());
  }
  return add(kOperation, weight, direction, options.sigma, options.out, options.check_finite);
}

at::Tensor gaussian(const at::Tensor& weight, const GaussianOptions& options) {
  constexpr std::string_view kOperation = "hemostat.noise.gaussian";
  check_arguments(kOperation, weight, options.sigma, options.out);
  return add(kOperation, weight, direction(weight.sizes(), options.seed, weight.device()), options.sigma, options.out,
             options.check_finite);
}

at::Tensor isotropic(const at::Tensor& weight, const IsotropicOptions& options) {
  constexpr std::string_view kOperation = "hemostat.noise.isotropic";
  arguments::check_matrix(kOperation, "weight", weight);
  check_options(kOperation, options);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "weight", weight.detach());
  }
  if (weight.numel() == 0 || options.norm == 0.0) {
    return weight.clone(at::MemoryFormat::Contiguous);
  }
  const at::Tensor z = direction(weight.sizes(), options.seed, weight.device());
  const double length =
      at::linalg_vector_norm(z, 2, at::OptionalIntArrayRef(), /*keepdim=*/false, at::kDouble).item<double>();
  const double factor = std::min<double>(options.norm / length, std::numeric_limits<float>::max());
  const at::Tensor noisy = at::add(weight.to(at::kFloat), z, factor).to(weight.scalar_type());
  if (options.check_finite) {
    arguments::check_result(kOperation, fmt::format("weight with noise of norm = {}", options.norm), noisy.detach());
  }
  return noisy.contiguous();
}

}  // namespace hemostat::noise
