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

// A trial is identified by (method, options, severity); `method` is MethodSpec::text(), which holds the options, a seed
// among them.
struct Trial {
  std::string method;
  double severity = 0;
  Damage damage;
  double seconds = 0;  // of at(severity) and its evaluation
};

// The damage that numerics alone do: a float32 model against itself in bfloat16, half types against float32.
struct NoiseFloor {
  std::string against;   // the other compute type: "bfloat16", "float32"
  double delta_nll = 0;  // the farther end of |ΔNLL|'s 95 % interval, since a mean of rounding errors
                         // can come near 0 by chance; nats per token
  double kl = 0;         // mean KL, nats per token
  double top1_agreement = 1;

  // Whether damage is no more than that: neither |ΔNLL| nor mean KL exceeds it. False for NaN.
  bool covers(const Damage& damage) const;
};

NoiseFloor measure_noise_floor(const BaselineEvaluation& baseline);

// Damage as a function of severity; entries belong together, from mild to severe.
struct SweepCurve {
  std::string method;  // canonical spec
  Axis axis;
  std::vector<double> severities;
  std::vector<Damage> damages;  // within_noise_floor is set
  NoiseFloor noise_floor;
  double seconds_prepare = 0;
  std::vector<double> seconds;  // each trial's
};

struct SweepOptions {
  // In any order, repeats once. None: the axis's default grid.
  std::optional<std::vector<double>> severities = std::nullopt;
  CompareOptions compare = {};                           // where the baseline is not evaluated yet
  std::function<void(const Trial&)> on_trial = nullptr;  // after each; may throw Interrupted
  std::optional<NoiseFloor> noise_floor = std::nullopt;  // known already; none: measured
};

// Prepares once, then at(severity) and compare for each. Nothing else takes time but the noise floor's one comparison.
// Methods whose axis is measured by generation are measured by it too (CompareOptions::generation says how).
// ValueError, before any work, for an unknown method or option, a severity out of range, or statistics that are
// missing.
SweepCurve sweep(const BaselineEvaluation& baseline, const MethodSpec& method, const Statistics* statistics = nullptr,
                 const SweepOptions& options = {});
SweepCurve sweep(const Model& model, const MethodSpec& method, const at::Tensor& tokens,
                 const Statistics* statistics = nullptr, const SweepOptions& options = {});

// The threshold of a curve, with intervals where all of its damages have their windows. Neutral among its severities is
// left out.
Threshold find_threshold(const SweepCurve& curve);

struct ScanOptions {
  std::map<std::string, std::vector<double>> severities = {};  // by method spec; other methods take their default grid
  std::optional<int64_t> points = std::nullopt;          // at most so many severities of a default grid, spread over it
  CompareOptions compare = {};                           // without unigram counts: those of the calibration tokens
  double memory_budget = 1024.0 * 1024 * 1024;           // bytes for the baseline's logits and the statistics together
  std::vector<Trial> known = {};                         // finished before: taken as they are, not run again
  std::function<void(const Trial&)> on_trial = nullptr;  // after each one that was run; may throw Interrupted
  // `stage` is "baseline", "noise floor" or "statistics" (counting windows), then "trials" (of all methods); called
  // after every batch of windows, so counts may repeat. May throw Interrupted.
  std::function<void(const std::string& stage, int64_t done, int64_t total)> progress = nullptr;
};

struct ScanResult {
  Damage baseline;  // the baseline against itself: its perplexity
  NoiseFloor noise_floor;
  std::vector<SweepCurve> curves;  // in the methods' order
};

// The severities a scan gives each method, in order: the plan. Prepares nothing. ValueError as in sweep, and for a
// method that is listed twice or severities of one that is not listed.
struct PlannedMethod {
  MethodSpec method;
  std::vector<double> severities;
};
std::vector<PlannedMethod> plan(const Model& model, const std::vector<MethodSpec>& methods,
                                const ScanOptions& options = {});

// methods × severities; statistics are collected from `calibration` [windows, length] once, for all of them, and one
// method's preparation is released before the next. `calibration` may be undefined or empty where no method needs
// statistics; else ValueError, before any work.
ScanResult scan(const Model& model, const at::Tensor& evaluation, const at::Tensor& calibration,
                const std::vector<MethodSpec>& methods, const ScanOptions& options = {});

}  // namespace hemostat
