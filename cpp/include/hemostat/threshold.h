// Room `threshold`: points on a damage curve. The robust zone at a tolerance is the largest severity, seen from
// neutral, at which ΔNLL stays within it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <hemostat/axis.h>
#include <hemostat/metrics.h>

namespace hemostat {

struct Zone {
  double tolerance = 0;  // nats per token
  // The edge of the zone. None: the mildest measured severity exceeds the tolerance on an axis where damage jumps at
  // neutral. Neutral itself: that severity has collapsed, so nothing beyond neutral is known to be safe.
  std::optional<double> severity;
  std::optional<Interval> interval;  // 95 %, bootstrap over windows, in order of severity; none for plain arrays
  bool censored = false;             // the tolerance is never exceeded: severity is the farthest measured
};

// A damage curve's points of interest.
class Threshold {
 public:
  // Points in any order; those at neutral are left out. ValueError where none is left, or sizes differ.
  //   delta_nll     nats per token; NaN or Inf: collapsed, i.e. beyond every tolerance
  //   window_delta  [severities][windows], the same of each window, for the interval; empty: no interval
  Threshold(Axis axis, std::vector<double> severities, std::vector<double> delta_nll,
            std::vector<std::vector<double>> window_delta = {}, int64_t bootstrap_samples = 2000, int64_t seed = 0);

  std::optional<double> point;       // the phase transition; none while no transition is fitted
  std::optional<Interval> interval;  // of the point

  // Damage is made monotone (running maximum), then interpolated linearly in distance, from 0 at neutral where the axis
  // is continuous there. Before a collapse the zone ends at the last severity that has not collapsed. Integer axes
  // and axes with a step go back to the last whole step within it, listed ones to the last entry measured. ValueError
  // unless tolerance > 0 and finite.
  Zone zone(double tolerance) const;

 private:
  Axis axis_;
  std::vector<double> severities_, delta_nll_;  // from mild to severe
  std::vector<std::vector<double>> resampled_;  // [bootstrap samples][severities]: ΔNLL
};

// On plain arrays (of a sweep's curve: scan.h).
//   severities    on one side of neutral, in any order
//   perplexities  > 0; NaN or Inf: collapsed
//   baseline      the unchanged model's perplexity; without it, the one at `neutral` among the severities, else the
//                 smallest listed stands in, which hides the damage that it has itself
// ValueError for sizes that differ, values out of range, or where no baseline is left.
Threshold find_threshold(const std::vector<double>& severities, const std::vector<double>& perplexities,
                         std::optional<double> baseline = std::nullopt, double neutral = 0.0);

}  // namespace hemostat
