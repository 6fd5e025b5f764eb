#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/threshold.h>

#include "metrics/bootstrap.h"
#include "threshold/edge.h"

namespace hemostat {
namespace {

bool has_collapsed(const Damage& damage, Criterion by) {
  if (by != Criterion::delta_nll && !damage.predicts_tokens()) {
    throw ValueError(fmt::format("hemostat.judge: there is no {} where a module's loss is measured", word(by)));
  }
  return !std::isfinite(damage.delta_nll) || !std::isfinite(damage_by(damage, by));
}

}  // namespace

const char* word(Criterion by) {
  switch (by) {
    case Criterion::kl:
      return "kl";
    case Criterion::top1_agreement:
      return "top1_agreement";
    case Criterion::delta_nll:
      break;
  }
  return "delta_nll";
}

const char* word(Verdict verdict) {
  switch (verdict) {
    case Verdict::safe:
      return "safe";
    case Verdict::unsafe:
      return "unsafe";
    case Verdict::undecided:
      break;
  }
  return "undecided";
}

double damage_by(const Damage& damage, Criterion by) {
  switch (by) {
    case Criterion::kl:
      return damage.kl.mean;
    case Criterion::top1_agreement:
      return damage.volume();
    case Criterion::delta_nll:
      break;
  }
  return damage.delta_nll;
}

std::optional<Interval> damage_interval(const Damage& damage, Criterion by) {
  switch (by) {
    case Criterion::kl:
      return damage.kl.mean_interval;
    case Criterion::top1_agreement: {
      const std::optional<Interval>& agreement = damage.top1_agreement_interval;
      return agreement ? std::optional(Interval{1 - agreement->high, 1 - agreement->low}) : std::nullopt;
    }
    case Criterion::delta_nll:
      break;
  }
  return damage.delta_nll_interval;
}

std::optional<double> damage_at_most(const Damage& damage, Criterion by) {
  if (has_collapsed(damage, by)) {
    return std::numeric_limits<double>::infinity();
  }
  const std::optional<Interval> bounds = damage_interval(damage, by);
  return bounds && !damage.no_better_than_unigram() ? std::optional(bounds->high) : std::nullopt;
}

Verdict judge(const Damage& damage, double tolerance, Criterion by) {
  check_tolerance(tolerance, "hemostat.judge");
  if (has_collapsed(damage, by)) {
    return Verdict::unsafe;
  }
  if (const std::optional<Interval> bounds = damage_interval(damage, by); bounds && bounds->low > tolerance) {
    return Verdict::unsafe;
  }
  const std::optional<double> most = damage_at_most(damage, by);
  return most && *most <= tolerance ? Verdict::safe : Verdict::undecided;
}

std::optional<Interval> difference_interval(const Damage& first, const Damage& second, int64_t bootstrap_samples,
                                            int64_t seed) {
  const auto deltas = [](const Damage& damage) {
    std::vector<double> windows(damage.window_nll);
    for (size_t i = 0; i < windows.size(); ++i) {
      windows[i] -= damage.window_nll_baseline.at(i);
    }
    return windows;
  };
  std::vector<double> differences = deltas(first);
  const std::vector<double> others = deltas(second);
  if (differences.empty() || others.empty()) {
    return std::nullopt;
  }
  if (differences.size() != others.size()) {
    throw ValueError(fmt::format("hemostat.difference_interval: first has {} windows, but second has {}",
                                 differences.size(), others.size()));
  }
  if (differences.size() < 2) {
    return std::nullopt;
  }
  for (size_t i = 0; i < differences.size(); ++i) {
    differences[i] -= others[i];
  }
  return bootstrap_interval(differences, bootstrap_samples, seed);
}

}  // namespace hemostat
