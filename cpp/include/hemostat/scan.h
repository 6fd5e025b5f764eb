// Room `scan`: one method over its severities (sweep), and methods × severities (scan).
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/methods.h>
#include <hemostat/metrics.h>
#include <hemostat/threshold.h>

namespace hemostat {

// A trial is identified by (method, options, severity, seed); `method` is MethodSpec::text().
struct Trial {
  std::string method;
  double severity = 0;
  Damage damage;
  double seconds = 0;                      // of at(severity) and its evaluation
};

// The damage that numerics alone do: a float32 model against itself in bfloat16, half types against float32.
struct NoiseFloor {
  std::string against;                     // the other compute type
  double delta_nll = 0, kl = 0;            // |ΔNLL| and mean KL, nats per token
  double top1_agreement = 1;
};

struct SweepCurve {
  std::string method;                      // canonical spec
  Axis axis;
  std::vector<double> severities;          // from mild to severe
  std::vector<Damage> damages;
  NoiseFloor noise_floor;
  double seconds_prepare = 0;
  std::vector<double> seconds;             // each trial's
};

NoiseFloor measure_noise_floor(const BaselineEvaluation& baseline);

struct SweepOptions {
  std::optional<std::vector<double>> severities;  // none: the axis's default grid
  CompareOptions compare;
  std::function<void(const Trial&)> on_trial;     // after each; may throw Interrupted
  std::optional<NoiseFloor> noise_floor;          // known already
};

// Prepares once, then at(severity) and compare for each. A trial within the noise floor is marked as no damage.
SweepCurve sweep(const BaselineEvaluation& baseline, const MethodSpec& method, const Statistics* statistics,
                 const SweepOptions& options = {});
SweepCurve sweep(const Model& model, const MethodSpec& method, const at::Tensor& tokens,
                 const Statistics* statistics = nullptr, const SweepOptions& options = {});

// The threshold of a curve, with intervals from its windows. Neutral among its severities is left out.
Threshold find_threshold(const SweepCurve& curve);

struct ScanOptions {
  std::map<std::string, std::vector<double>> severities;  // by method spec as given; others take the default grid
  std::optional<int64_t> points;           // at most so many severities a method, spread over its grid
  CompareOptions compare;
  double memory_budget = 1024.0 * 1024 * 1024;
  std::vector<Trial> known;                // finished before: not run again
  std::function<void(const Trial&)> on_trial;
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress;
};

struct ScanResult {
  Damage baseline;                         // the baseline against itself: its perplexity
  NoiseFloor noise_floor;
  std::vector<SweepCurve> curves;
};

// The severities a scan gives each method, in order: the plan.
struct PlannedMethod {
  MethodSpec method;
  std::vector<double> severities;
};
std::vector<PlannedMethod> plan(const Model& model, const std::vector<MethodSpec>& methods,
                                const ScanOptions& options = {});

// methods × severities; statistics are collected from `calibration` [windows, length] once, for all of them.
ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options = {});

}  // namespace hemostat
