#include "threshold/edge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The last whole step on the way from neutral to `severity`, where the axis has steps.
double step_back(const Axis& axis, double severity) {
  const double step = axis.kind == AxisKind::integer ? 1 : axis.step;
  if (step <= 0) {
    return severity;
  }
  constexpr double kRounding = 1e-9;
  const double parts = std::round(1 / step);
  return axis.neutral + axis.direction() * std::floor(std::abs(severity - axis.neutral) * parts + kRounding) / parts;
}

}  // namespace

void check_tolerance(double tolerance, const std::string& operation) {
  if (!(tolerance > 0) || std::isinf(tolerance)) {
    throw ValueError(fmt::format("{}: tolerance is {}, but takes more than 0 and less than inf", operation, tolerance));
  }
}

Edge zone_edge(const Axis& axis, const std::vector<double>& severities, const std::vector<double>& damage,
               double tolerance, std::optional<double> at_neutral) {
  double reached = at_neutral.value_or(-kInfinity);  // the running maximum
  std::optional<double> within;                      // the last severity that stays in the tolerance
  if (at_neutral) {
    within = axis.neutral;
  }
  for (size_t i = 0; i < severities.size(); ++i) {
    const double here = std::isnan(damage[i]) ? kInfinity : std::max(reached, damage[i]);
    if (here <= tolerance) {
      reached = here;
      within = severities[i];
      continue;
    }
    if (!within || here == kInfinity || axis.kind == AxisKind::listed) {
      return {within, false};
    }
    const double crossing = *within + (tolerance - reached) / (here - reached) * (severities[i] - *within);
    return {step_back(axis, crossing), false};
  }
  return {within, true};
}

}  // namespace hemostat
