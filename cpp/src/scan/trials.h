// What sweep, localize, plan and scan share: the checks before any work, and one method's trials.
#pragma once

#include <functional>
#include <optional>
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

// A method that is prepared once, where a severity is first asked for. The model and the statistics outlive it.
class Preparation {
 public:
  Preparation(const Model& model, const MethodSpec& method, const Statistics* statistics)
      : model_(model), method_(method), statistics_(statistics) {}

  const MethodSpec& method() const { return method_; }
  void prepare();
  Model at(double severity);
  double seconds() const { return seconds_; }  // of preparing

 private:
  const Model& model_;
  MethodSpec method_;
  const Statistics* statistics_;
  std::optional<Prepared> prepared_;
  double seconds_ = 0;
};

struct TrialsOptions {
  NoiseFloor noise_floor;
  std::function<std::optional<Trial>(double severity)> known = nullptr;  // asked when the trial's turn comes
  std::function<void(const Trial&)> on_trial = nullptr;                  // after each that was not known
};

// Runs the trials that are not known, by generation too where the axis is measured by it. Prepares unless all are
// known; `baseline` may then be null.
SweepCurve run_trials(const BaselineEvaluation* baseline, Preparation& preparation, const Axis& axis,
                      const std::vector<double>& severities, const TrialsOptions& options);

}  // namespace hemostat
