#include <algorithm>
#include <cmath>

#include <hemostat/error.h>
#include <hemostat/scan.h>

namespace hemostat {
namespace {

// None where the weights are beyond the type.
std::optional<Model> in(at::ScalarType dtype, const Model& model) {
  try {
    return model.to(dtype);
  } catch (const ValueError&) {
    return std::nullopt;
  }
}

}  // namespace

bool NoiseFloor::covers(const Damage& damage) const {
  return std::abs(damage.delta_nll) <= delta_nll && (damage.kl.mean <= kl || !damage.predicts_tokens());
}

std::optional<NoiseFloor> measure_noise_floor(const BaselineEvaluation& baseline) {
  const bool full = baseline.model().dtype() == at::kFloat;
  const std::optional<Model> other = in(full ? at::kBFloat16 : at::kFloat, baseline.model());
  if (!other) {
    return std::nullopt;
  }
  const Damage damage = baseline.compare(*other);
  if (!std::isfinite(damage.nll) || (damage.predicts_tokens() && !std::isfinite(damage.kl.mean))) {
    return std::nullopt;
  }
  NoiseFloor floor;
  floor.against = full ? "bfloat16" : "float32";
  floor.delta_nll = std::abs(damage.delta_nll);
  if (const auto& interval = damage.delta_nll_interval) {
    floor.delta_nll = std::max({floor.delta_nll, std::abs(interval->low), std::abs(interval->high)});
  }
  floor.kl = damage.kl.mean;
  floor.top1_agreement = damage.top1_agreement;
  return floor;
}

}  // namespace hemostat
