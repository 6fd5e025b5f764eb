// Room `threshold`: whether damage is safe at a tolerance, and points on a damage curve. A severity is safe where the
// whole 95 % interval of its damage lies within the tolerance; the robust zone reaches, seen from neutral, to where
// that interval's upper end meets it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include <hemostat/axis.h>
#include <hemostat/metrics.h>

namespace hemostat {

// What a tolerance is about. Each is 0 for the unchanged model and grows with damage.
enum class Criterion {
  delta_nll,       // ΔNLL, nats per token
  kl,              // mean KL(baseline ‖ damaged), nats per token
  top1_agreement,  // share of the tokens whose most probable prediction changed: 1 − agreement
};

// unsafe: the interval's lower end is above the tolerance, or damage is not finite; safe: its upper end is within it;
// undecided: neither, or there is no interval.
enum class Verdict { safe, unsafe, undecided };

// "delta_nll", "kl", "top1_agreement"; "safe", "unsafe", "undecided".
const char* word(Criterion by);
const char* word(Verdict verdict);

// Damage by a criterion; NaN or Inf: the model has collapsed.
double damage_by(const Damage& damage, Criterion by);

// Its 95 % interval, bootstrap over windows. None with one window, and of damage from a version that did not measure
// it.
std::optional<Interval> damage_interval(const Damage& damage, Criterion by);

// How much damage there may be: the upper end of the interval, Inf where the model has collapsed. None where there is
// no interval, and where the baseline is itself no better than the unigram (no `index`), so that nothing is known to be
// safe.
std::optional<double> damage_at_most(const Damage& damage, Criterion by);

// ValueError unless tolerance > 0 and finite.
Verdict judge(const Damage& damage, double tolerance, Criterion by = Criterion::delta_nll);

// 95 % interval of the first's ΔNLL minus the second's, measured on the same windows: paired bootstrap over them. None
// where windows are not kept or there is one; ValueError where their numbers differ.
std::optional<Interval> difference_interval(const Damage& first, const Damage& second, int64_t bootstrap_samples = 2000,
                                            int64_t seed = 0);

// One measure of damage along a curve.
struct DamageSeries {
  std::vector<double> values;  // NaN or Inf: collapsed, i.e. beyond every tolerance
  // The most that each may be; none: not known. Empty: from the windows, else the values themselves.
  std::vector<std::optional<double>> at_most = {};
  std::vector<std::vector<double>> windows = {};  // [severities][windows], for the edge's interval; empty: none
};

// How far one can go at a tolerance.
struct Zone {
  double tolerance = 0;  // nats per token, or a share of tokens
  Criterion by = Criterion::delta_nll;
  // How far safety is shown: where the interpolated upper end of damage's interval meets the tolerance. None: the
  // mildest measured severity is not safe on an axis where damage jumps at neutral, or there is no interval, or the
  // baseline is no better than the unigram. Neutral itself: nothing beyond neutral is known to be safe.
  std::optional<double> severity = std::nullopt;
  bool censored = false;  // every measured severity is safe: severity is the farthest
  // The estimate: where damage itself meets the tolerance. None as above, for the same reason but the interval's.
  std::optional<double> edge = std::nullopt;
  std::optional<Interval> interval = std::nullopt;  // of the edge: 95 %, bootstrap over windows, in order of severity
  bool edge_censored = false;  // the tolerance is never exceeded: the edge is the farthest measured
};

// A damage curve's points of interest.
class Threshold {
 public:
  // ΔNLL alone. Points in any order; those at neutral are left out. ValueError where none is left, or sizes differ.
  //   delta_nll     nats per token; NaN or Inf: collapsed
  //   window_delta  [severities][windows], the same of each window; empty: the values are taken as known
  Threshold(Axis axis, const std::vector<double>& severities, std::vector<double> delta_nll,
            std::vector<std::vector<double>> window_delta = {}, int64_t bootstrap_samples = 2000, int64_t seed = 0);

  // By several criteria, likewise; each series has an entry a severity.
  static Threshold of(Axis axis, const std::vector<double>& severities, const std::map<Criterion, DamageSeries>& damage,
                      int64_t bootstrap_samples = 2000, int64_t seed = 0);

  std::optional<double> point;       // the phase transition; none while no transition is fitted
  std::optional<Interval> interval;  // of the point

  // Damage is made monotone (running maximum), then interpolated linearly in distance, from 0 at neutral where the axis
  // is continuous there. Before a collapse the zone ends at the last severity that has not collapsed. Integer axes
  // and axes with a step go back to the last whole step within it, listed ones to the last entry measured. ValueError
  // unless tolerance > 0 and finite, or for a criterion without a series.
  Zone zone(double tolerance, Criterion by = Criterion::delta_nll) const;

 private:
  struct Measured {
    std::vector<double> values;                  // from mild to severe
    std::optional<std::vector<double>> at_most;  // likewise; none: not known of each
    std::vector<std::vector<double>> resampled;  // [bootstrap samples][severities]
  };
  Threshold() = default;
  Axis axis_;
  std::vector<double> severities_;  // from mild to severe
  std::map<Criterion, Measured> measured_;
};

// On plain arrays (of a sweep's curve: scan.h), where zone and edge are one.
//   severities    on one side of neutral, in any order
//   perplexities  > 0; NaN or Inf: collapsed
//   baseline      the unchanged model's perplexity; without it, the one at `neutral` among the severities, else the
//                 smallest listed stands in, which hides the damage that it has itself
// ValueError for sizes that differ, values out of range, or where no baseline is left.
Threshold find_threshold(const std::vector<double>& severities, const std::vector<double>& perplexities,
                         std::optional<double> baseline = std::nullopt, double neutral = 0.0);

}  // namespace hemostat
