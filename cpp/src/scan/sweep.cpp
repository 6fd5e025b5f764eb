#include <algorithm>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.sweep";

struct Checked {
  Axis axis;
  std::vector<double> severities;
};

Checked checked(const Model& model, const MethodSpec& method, const Statistics* statistics,
                const SweepOptions& options) {
  Axis axis = planned_axis(model, method);
  std::vector<double> severities =
      ordered_severities(axis, method, options.severities.value_or(axis.default_grid), kOperation);
  check_needs(method, statistics, kOperation);
  return {std::move(axis), std::move(severities)};
}

}  // namespace

SweepCurve sweep(const BaselineEvaluation& baseline, const MethodSpec& method, const Statistics* statistics,
                 const SweepOptions& options) {
  const Checked planned = checked(baseline.model(), method, statistics, options);
  const TrialsOptions trials{
      .noise_floor = options.noise_floor ? *options.noise_floor : measure_noise_floor(baseline),
      .on_trial = options.on_trial,
  };
  Preparation preparation(baseline.model(), method, statistics);
  return run_trials(&baseline, preparation, planned.axis, planned.severities, trials);
}

SweepCurve sweep(const Model& model, const MethodSpec& method, const at::Tensor& tokens, const Statistics* statistics,
                 const SweepOptions& options) {
  checked(model, method, statistics, options);  // before the baseline is evaluated
  return sweep(BaselineEvaluation(model, tokens, options.compare), method, statistics, options);
}

Threshold find_threshold(const SweepCurve& curve) {
  std::vector<double> delta_nll;
  std::vector<std::vector<double>> window_delta;
  for (const Damage& damage : curve.damages) {
    delta_nll.push_back(damage.delta_nll);
    std::vector<double> windows(damage.window_nll);
    for (size_t i = 0; i < windows.size(); ++i) {
      windows[i] -= damage.window_nll_baseline.at(i);
    }
    window_delta.push_back(std::move(windows));
  }
  const auto lacks_windows = [](const std::vector<double>& windows) { return windows.empty(); };
  if (std::any_of(window_delta.begin(), window_delta.end(), lacks_windows)) {
    window_delta.clear();  // trials of an earlier run, whose windows were not kept
  }
  return Threshold(curve.axis, curve.severities, std::move(delta_nll), std::move(window_delta));
}

}  // namespace hemostat
