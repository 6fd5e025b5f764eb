#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

#include "methods/on_linears.h"
#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kSweep = "hemostat.sweep";

struct Checked {
  Axis axis;
  std::vector<double> severities;
};

Checked checked(const Model& model, const MethodSpec& method, const Statistics* statistics,
                const SweepOptions& options) {
  Axis axis = planned_axis(model, method);
  check_measurable(model, method, axis, kSweep);
  std::vector<double> severities =
      ordered_severities(axis, method, options.severities.value_or(axis.default_grid), kSweep);
  if (options.propagation && find_method(method.method).on_linears()) {
    check_propagation(kSweep, model, *options.propagation);
  } else {
    check_needs(method, statistics, kSweep);
  }
  return {std::move(axis), std::move(severities)};
}

}  // namespace

SweepCurve sweep(const BaselineEvaluation& baseline, const MethodSpec& method, const Statistics* statistics,
                 const SweepOptions& options) {
  const Checked planned = checked(baseline.model(), method, statistics, options);
  const TrialsOptions trials{
      .noise_floor = options.noise_floor ? options.noise_floor : measure_noise_floor(baseline),
      .on_trial = options.on_trial,
  };
  Preparation preparation(baseline.model(), method, statistics, options.propagation ? &*options.propagation : nullptr);
  return run_trials(&baseline, preparation, planned.axis, planned.severities, trials);
}

SweepCurve sweep(const Model& model, const MethodSpec& method, const at::Tensor& tokens, const Statistics* statistics,
                 const SweepOptions& options) {
  checked(model, method, statistics, options);  // before the baseline is evaluated
  return sweep(BaselineEvaluation(model, tokens, options.compare), method, statistics, options);
}

namespace {

// Each window's damage; empty where windows are not kept.
std::vector<double> window_damage(const Damage& damage, Criterion by) {
  if (by == Criterion::kl) {
    return damage.window_kl;
  }
  std::vector<double> windows(by == Criterion::delta_nll ? damage.window_nll : damage.window_top1_agreement);
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i] = by == Criterion::delta_nll ? windows[i] - damage.window_nll_baseline.at(i) : 1 - windows[i];
  }
  return windows;
}

DamageSeries series_of(const std::vector<Damage>& damages, Criterion by) {
  DamageSeries series;
  for (const Damage& damage : damages) {
    series.values.push_back(damage_by(damage, by));
    series.at_most.push_back(damage_at_most(damage, by));
    series.windows.push_back(window_damage(damage, by));
  }
  const auto lacks_windows = [](const std::vector<double>& windows) { return windows.empty(); };
  if (std::any_of(series.windows.begin(), series.windows.end(), lacks_windows)) {
    series.windows.clear();  // trials of an earlier run, whose windows were not kept
  }
  return series;
}

}  // namespace

Threshold find_threshold(const SweepCurve& curve) {
  std::map<Criterion, DamageSeries> damage;
  const bool losses = std::any_of(curve.damages.begin(), curve.damages.end(),
                                  [](const Damage& each) { return !each.predicts_tokens(); });
  for (const Criterion by : {Criterion::delta_nll, Criterion::kl, Criterion::top1_agreement}) {
    if (losses && by != Criterion::delta_nll) {
      continue;
    }
    damage[by] = series_of(curve.damages, by);
  }
  return Threshold::of(curve.axis, curve.severities, damage);
}

}  // namespace hemostat
