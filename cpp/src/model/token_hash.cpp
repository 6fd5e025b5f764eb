#include "token_hash.h"

#include <cmath>

#include <ATen/ops/cos.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>

namespace hemostat {
namespace {

// Logical right shift of int64.
at::Tensor shifted(const at::Tensor& x, int64_t bits) {
  return x.bitwise_right_shift(bits).bitwise_and((int64_t{1} << (64 - bits)) - 1);
}

at::Tensor mix(at::Tensor x) {
  x = x.bitwise_xor(shifted(x, 30)) * static_cast<int64_t>(0xbf58476d1ce4e5b9ULL);
  x = x.bitwise_xor(shifted(x, 27)) * static_cast<int64_t>(0x94d049bb133111ebULL);
  return x.bitwise_xor(shifted(x, 31));
}

constexpr int64_t kGolden = static_cast<int64_t>(0x9e3779b97f4a7c15ULL);

}  // namespace

at::Tensor hash(int64_t seed, std::initializer_list<at::Tensor> values) {
  at::Tensor mixed = mix(at::full({}, seed, values.begin()->options()) + kGolden);
  for (const at::Tensor& value : values) {
    mixed = mix(mixed.bitwise_xor(value) + kGolden);
  }
  return mixed;
}

at::Tensor unit_interval(const at::Tensor& hashed) {
  return shifted(hashed, 11).to(at::kDouble) * std::ldexp(1.0, -53);
}

at::Tensor below(const at::Tensor& hashed, int64_t bound) { return shifted(hashed, 1).remainder(bound); }

at::Tensor standard_normal(const at::Tensor& hashed) {
  const at::Tensor radius = (1.0 - unit_interval(mix(hashed + kGolden))).log().mul(-2).sqrt();
  const at::Tensor angle = unit_interval(mix(hashed - kGolden)) * (2 * M_PI);
  return (radius * angle.cos()).to(at::kFloat);
}

}  // namespace hemostat
