// What sweep, surface, localize, plan and scan share: the checks before any work, and one method's trials.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <hemostat/scan.h>

#include "methods/needs.h"

namespace hemostat {

// On the axis, from mild to severe, each once. ValueError where there is none.
std::vector<double> ordered_severities(const Axis& axis, const MethodSpec& method,
                                       const std::vector<double>& severities, const char* operation);

// ValueError where the axis is measured by generation, and a foreign module has no cache of ours for that.
void check_measurable(const Model& model, const MethodSpec& method, const Axis& axis, const char* operation);

// A method that is prepared once, where a severity is first asked for. What `model` refers to and the statistics
// outlive it.
class Preparation {
 public:
  Preparation(const Model& model, const MethodSpec& method, const Statistics* statistics,
              const Propagation* propagation = nullptr)
      : Preparation([&model] { return model; }, method, statistics, propagation, method.text()) {}
  // Of a model that is itself made only then; `name` is what trials are known by. A propagation, which outlives it too,
  // is for methods on linears.
  Preparation(std::function<Model()> model, MethodSpec method, const Statistics* statistics,
              const Propagation* propagation, std::string name)
      : model_(std::move(model)),
        method_(std::move(method)),
        statistics_(statistics),
        propagation_(find_method(method_.method).on_linears() ? propagation : nullptr),
        name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  void prepare();
  Model at(double severity);
  double seconds() const { return seconds_; }  // of preparing, and of making the model

 private:
  std::function<Model()> model_;
  MethodSpec method_;
  const Statistics* statistics_;
  const Propagation* propagation_;
  std::string name_;
  std::optional<Prepared> prepared_;
  double seconds_ = 0;
};

struct TrialsOptions {
  std::optional<NoiseFloor> noise_floor = std::nullopt;                   // none: unknown
  std::function<std::optional<Trial>(const TrialName&)> known = nullptr;  // asked when the trial's turn comes
  std::function<void(const Trial&)> on_trial = nullptr;                   // after each that was not known
  bool generate = false;                     // measure by generation too, whatever the axis says
  const Propagation* propagation = nullptr;  // of methods on linears that run_surface prepares
};

// Runs the trials that are not known, by generation too where the axis is measured by it. Prepares unless all are
// known; `baseline` may then be null.
SweepCurve run_trials(const BaselineEvaluation* baseline, Preparation& preparation, const Axis& axis,
                      const std::vector<double>& severities, const TrialsOptions& options);

}  // namespace hemostat
