// From a fraction to a count, the same everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace hemostat {

// floor(value), value ≥ 0, where a value within double rounding of an integer is that integer: .29 · 100 is 29,
// although the product of the doubles is 28.999…96.
inline int64_t integer_part(double value) {
  const double nearest = std::nearbyint(value);
  const double rounding = 4 * std::numeric_limits<double>::epsilon() * value;
  return static_cast<int64_t>(std::abs(value - nearest) <= rounding ? nearest : std::floor(value));
}

}  // namespace hemostat
