// What sweep, plan and scan share: the checks before any work, and one method's trials.
#pragma once

#include <functional>
#include <vector>

#include <hemostat/scan.h>

namespace hemostat {

// The method's axis for this model and these options, without preparing.
Axis planned_axis(const Model& model, const MethodSpec& method);

// ValueError where the method needs statistics that are missing.
void check_needs(const MethodSpec& method, const Statistics* statistics, const char* operation);

// On the axis, from mild to severe, each once. ValueError where there is none.
std::vector<double> ordered_severities(const Axis& axis, const MethodSpec& method,
                                       const std::vector<double>& severities, const char* operation);

struct TrialsOptions {
  NoiseFloor noise_floor;
  std::vector<Trial> known;
  std::function<void(const Trial&)> on_trial;
};

// Runs the trials that are not known, by generation too where the axis is measured by it. Prepares unless all are
// known; the preparation ends with this call.
SweepCurve run_trials(const BaselineEvaluation& baseline, const MethodSpec& method, const Axis& axis,
                      const std::vector<double>& severities, const Statistics* statistics,
                      const TrialsOptions& options);

// The one of this method and severity, or null.
const Trial* find_trial(const std::vector<Trial>& trials, const std::string& method, double severity);

}  // namespace hemostat
