#include <hemostat/axis.h>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

namespace hemostat {
namespace {

// Severities that differ by less are one: 0.1 · 3 is 0.3, and 3.9999999999 layers are 4. `span` is the axis's, since
// 1e-9 is a rate of its own where 1e-4 is far.
bool same(double a, double b, double span) {
  return std::abs(a - b) <= 1e-9 * std::max({std::min(1.0, span), std::abs(a), std::abs(b)});
}

}  // namespace

double Axis::distance(double severity) const {
  if (!std::isfinite(severity)) {
    throw ValueError(fmt::format("hemostat.Axis.distance: {} is {}, but takes a finite number", name, severity));
  }
  if (farthest == neutral) {
    return severity == neutral ? 0 : 1;
  }
  return std::abs(severity - neutral) / std::abs(farthest - neutral);
}

double Axis::severity_at(double distance) const {
  if (!std::isfinite(distance)) {
    throw ValueError(fmt::format("hemostat.Axis.severity_at: distance is {}, but takes 0 … 1", distance));
  }
  return neutral + distance * (farthest - neutral);
}

std::string Axis::range() const {
  if (kind == AxisKind::listed) {
    return fmt::format("{} or {}", fmt::join(default_grid, ", "), neutral);
  }
  const bool neutral_is_apart = neutral < minimum || neutral > maximum;
  return fmt::format("{}{} … {}{}", kind == AxisKind::integer ? "whole numbers " : "", minimum, maximum,
                     neutral_is_apart ? fmt::format(", or {}, which changes nothing", neutral) : "");
}

double Axis::checked(double severity, const std::string& method) const {
  const auto refuse = [&] {
    throw ValueError(fmt::format("hemostat.{}: {} is {}, but takes {}", method, name, severity, range()));
  };
  if (!std::isfinite(severity)) {  // all else compares with a tolerance that is relative
    refuse();
  }
  const double span = std::abs(farthest - neutral);
  if (same(severity, neutral, span)) {
    return neutral;
  }
  if (kind == AxisKind::listed) {
    const auto listed = std::find_if(default_grid.begin(), default_grid.end(),
                                     [&](double entry) { return same(entry, severity, span); });
    if (listed == default_grid.end()) {
      refuse();
    }
    return *listed;
  }
  if (same(severity, minimum, span)) {
    return minimum;
  }
  if (same(severity, maximum, span)) {
    return maximum;
  }
  if (!(severity > minimum && severity < maximum)) {
    refuse();
  }
  if (kind == AxisKind::integer) {
    const double whole = std::round(severity);
    if (!same(severity, whole, span)) {
      refuse();
    }
    return whole;
  }
  if (step > 0) {
    const double parts = std::round(1 / step);  // dividing by it gives k/L just as a user writes it
    return neutral + std::round((severity - neutral) * parts) / parts;
  }
  return severity;
}

}  // namespace hemostat
