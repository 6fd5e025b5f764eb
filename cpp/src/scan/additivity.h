// How far the damages of parts, each done alone, add up to the damage of all of them together.
#pragma once

#include <cmath>
#include <optional>

#include <hemostat/metrics.h>

namespace hemostat {

// `sum` of the parts' ΔNLL / the whole's. None where the whole's interval holds 0 (one window has none), or a number is
// not finite.
inline std::optional<double> additivity(double sum, const Damage& whole) {
  const double ratio = sum / whole.delta_nll;
  return whole.silent().value_or(false) || !std::isfinite(ratio) ? std::nullopt : std::optional(ratio);
}

}  // namespace hemostat
