#include <hemostat/scan.h>

#include <algorithm>
#include <cmath>
#include <optional>
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

const Localization* find_localization(const std::vector<Localization>& known, const std::string& method) {
  const auto found =
      std::find_if(known.begin(), known.end(), [&](const Localization& entry) { return entry.method == method; });
  return found == known.end() ? nullptr : &*found;
}

bool is_localized(const Model& model, const MethodSpec& method, const ScanOptions& options) {
  return options.localize_windows > 0 &&
         not_localizable(find_method(method.method), planned_axis(model, method)).empty();
}

// What is still to be run needs.
std::vector<std::string> methods_to_prepare(const Model& model, const std::vector<PlannedMethod>& planned,
                                            const ScanOptions& options) {
  std::vector<std::string> names;
  for (const auto& [method, severities] : planned) {
    const std::string text = method.text();
    const bool trials = std::any_of(severities.begin(), severities.end(), [&](double severity) {
      return find_trial(options.known, text, severity) == nullptr;
    });
    if (trials ||
        (is_localized(model, method, options) && find_localization(options.known_localizations, text) == nullptr)) {
      names.push_back(method.method);
    }
  }
  return names;
}

// The mildest severity of those that have not collapsed whose damage tells more than noise, else the farthest.
std::optional<double> telling_severity(const SweepCurve& curve) {
  std::optional<double> chosen;
  for (size_t i = 0; i < curve.severities.size(); ++i) {
    const double damage = curve.damages[i].delta_nll;
    if (curve.severities[i] == curve.axis.neutral || !std::isfinite(damage)) {
      continue;
    }
    chosen = curve.severities[i];
    if (damage > kTellingDamage) {
      break;
    }
  }
  return chosen;
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
  std::set<Need> needs;
  for (const std::string& method : methods_to_prepare(model, planned, options)) {
    const std::set<Need> own = find_method(method).needs;
    if (!own.empty() && !calibrated) {
      throw ValueError(fmt::format("{}: {} needs calibration tokens, and there are none", kOperation, method));
    }
    needs.insert(own.begin(), own.end());
  }

  std::string stage = "baseline";
  int64_t trials_done = 0;
  int64_t trials = 0;
  for (const auto& entry : planned) {
    trials += static_cast<int64_t>(entry.severities.size());
  }
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

  const BaselineEvaluation baseline(model, evaluation, compare);
  ScanResult result;
  result.baseline = baseline.unchanged();
  stage = "noise floor";
  result.noise_floor = measure_noise_floor(baseline);

  Statistics statistics;
  if (!needs.empty()) {
    CollectOptions collecting;
    collecting.needs = needs;
    collecting.memory_budget = std::max(0.0, options.memory_budget - baseline.bytes());
    collecting.progress = [&](int64_t done, int64_t total) {
      if (options.progress) {
        options.progress("statistics", done, total);
      }
    };
    statistics = collect(model, calibration, collecting);
  }

  LocalizeOptions localizing{.compare = compare};
  localizing.compare.byte_count.reset();  // of all windows
  localizing.compare.memory_budget = std::max(0.0, options.memory_budget - baseline.bytes());
  localizing.compare.progress = [&](int64_t done, int64_t total) {
    if (options.progress) {
      options.progress("localize", done, total);
    }
  };
  const int64_t localize_windows = std::min(options.localize_windows, evaluation.size(0));

  stage = "trials";
  for (const auto& [method, severities] : planned) {
    TrialsOptions running{.noise_floor = result.noise_floor, .known = options.known, .on_trial = {}};
    running.on_trial = [&](const Trial& trial) {
      ++trials_done;
      if (options.on_trial) {
        options.on_trial(trial);
      }
      if (options.progress) {
        options.progress(stage, trials_done, trials);
      }
    };
    trials_done += std::count_if(severities.begin(), severities.end(), [&, text = method.text()](double severity) {
      return find_trial(options.known, text, severity) != nullptr;
    });
    Preparation preparation(model, method, needs.empty() ? nullptr : &statistics);
    result.curves.push_back(run_trials(baseline, preparation, planned_axis(model, method), severities, running));
    if (!is_localized(model, method, options)) {
      continue;
    }
    if (const Localization* known = find_localization(options.known_localizations, method.text())) {
      result.localizations.push_back(*known);
    } else if (const std::optional<double> severity = telling_severity(result.curves.back())) {
      const Model damaged = preparation.at(*severity);
      if (!not_localizable(model, damaged).empty()) {
        continue;
      }
      Localization localization = localize(model, damaged, evaluation.narrow(0, 0, localize_windows), localizing);
      localization.method = method.text();
      localization.severity = *severity;
      if (options.on_localization) {
        options.on_localization(localization);
      }
      result.localizations.push_back(std::move(localization));
    }
  }
  return result;
}

}  // namespace hemostat
