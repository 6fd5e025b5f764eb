#include <hemostat/scan.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/bincount.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "scan/localize.h"
#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.scan";

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

// What is finished of a method when the scan starts.
struct Progress {
  std::map<double, Trial> trials;  // by severity
  bool localizable = false;        // as far as the method itself says
  std::optional<Localization> localization = std::nullopt;

  // Whether something has to be evaluated.
  bool remains(const PlannedMethod& planned) const {
    if (trials.size() < planned.severities.size()) {
      return true;
    }
    const auto delta_nll = [&](size_t i) { return trials.at(planned.severities[i]).damage.delta_nll; };
    return localizable && !localization && telling_severity(planned, delta_nll).has_value();
  }
};

Progress progress_of(const PlannedMethod& planned, const ScanOptions& options) {
  const std::string text = planned.method.text();
  Progress progress;
  for (const double severity : planned.severities) {
    if (std::optional<Trial> trial = options.known ? options.known(text, severity) : std::nullopt) {
      progress.trials.emplace(severity, *std::move(trial));
    }
  }
  progress.localizable =
      options.localize_windows > 0 && not_localizable(find_method(planned.method.method), planned.axis).empty();
  if (progress.localizable && options.known_localization) {
    progress.localization = options.known_localization(text);
  }
  return progress;
}

}  // namespace

ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options) {
  const std::vector<PlannedMethod> planned = plan(model, methods, options);
  if (options.localize_windows < 0) {
    throw ValueError(
        fmt::format("{}: localize_windows is {}, but takes 0 or more", kOperation, options.localize_windows));
  }
  const bool calibrated = calibration.defined() && calibration.numel() > 0;
  std::vector<Progress> begun;
  std::set<Need> needs;
  bool remains = false;
  int64_t trials = 0, trials_done = 0;
  for (const PlannedMethod& entry : planned) {
    begun.push_back(progress_of(entry, options));
    trials += static_cast<int64_t>(entry.severities.size());
    trials_done += static_cast<int64_t>(begun.back().trials.size());
    if (!begun.back().remains(entry)) {
      continue;
    }
    remains = true;
    const std::set<Need> own = entry.method.needs();
    if (!own.empty() && !calibrated) {
      throw ValueError(
          fmt::format("{}: {} needs calibration tokens, and there are none", kOperation, entry.method.method));
    }
    needs.insert(own.begin(), own.end());
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
      options.progress(stage, in_trials ? trials_done : done, in_trials ? trials : total);
    }
  };
  if (calibrated) {
    const at::Tensor tokens = checked_tokens(model, calibration, kOperation);
    if (!compare.unigram) {
      compare.unigram = at::bincount(tokens.reshape({-1}), /*weights=*/{}, /*minlength=*/model.embedding.size(0));
      compare.unigram_source = "calibration tokens";
    }
  }

  std::optional<BaselineEvaluation> baseline;
  if (remains || !options.baseline) {
    baseline.emplace(model, evaluation, compare);
  }
  ScanResult result;
  if (options.baseline) {
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
      options.progress(stage, trials_done, trials);
    }
  };
  report_trials();
  for (size_t i = 0; i < planned.size(); ++i) {
    const PlannedMethod& entry = planned[i];
    Progress& before = begun[i];
    const std::string text = entry.method.text();
    TrialsOptions running{.noise_floor = result.noise_floor};
    running.known = [&](double severity) -> std::optional<Trial> {
      if (const auto found = before.trials.find(severity); found != before.trials.end()) {
        return found->second;
      }
      std::optional<Trial> meanwhile = options.known ? options.known(text, severity) : std::nullopt;
      if (meanwhile) {
        ++trials_done;
        report_trials();
      }
      return meanwhile;
    };
    running.on_trial = [&](const Trial& trial) {
      ++trials_done;
      if (options.on_trial) {
        options.on_trial(trial);
      }
      report_trials();
    };
    Preparation preparation(model, entry.method, needs.empty() ? nullptr : &statistics);
    result.curves.push_back(
        run_trials(baseline ? &*baseline : nullptr, preparation, entry.axis, entry.severities, running));
    if (!before.localizable) {
      continue;
    }
    if (!before.localization && options.known_localization) {
      before.localization = options.known_localization(text);
    }
    const std::vector<Damage>& damages = result.curves.back().damages;
    const std::optional<double> severity =
        telling_severity(entry, [&](size_t index) { return damages[index].delta_nll; });
    if (!before.localization && severity) {
      const Model damaged = preparation.at(*severity);
      Localization localization;
      if (not_localizable(model, damaged).empty()) {
        localization = localize(model, damaged, evaluation.narrow(0, 0, localize_windows), localizing);
      }
      localization.method = text;
      localization.severity = *severity;
      if (options.on_localization) {
        options.on_localization(localization);
      }
      before.localization = std::move(localization);
    }
    if (before.localization && !before.localization->sites.empty()) {
      result.localizations.push_back(*std::move(before.localization));
    }
  }
  return result;
}

}  // namespace hemostat
