#include <cmath>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/mitigate.h>
#include <hemostat/prune.h>

#include "metrics/bootstrap.h"
#include "prune/selection.h"

namespace hemostat::mitigate {
namespace {

constexpr const char* kPruning = "hemostat.mitigate.gradient_aware_pruning";

struct SpecAtSeverity {
  MethodSpec spec;
  double severity;
};

// The method at a fraction removed, or at n of every m kept.
SpecAtSeverity at_severity(const MethodSpec& method, const std::optional<double>& sparsity,
                           const std::optional<std::string>& pattern) {
  if (!pattern) {
    return {method, *sparsity};
  }
  const prune::Pattern parsed = prune::parse_pattern(*pattern);
  MethodSpec spec = method;
  spec.options["m"] = parsed.m;
  return {spec, static_cast<double>(parsed.n)};
}

Model untreated_model(const Model& model, const at::Tensor& calibration, const GradientAwarePruningOptions& options) {
  SpecAtSeverity chosen = at_severity(options.untreated, options.sparsity, options.pattern);
  chosen.spec.options["include"] = options.filter.include;
  chosen.spec.options["exclude"] = options.filter.exclude;
  const std::set<Need> needs = chosen.spec.needs();
  std::optional<Statistics> statistics;
  if (!needs.empty()) {
    statistics =
        collect(model, calibration, {.needs = needs, .memory_budget = options.memory_budget, .filter = options.filter});
  }
  return prepare(model, chosen.spec.method, statistics ? &*statistics : nullptr, chosen.spec.options)
      .at(chosen.severity);
}

}  // namespace

void judge(Treatment& treatment, Damage untreated, Damage treated, int64_t samples, int64_t seed) {
  if (untreated.window_nll.size() != treated.window_nll.size()) {
    throw ValueError(fmt::format("hemostat.mitigate: the untreated model was measured on {} windows, the treated on {}",
                                 untreated.window_nll.size(), treated.window_nll.size()));
  }
  const auto recovery = [](double before, double after) { return 1 - after / before; };
  treatment.recovery.reset();
  treatment.recovery_interval.reset();
  if (untreated.delta_nll > 0) {
    treatment.recovery = recovery(untreated.delta_nll, treated.delta_nll);
    if (untreated.window_nll.size() > 1) {
      std::vector<double> resampled;
      for (const std::vector<double>& means :
           bootstrap_means({untreated.window_nll_baseline, untreated.window_nll, treated.window_nll}, samples, seed)) {
        resampled.push_back(recovery(means[1] - means[0], means[2] - means[0]));
      }
      treatment.recovery_interval = middle_95(std::move(resampled));
    }
  }
  treatment.untreated = std::move(untreated);
  treatment.treated = std::move(treated);
}

Treatment gradient_aware_pruning(const Model& model, const at::Tensor& calibration,
                                 const GradientAwarePruningOptions& options) {
  prune::check_choice(kPruning, options.sparsity, options.pattern);
  if (options.pattern) {
    for (const NamedLinear& named : linears(model, options.filter)) {
      prune::pattern_for(kPruning, *options.pattern, {named.linear->out_features(), named.linear->in_features()},
                         named.name);
    }
  } else {
    check_range(kPruning, "sparsity", *options.sparsity, between(0, 1));
  }
  if (options.evaluation) {
    checked_tokens(model, *options.evaluation, kPruning);
    const SpecAtSeverity untreated = at_severity(options.untreated, options.sparsity, options.pattern);
    planned_axis(model, untreated.spec).checked(untreated.severity, untreated.spec.method);
  }
  const at::NoGradGuard no_grad;
  const GradientAwarePruning pruning(model, calibration, options.treatment, options.filter, options.memory_budget);
  GradientAwarePruning::Result pruned = pruning.at(options.sparsity, options.pattern, options.progress);
  Treatment treatment{.model = std::move(pruned.model),
                      .settings = {{"correct", pruned.settings.correct},
                                   {"correct_damp", pruned.settings.correct_damp},
                                   {"damp", pruned.settings.damp}},
                      .severities = std::move(pruned.sparsity)};
  if (options.evaluation) {
    const BaselineEvaluation baseline(model, *options.evaluation, {.memory_budget = options.memory_budget});
    judge(treatment, baseline.compare(untreated_model(model, calibration, options)), baseline.compare(treatment.model));
  }
  return treatment;
}

}  // namespace hemostat::mitigate
