#include <algorithm>
#include <cmath>

#include <hemostat/scan.h>

namespace hemostat {

bool NoiseFloor::covers(const Damage& damage) const {
  return std::abs(damage.delta_nll) <= delta_nll && damage.kl.mean <= kl;
}

NoiseFloor measure_noise_floor(const BaselineEvaluation& baseline) {
  const bool full = baseline.model().dtype() == at::kFloat;
  const Damage damage = baseline.compare(baseline.model().to(full ? at::kBFloat16 : at::kFloat));
  NoiseFloor floor;
  floor.against = full ? "bfloat16" : "float32";
  floor.delta_nll = std::max(
      {std::abs(damage.delta_nll), std::abs(damage.delta_nll_interval.low), std::abs(damage.delta_nll_interval.high)});
  floor.kl = damage.kl.mean;
  floor.top1_agreement = damage.top1_agreement;
  return floor;
}

}  // namespace hemostat
