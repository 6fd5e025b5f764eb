// How far the damages of parts, each done alone, add up to the damage of all of them together.
#pragma once

#include <cmath>
#include <optional>

#include <hemostat/metrics.h>

namespace hemostat {

// `sum` of the parts' ΔNLL / the whole's. None where the whole's interval holds 0, or a number is not finite.
inline std::optional<double> additivity(double sum, const Damage& whole) {
  const double ratio = sum / whole.delta_nll;
  const bool holds_zero = whole.delta_nll_interval.low <= 0 && whole.delta_nll_interval.high >= 0;
  return holds_zero || !std::isfinite(ratio) ? std::nullopt : std::optional(ratio);
}

}  // namespace hemostat
