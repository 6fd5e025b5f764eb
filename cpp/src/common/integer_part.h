// From a fraction to a count, the same everywhere.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace hemostat {

// floor(fraction · whole), fraction 0 … 1, where a product within double rounding of an integer is that integer:
// .29 · 100 is 29, although the product of the doubles is 28.999…96, and (1 − .93) · 100 is 7.
inline int64_t integer_part(double fraction, double whole) {
  const double product = fraction * whole;
  const double nearest = std::nearbyint(product);
  const double rounding = 4 * std::numeric_limits<double>::epsilon() * whole;
  return static_cast<int64_t>(std::abs(product - nearest) <= rounding ? nearest : std::floor(product));
}

}  // namespace hemostat
