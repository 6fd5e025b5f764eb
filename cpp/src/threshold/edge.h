// Where damage along an axis exceeds a tolerance: what thresholds of one method and of two share.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <hemostat/axis.h>

namespace hemostat {

// ValueError unless tolerance > 0 and finite. operation: who asks, "hemostat.judge".
void check_tolerance(double tolerance, const std::string& operation);

struct Edge {
  std::optional<double> severity;  // none: the first severity exceeds the tolerance, and neutral is not known
  bool censored = false;           // the tolerance is never exceeded
};

// Severities from mild to severe, without neutral. at_neutral: the damage there, within the tolerance, from which is
// interpolated; none: damage jumps there. See Threshold::zone.
Edge zone_edge(const Axis& axis, const std::vector<double>& severities, const std::vector<double>& damage,
               double tolerance, std::optional<double> at_neutral);

}  // namespace hemostat
