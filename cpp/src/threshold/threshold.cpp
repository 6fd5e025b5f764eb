#include <hemostat/threshold.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "metrics/bootstrap.h"
#include "threshold/edge.h"

namespace hemostat {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

}  // namespace

Threshold::Threshold(Axis axis, std::vector<double> severities, std::vector<double> delta_nll,
                     std::vector<std::vector<double>> window_delta, int64_t bootstrap_samples, int64_t seed)
    : axis_(std::move(axis)) {
  constexpr const char* kOperation = "hemostat.Threshold";
  if (delta_nll.size() != severities.size()) {
    throw ValueError(fmt::format("{}: delta_nll has {} entries, but there are {} severities", kOperation,
                                 delta_nll.size(), severities.size()));
  }
  if (!window_delta.empty() && window_delta.size() != severities.size()) {
    throw ValueError(fmt::format("{}: window_delta has {} rows, but there are {} severities", kOperation,
                                 window_delta.size(), severities.size()));
  }
  for (const auto& row : window_delta) {
    if (row.size() != window_delta.front().size()) {
      throw ValueError(fmt::format("{}: window_delta has rows of {} and {} windows", kOperation,
                                   window_delta.front().size(), row.size()));
    }
  }
  if (bootstrap_samples < 1) {
    throw ValueError(fmt::format("{}: bootstrap_samples is {}, but takes at least 1", kOperation, bootstrap_samples));
  }

  std::vector<size_t> order;
  for (size_t i = 0; i < severities.size(); ++i) {
    if (!std::isfinite(severities[i])) {
      throw ValueError(fmt::format("{}: severities has {}", kOperation, severities[i]));
    }
    if (severities[i] != axis_.neutral) {
      order.push_back(i);
    }
  }
  if (order.empty()) {
    throw ValueError(fmt::format("{}: severities has none but the neutral {}", kOperation, axis_.neutral));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return axis_.distance(severities[a]) < axis_.distance(severities[b]); });
  std::vector<std::vector<double>> windows;
  for (const size_t i : order) {
    severities_.push_back(severities[i]);
    delta_nll_.push_back(delta_nll[i]);
    if (!window_delta.empty()) {
      windows.push_back(std::move(window_delta[i]));
    }
  }
  if (!windows.empty() && !windows.front().empty()) {
    resampled_ = bootstrap_means(windows, bootstrap_samples, seed);
  }
}

Zone Threshold::zone(double tolerance) const {
  if (!(tolerance > 0) || std::isinf(tolerance)) {
    throw ValueError(
        fmt::format("hemostat.Threshold.zone: tolerance is {}, but takes more than 0 nats per token", tolerance));
  }
  const auto edge = [&](const std::vector<double>& delta_nll) {
    return zone_edge(axis_, severities_, delta_nll, tolerance,
                     axis_.continuous_at_neutral ? std::optional(0.0) : std::nullopt);
  };
  const Edge found = edge(delta_nll_);
  Zone zone{.tolerance = tolerance, .severity = found.severity, .interval = std::nullopt, .censored = found.censored};
  if (!found.severity || resampled_.empty()) {
    return zone;
  }
  std::vector<double> edges;
  edges.reserve(resampled_.size());
  for (const auto& sample : resampled_) {
    edges.push_back(edge(sample).severity.value_or(axis_.neutral));
  }
  std::sort(edges.begin(), edges.end());
  // Nearest rank: an edge between two steps of an axis would be none.
  const auto at_rank = [&](double q) {
    const auto rank = static_cast<size_t>(std::ceil(q * static_cast<double>(edges.size())));
    return edges[std::max<size_t>(rank, 1) - 1];
  };
  zone.interval = Interval{at_rank(0.025), at_rank(0.975)};
  return zone;
}

Threshold find_threshold(const std::vector<double>& severities, const std::vector<double>& perplexities,
                         std::optional<double> baseline, double neutral) {
  constexpr const char* kOperation = "hemostat.find_threshold";
  if (severities.empty()) {
    throw ValueError(fmt::format("{}: severities is empty", kOperation));
  }
  if (perplexities.size() != severities.size()) {
    throw ValueError(fmt::format("{}: perplexities has {} entries, but there are {} severities", kOperation,
                                 perplexities.size(), severities.size()));
  }
  if (!std::isfinite(neutral)) {
    throw ValueError(fmt::format("{}: neutral is {}, but takes a severity", kOperation, neutral));
  }
  const auto [least, most] = std::minmax_element(severities.begin(), severities.end());
  for (const double severity : severities) {
    if (!std::isfinite(severity)) {
      throw ValueError(fmt::format("{}: severities has {}", kOperation, severity));
    }
  }
  if (*least < neutral && *most > neutral) {
    throw ValueError(fmt::format("{}: severities {} and {} lie on both sides of the neutral {}", kOperation, *least,
                                 *most, neutral));
  }
  for (const double perplexity : perplexities) {
    if (perplexity <= 0) {
      throw ValueError(fmt::format("{}: perplexities has {}, but takes more than 0", kOperation, perplexity));
    }
  }

  if (!baseline) {
    double smallest = kInfinity;
    for (size_t i = 0; i < severities.size(); ++i) {
      if (severities[i] == neutral) {
        baseline = perplexities[i];
      } else if (perplexities[i] < smallest) {
        smallest = perplexities[i];
      }
    }
    baseline = baseline.value_or(smallest);
  }
  if (!(*baseline > 0) || std::isinf(*baseline)) {
    throw ValueError(
        fmt::format("{}: baseline is {}, but takes the unchanged model's perplexity", kOperation, *baseline));
  }

  Axis axis;
  axis.name = "severity";
  axis.neutral = neutral;
  axis.minimum = std::min(*least, neutral);
  axis.maximum = std::max(*most, neutral);
  axis.farthest = *least < neutral ? *least : *most;
  std::vector<double> delta_nll;
  for (const double perplexity : perplexities) {
    delta_nll.push_back(std::log(perplexity / *baseline));
  }
  return Threshold(std::move(axis), severities, std::move(delta_nll));
}

}  // namespace hemostat
