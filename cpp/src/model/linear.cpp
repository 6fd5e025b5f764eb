#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

#include <hemostat/model.h>
#include <hemostat/noise.h>

#include "treated_input.h"

namespace hemostat {

bool LinearInput::neutral() const { return !scale.defined() && !rotation.defined() && bits >= 16 && noise == 0; }

bool Linear::defined() const { return weight.defined() || a.defined() || packed != nullptr; }

bool Linear::factored() const { return a.defined(); }

int64_t Linear::out_features() const { return packed ? packed->sizes()[0] : factored() ? a.size(0) : weight.size(0); }

int64_t Linear::in_features() const { return packed ? packed->sizes()[1] : factored() ? b.size(1) : weight.size(1); }

at::Tensor Linear::dense() const { return packed ? packed->dequantize() : factored() ? at::matmul(a, b) : weight; }

Linear Linear::with_weight(at::Tensor dense, double stored_bits) const {
  Linear result = *this;
  result.weight = std::move(dense);
  result.stored_bits = stored_bits;
  result.a = result.b = at::Tensor();
  result.packed = nullptr;
  return result;
}

Linear Linear::with_packed(std::shared_ptr<const quantize::PackedWeight> codes) const {
  Linear result = with_weight(at::Tensor());
  result.packed = std::move(codes);
  return result;
}

bool same_treatment(const LinearInput& x, const LinearInput& y) {
  return x.scale.is_same(y.scale) && x.rotation.is_same(y.rotation) && x.bits == y.bits && x.symmetric == y.symmetric &&
         x.noise == y.noise && x.noise_seed == y.noise_seed;
}

at::Tensor treated_input(const LinearInput& input, at::Tensor x, const at::Tensor& positions) {
  if (input.scale.defined()) {
    x = x * input.scale.to(x.scalar_type());
  }
  if (input.rotation.defined()) {
    x = at::matmul(x, input.rotation.to(x.scalar_type()));
  }
  if (input.bits < 16) {
    x = quantize::activation(x, {.bits = input.bits, .symmetric = input.symmetric, .check_finite = false});
  }
  if (input.noise > 0) {
    x = noise::with_activation_noise(x, noise::activation_direction(positions, x.size(-1), input.noise_seed),
                                     input.noise);
  }
  return x;
}

at::Tensor multiply(const Linear& linear, const at::Tensor& x) {
  const std::optional<at::Tensor> bias = linear.bias.defined() ? std::optional(linear.bias) : std::nullopt;
  if (linear.factored()) {
    return at::linear(at::linear(x, linear.b), linear.a, bias);
  }
  return at::linear(x, linear.packed ? linear.packed->dequantize().to(x.scalar_type()) : linear.weight, bias);
}

at::Tensor apply_linear(const Linear& linear, const at::Tensor& x, const at::Tensor& positions) {
  return multiply(linear, linear.input.neutral() ? x : treated_input(linear.input, x, positions));
}

}  // namespace hemostat
