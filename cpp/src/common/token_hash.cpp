#include "common/token_hash.h"

#include <cmath>
#include <limits>

#include <ATen/ops/cos.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>

namespace hemostat {
namespace {

// Logical right shift of int64 by 1 … 63 bits.
at::Tensor shifted(const at::Tensor& x, int64_t bits) {
  return x.bitwise_right_shift(bits).bitwise_and_(std::numeric_limits<int64_t>::max() >> (bits - 1));
}

// In place: x is the caller's own.
at::Tensor mix(at::Tensor x) {
  x.bitwise_xor_(shifted(x, 30)).mul_(static_cast<int64_t>(0xbf58476d1ce4e5b9ULL));
  x.bitwise_xor_(shifted(x, 27)).mul_(static_cast<int64_t>(0x94d049bb133111ebULL));
  return x.bitwise_xor_(shifted(x, 31));
}

constexpr int64_t kGolden = static_cast<int64_t>(0x9e3779b97f4a7c15ULL);

}  // namespace

at::Tensor hash(int64_t seed, std::initializer_list<at::Tensor> values) {
  at::Tensor mixed = mix(at::full({}, seed, values.begin()->options()) + kGolden);
  for (const at::Tensor& value : values) {
    mixed = mix(mixed.bitwise_xor(value).add_(kGolden));
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

at::Tensor gumbel(const at::Tensor& hashed) {
  // −log1p(−u) of u = (53 bits + ½) · 2⁻⁵³ in float32 is exact to rounding where it is small, and that is what the
  // largest of many Gumbel variables depend on.
  at::Tensor u = shifted(hashed, 11).to(at::kFloat).add_(0.5).mul_(std::ldexp(1.0, -53));
  u.clamp_max_(1 - std::ldexp(1.0, -24));  // where rounding made it 1
  return u.neg_().log1p_().neg_().log_().neg_();
}

}  // namespace hemostat
