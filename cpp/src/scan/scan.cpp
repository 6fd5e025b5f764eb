#include <hemostat/scan.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/bincount.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "scan/finished_trials.h"
#include "scan/localize.h"
#include "scan/surface.h"
#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kScan = "hemostat.scan";

constexpr double kTellingDamage = 0.1;  // nats per token: the widest tolerance that zones are reported at

// The mildest severity of those that have not collapsed whose damage tells more than noise, else the farthest.
std::optional<double> telling_severity(const PlannedMethod& planned,
                                       const std::function<double(size_t index)>& delta_nll) {
  std::optional<double> chosen;
  for (size_t i = 0; i < planned.severities.size(); ++i) {
    const double damage = delta_nll(i);
    if (planned.severities[i] == planned.axis.neutral || !std::isfinite(damage)) {
      continue;
    }
    chosen = planned.severities[i];
    if (damage > kTellingDamage) {
      break;
    }
  }
  return chosen;
}

// As far as the method itself says.
bool is_localized(const PlannedMethod& planned, const ScanOptions& options) {
  return options.localize_windows > 0 && not_localizable(find_method(planned.method.method), planned.axis).empty();
}

std::optional<Localization> known_localization(const PlannedMethod& planned, double severity,
                                               const ScanOptions& options) {
  return options.known_localization ? options.known_localization(planned.method.text(), severity) : std::nullopt;
}

// Whether something of the method has to be evaluated.
bool remains(const PlannedMethod& planned, const FinishedTrials& trials, const ScanOptions& options) {
  const auto trial = [&](size_t i) { return trials.find({planned.method.text(), planned.severities[i]}); };
  for (size_t i = 0; i < planned.severities.size(); ++i) {
    if (!trial(i)) {
      return true;
    }
  }
  const std::optional<double> severity =
      telling_severity(planned, [&](size_t i) { return trial(i)->damage.delta_nll; });
  return is_localized(planned, options) && severity && !known_localization(planned, *severity, options);
}

// The trials of a pair's grid.
std::vector<TrialName> trials_of(const PlannedSurface& planned) {
  std::vector<TrialName> names;
  for (size_t i = 0; i < planned.methods[0].severities.size(); ++i) {
    for (size_t j = 0; j < planned.methods[1].severities.size(); ++j) {
      if (std::optional<TrialName> name = planned.trial(i, j)) {
        names.push_back(*std::move(name));
      }
    }
  }
  return names;
}

}  // namespace

ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options) {
  const std::vector<PlannedMethod> planned = plan(model, methods, options);
  if (options.localize_windows < 0) {
    throw ValueError(fmt::format("{}: localize_windows is {}, but takes 0 or more", kScan, options.localize_windows));
  }
  const std::vector<PlannedSurface> joint = plan_joint(model, options);
  const bool calibrated = calibration.defined() && calibration.numel() > 0;
  FinishedTrials trials(options.known);
  std::set<Need> needs;
  bool any_remains = false;
  const auto need = [&](const PlannedMethod& entry) {
    const bool propagated = options.propagate && find_method(entry.method.method).on_linears();
    const std::set<Need> own = needs_of({entry.method.text()}, options.propagate);
    if ((propagated || !own.empty()) && !calibrated) {
      throw ValueError(fmt::format("{}: {} needs calibration tokens, and there are none", kScan, entry.method.method));
    }
    needs.insert(own.begin(), own.end());
    any_remains = true;
  };
  for (const PlannedMethod& entry : planned) {
    for (const double severity : entry.severities) {
      trials.plan({entry.method.text(), severity});
    }
    if (remains(entry, trials, options)) {
      need(entry);
    }
  }
  for (const PlannedSurface& entry : joint) {
    const std::vector<TrialName> names = trials_of(entry);
    std::for_each(names.begin(), names.end(), [&](const TrialName& name) { trials.plan(name); });
    if (std::any_of(names.begin(), names.end(), [&](const TrialName& name) { return !trials.find(name); })) {
      std::for_each(entry.methods.begin(), entry.methods.end(), need);
    }
  }

  std::string stage = "baseline";
  CompareOptions compare = options.compare;
  compare.memory_budget = std::min(compare.memory_budget, options.memory_budget);
  compare.progress = [&](int64_t done, int64_t total) {
    if (options.compare.progress) {
      options.compare.progress(done, total);
    }
    if (options.progress) {
      const bool in_trials = stage == "trials";
      options.progress(stage, in_trials ? trials.done() : done, in_trials ? trials.total() : total);
    }
  };
  if (calibrated) {
    const at::Tensor tokens = checked_tokens(model, calibration, kScan);
    if (!compare.unigram && !model.foreign.has_loss()) {
      compare.unigram = at::bincount(tokens.reshape({-1}), /*weights=*/{}, /*minlength=*/model.config.vocab_size);
      compare.unigram_source = "calibration tokens";
    }
  }

  // A baseline that an earlier version kept though it was not finite is evaluated again, which says why it is not.
  const bool judged = options.baseline && std::isfinite(options.baseline->damage.nll);
  std::optional<BaselineEvaluation> baseline;
  if (any_remains || !judged) {
    baseline.emplace(model, evaluation, compare);
  }
  ScanResult result;
  if (judged) {
    result.baseline = options.baseline->damage;
    result.noise_floor = options.baseline->noise_floor;
  } else {
    result.baseline = baseline->unchanged();
    stage = "noise floor";
    result.noise_floor = measure_noise_floor(*baseline);
    if (options.on_baseline) {
      options.on_baseline({result.baseline, result.noise_floor});
    }
  }
  const double left = std::max(0.0, options.memory_budget - (baseline ? baseline->bytes() : 0));

  Statistics statistics;
  if (!needs.empty()) {
    CollectOptions collecting;
    collecting.needs = needs;
    collecting.memory_budget = left;
    collecting.progress = [&](int64_t done, int64_t total) {
      if (options.progress) {
        options.progress("statistics", done, total);
      }
    };
    statistics = collect(model, calibration, collecting);
  }

  LocalizeOptions localizing{.compare = compare};
  localizing.compare.byte_count.reset();  // of all windows
  localizing.compare.memory_budget = left;
  localizing.compare.progress = [&](int64_t done, int64_t total) {
    if (options.progress) {
      options.progress("localize", done, total);
    }
  };
  const int64_t localize_windows = std::min(options.localize_windows, evaluation.size(0));

  stage = "trials";
  const auto report_trials = [&] {
    if (options.progress) {
      options.progress(stage, trials.done(), trials.total());
    }
  };
  report_trials();
  TrialsOptions running{.noise_floor = result.noise_floor};
  running.known = [&](const TrialName& name) -> std::optional<Trial> {
    const int64_t before = trials.done();
    std::optional<Trial> trial = trials.ask(name);
    if (trials.done() > before) {
      report_trials();
    }
    return trial;
  };
  running.on_trial = [&](const Trial& trial) {
    trials.add(trial);
    if (options.on_trial) {
      options.on_trial(trial);
    }
    report_trials();
  };
  const Propagation propagation{
      .tokens = calibration, .correct = options.correct, .correct_damp = options.correct_damp, .memory_budget = left};
  running.propagation = options.propagate ? &propagation : nullptr;
  const BaselineEvaluation* evaluated = baseline ? &*baseline : nullptr;
  const Statistics* collected = needs.empty() ? nullptr : &statistics;
  for (const PlannedMethod& entry : planned) {
    Preparation preparation(model, entry.method, collected, running.propagation);
    result.curves.push_back(run_trials(evaluated, preparation, entry.axis, entry.severities, running));
    const std::vector<Damage>& damages = result.curves.back().damages;
    const std::optional<double> severity =
        telling_severity(entry, [&](size_t index) { return damages[index].delta_nll; });
    if (!is_localized(entry, options) || !severity) {
      continue;
    }
    std::optional<Localization> found = known_localization(entry, *severity, options);
    if (!found) {
      const Model damaged = preparation.at(*severity);
      Localization localization;
      if (not_localizable(model, damaged).empty()) {
        localization = localize(model, damaged, evaluation.narrow(0, 0, localize_windows), localizing);
      }
      localization.method = entry.method.text();
      localization.severity = *severity;
      if (options.on_localization) {
        options.on_localization(localization);
      }
      found = std::move(localization);
    }
    if (!found->sites.empty()) {
      result.localizations.push_back(*std::move(found));
    }
  }
  for (const PlannedSurface& entry : joint) {
    result.surfaces.push_back(run_surface(evaluated, result.baseline, model, entry, collected, running));
  }
  return result;
}

}  // namespace hemostat
