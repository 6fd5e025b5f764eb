// Room `threshold`: points on a damage curve. The robust zone at a tolerance is the largest severity, seen from
// neutral, at which ΔNLL stays within it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/axis.h>
#include <hemostat/metrics.h>

namespace hemostat {

struct Zone {
  double tolerance = 0;                    // nats per token
  std::optional<double> severity;          // none: even the mildest measured severity exceeds it, where damage jumps
  std::optional<Interval> interval;        // 95 %, bootstrap over windows; none for plain arrays
  bool censored = false;                   // the tolerance is never exceeded: severity is the farthest measured
};

class Threshold {
 public:
  // distances from neutral ascending in 0 … 1 (neutral left out) with their ΔNLL; window_delta: [severities][windows].
  Threshold(Axis axis, std::vector<double> severities, std::vector<double> delta_nll,
            std::vector<std::vector<double>> window_delta, int64_t bootstrap_samples = 2000, int64_t seed = 0);

  std::optional<double> point;             // the phase transition; none while no transition is fitted
  std::optional<Interval> interval;        // of the point

  // Damage is made monotone (running maximum), then interpolated linearly in distance, from 0 at neutral where the axis
  // is continuous there. Integer axes step back to the last whole step within it. tolerance > 0.
  Zone zone(double tolerance) const;

 private:
  Axis axis_;
  std::vector<double> severities_, distances_, delta_;
  std::vector<std::vector<double>> window_delta_;
  int64_t bootstrap_samples_, seed_;
};

// On plain arrays (of a sweep's curve: scan.h). severities on one side of neutral; perplexities > 0, NaN or Inf: collapsed (beyond every
// tolerance). baseline: the unchanged model's perplexity; without it, the one at `neutral` among the severities, else
// the smallest listed stands in.
Threshold find_threshold(const std::vector<double>& severities, const std::vector<double>& perplexities,
                         std::optional<double> baseline = std::nullopt, double neutral = 0.0);

}  // namespace hemostat
