#include <hemostat/scan.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ops/bincount.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "scan/trials.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.scan";

// What the trials that are still to run need.
std::vector<std::string> methods_to_prepare(const std::vector<PlannedMethod>& planned,
                                            const std::vector<Trial>& known) {
  std::vector<std::string> names;
  for (const auto& [method, severities] : planned) {
    if (std::any_of(severities.begin(), severities.end(), [&, text = method.text()](double severity) {
          return find_trial(known, text, severity) == nullptr;
        })) {
      names.push_back(method.method);
    }
  }
  return names;
}

}  // namespace

ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options) {
  const std::vector<PlannedMethod> planned = plan(model, methods, options);
  const bool calibrated = calibration.defined() && calibration.numel() > 0;
  std::set<Need> needs;
  for (const std::string& method : methods_to_prepare(planned, options.known)) {
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
    result.curves.push_back(run_trials(baseline, method, planned_axis(model, method), severities,
                                       needs.empty() ? nullptr : &statistics, running));
  }
  return result;
}

}  // namespace hemostat
