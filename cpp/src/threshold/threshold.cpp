#include <hemostat/threshold.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "metrics/bootstrap.h"
#include "threshold/edge.h"

namespace hemostat {
namespace {

constexpr const char* kThreshold = "hemostat.Threshold";

void check(const DamageSeries& series, size_t severities) {
  const auto check_size = [&](const char* name, size_t size) {
    if (size != severities) {
      throw ValueError(
          fmt::format("{}: {} has {} entries, but there are {} severities", kThreshold, name, size, severities));
    }
  };
  check_size("damage", series.values.size());
  if (!series.at_most.empty()) {
    check_size("at_most", series.at_most.size());
  }
  if (!series.windows.empty()) {
    check_size("windows", series.windows.size());
  }
  for (const auto& row : series.windows) {
    if (row.size() != series.windows.front().size()) {
      throw ValueError(fmt::format("{}: windows has rows of {} and {} entries", kThreshold,
                                   series.windows.front().size(), row.size()));
    }
  }
}

// All of them, or none where one is not known.
std::optional<std::vector<double>> known(const std::vector<std::optional<double>>& entries) {
  std::vector<double> result;
  for (const std::optional<double>& entry : entries) {
    if (!entry) {
      return std::nullopt;
    }
    result.push_back(*entry);
  }
  return result;
}

// Of each severity's resampled means; Inf where one is not finite.
std::vector<double> upper_ends(const std::vector<std::vector<double>>& resampled) {
  std::vector<double> ends;
  for (size_t i = 0; i < resampled.front().size(); ++i) {
    std::vector<double> means;
    for (const auto& sample : resampled) {
      means.push_back(sample[i]);
    }
    const bool collapsed = std::any_of(means.begin(), means.end(), [](double mean) { return !std::isfinite(mean); });
    if (collapsed) {
      ends.push_back(std::numeric_limits<double>::infinity());
      continue;
    }
    std::sort(means.begin(), means.end());
    ends.push_back(quantile(means, 0.975));
  }
  return ends;
}

}  // namespace

Threshold Threshold::of(Axis axis, const std::vector<double>& severities,
                        const std::map<Criterion, DamageSeries>& damage, int64_t bootstrap_samples, int64_t seed) {
  Threshold threshold;
  threshold.axis_ = std::move(axis);
  const double neutral = threshold.axis_.neutral;
  for (const auto& [by, series] : damage) {
    check(series, severities.size());
  }
  if (bootstrap_samples < 1) {
    throw ValueError(fmt::format("{}: bootstrap_samples is {}, but takes at least 1", kThreshold, bootstrap_samples));
  }
  std::vector<size_t> order;
  for (size_t i = 0; i < severities.size(); ++i) {
    if (!std::isfinite(severities[i])) {
      throw ValueError(fmt::format("{}: severities has {}", kThreshold, severities[i]));
    }
    if (severities[i] != neutral) {
      order.push_back(i);
    }
  }
  if (order.empty()) {
    throw ValueError(fmt::format("{}: severities has none but the neutral {}", kThreshold, neutral));
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return threshold.axis_.distance(severities[a]) < threshold.axis_.distance(severities[b]);
  });
  const auto ordered = [&](const auto& entries) {
    std::decay_t<decltype(entries)> result;
    for (const size_t i : order) {
      result.push_back(entries[i]);
    }
    return result;
  };
  threshold.severities_ = ordered(severities);
  for (const auto& [by, series] : damage) {
    Measured& measured = threshold.measured_[by];
    measured.values = ordered(series.values);
    const bool resampled = !series.windows.empty() && series.windows.front().size() > 1;
    if (resampled) {
      measured.resampled = bootstrap_means(ordered(series.windows), bootstrap_samples, seed);
    }
    if (!series.at_most.empty()) {
      measured.at_most = known(ordered(series.at_most));
    } else if (resampled) {
      measured.at_most = upper_ends(measured.resampled);
    } else if (series.windows.empty()) {
      measured.at_most = measured.values;
    }
  }
  return threshold;
}

Threshold::Threshold(Axis axis, const std::vector<double>& severities, std::vector<double> delta_nll,
                     std::vector<std::vector<double>> window_delta, int64_t bootstrap_samples, int64_t seed)
    : Threshold(of(std::move(axis), severities,
                   {{Criterion::delta_nll, {.values = std::move(delta_nll), .windows = std::move(window_delta)}}},
                   bootstrap_samples, seed)) {}

Zone Threshold::zone(double tolerance, Criterion by) const {
  check_tolerance(tolerance, "hemostat.Threshold.zone");
  const auto found = measured_.find(by);
  if (found == measured_.end()) {
    throw ValueError(
        fmt::format("hemostat.Threshold.zone: by is {}, but this threshold is of {}; plain perplexities have no more",
                    word(by), word(measured_.begin()->first)));
  }
  const Measured& measured = found->second;
  const auto edge = [&](const std::vector<double>& damage) {
    return zone_edge(axis_, severities_, damage, tolerance,
                     axis_.continuous_at_neutral ? std::optional(0.0) : std::nullopt);
  };
  Zone zone{.tolerance = tolerance, .by = by};
  const Edge estimate = edge(measured.values);
  zone.edge = estimate.severity;
  zone.edge_censored = estimate.censored;
  if (measured.at_most) {
    const Edge shown = edge(*measured.at_most);
    zone.severity = shown.severity;
    zone.censored = shown.censored;
  }
  if (!zone.edge || measured.resampled.empty()) {
    return zone;
  }
  std::vector<double> edges;
  edges.reserve(measured.resampled.size());
  for (const auto& sample : measured.resampled) {
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
    double smallest = std::numeric_limits<double>::infinity();
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
