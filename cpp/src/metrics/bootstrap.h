// Intervals by resampling windows, and quantiles.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <hemostat/metrics.h>

namespace hemostat {

// Means of `samples` resamples with replacement. Every series [windows] is resampled with the same windows, so that the
// means of one sample belong together: → [samples][series]. The same for a seed on every platform.
std::vector<std::vector<double>> bootstrap_means(const std::vector<std::vector<double>>& series, int64_t samples,
                                                 int64_t seed);

// Of ascending values, at least one: linear between order statistics at q · (n − 1), as numpy's default.
double quantile(const std::vector<double>& sorted, double q);

// The middle 95 % of resampled values; of none, none. NaN where one is NaN.
std::optional<Interval> middle_95(std::vector<double> values);

// Of the resampled mean of one series [windows]. None where there are fewer than two windows.
std::optional<Interval> bootstrap_interval(const std::vector<double>& series, int64_t samples, int64_t seed);

}  // namespace hemostat
