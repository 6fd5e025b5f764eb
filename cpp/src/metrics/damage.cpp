#include "metrics/damage.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "metrics/bootstrap.h"

namespace hemostat {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double mean_of(const at::Tensor& values) { return values.to(at::kDouble).mean().item<double>(); }

std::vector<double> doubles(const at::Tensor& values) {
  const at::Tensor exact = values.to(at::kDouble).contiguous();
  const double* data = exact.const_data_ptr<double>();
  return {data, data + exact.numel()};
}

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The mean of `values` in each quarter of the tokens, in the order of `confidence`.
std::vector<double> by_quarter(const std::vector<double>& values, const std::vector<double>& confidence) {
  constexpr size_t kQuarters = 4;
  std::vector<double> means(kQuarters, kNaN);
  if (std::any_of(confidence.begin(), confidence.end(), [](double value) { return std::isnan(value); })) {
    return means;
  }
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return confidence[a] < confidence[b]; });
  for (size_t quarter = 0; quarter < kQuarters; ++quarter) {
    const size_t begin = values.size() * quarter / kQuarters;
    const size_t end = values.size() * (quarter + 1) / kQuarters;
    double sum = 0;
    for (size_t i = begin; i < end; ++i) {
      sum += values[order[i]];
    }
    if (end > begin) {
      means[quarter] = sum / static_cast<double>(end - begin);
    }
  }
  return means;
}

KlSummary summarize_kl(const metrics::TokenDivergence& tokens) {
  std::vector<double> kl = doubles(tokens.kl);
  KlSummary summary;
  summary.mean = mean_of(kl);
  summary.reverse_mean = mean_of(tokens.kl_reverse);
  summary.by_confidence = by_quarter(kl, doubles(tokens.confidence_baseline));
  if (std::any_of(kl.begin(), kl.end(), [](double value) { return std::isnan(value); })) {
    summary.median = summary.p90 = summary.p99 = summary.max = kNaN;
    return summary;
  }
  std::sort(kl.begin(), kl.end());
  summary.median = quantile(kl, 0.5);
  summary.p90 = quantile(kl, 0.9);
  summary.p99 = quantile(kl, 0.99);
  summary.max = kl.back();
  return summary;
}

std::optional<double> hemorrhage_index(double delta_nll, double nll_baseline, double unigram_nll) {
  if (!(nll_baseline < unigram_nll)) {
    return std::nullopt;
  }
  const double index = delta_nll / (unigram_nll - nll_baseline);
  return index < 0 ? 0 : index;  // NaN stays NaN
}

std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> result(a);
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] -= b[i];
  }
  return result;
}

// Windows are resampled once, for every number that has an interval.
class Resamples {
 public:
  // series: entries of each window.
  Resamples(std::vector<std::vector<double>> series, const CompareOptions& options)
      : series_(std::move(series)), means_(bootstrap_means(series_, options.bootstrap_samples, options.seed)) {}

  // Of the mean of a series.
  std::optional<Interval> interval(size_t index) const {
    return middle(index, [&](const std::vector<double>& means) { return std::optional(means[index]); });
  }

  // Of the sum of one series over the sum of another, which counts. A window that counts nothing says nothing.
  std::optional<Interval> interval_of_ratio(size_t numerator, size_t denominator) const {
    const auto says =
        std::count_if(series_[denominator].begin(), series_[denominator].end(), [](double count) { return count > 0; });
    if (says < 2) {
      return std::nullopt;
    }
    return middle(numerator, [&](const std::vector<double>& means) {
      return means[denominator] > 0 ? std::optional(means[numerator] / means[denominator]) : std::nullopt;
    });
  }

 private:
  // `value` is what a resample gives, none where it gives nothing; NaN where a window of the series is.
  template <class Value>
  std::optional<Interval> middle(size_t index, const Value& value) const {
    const std::vector<double>& windows = series_[index];
    if (windows.size() < 2) {
      return std::nullopt;
    }
    if (std::any_of(windows.begin(), windows.end(), [](double entry) { return std::isnan(entry); })) {
      return Interval{kNaN, kNaN};
    }
    std::vector<double> values;
    values.reserve(means_.size());
    for (const std::vector<double>& means : means_) {
      if (const std::optional<double> found = value(means)) {
        values.push_back(*found);
      }
    }
    return middle_95(std::move(values));
  }

  std::vector<std::vector<double>> series_, means_;
};

}  // namespace

Damage summarize(const metrics::TokenDivergence& tokens, int64_t windows, double unigram_nll,
                 const CompareOptions& options) {
  Damage damage;
  damage.windows = windows;
  damage.tokens = tokens.kl.numel();
  const auto by_window = [&](const at::Tensor& values) {
    return values.to(at::kDouble).view({windows, damage.tokens / windows});
  };
  const auto window_means = [&](const at::Tensor& values) { return doubles(by_window(values).mean(1)); };
  damage.window_nll_baseline = window_means(tokens.nll_baseline);
  damage.window_nll = window_means(tokens.nll_damaged);
  damage.nll_baseline = mean_of(damage.window_nll_baseline);  // windows are of one length
  damage.nll = mean_of(damage.window_nll);
  damage.delta_nll = damage.nll - damage.nll_baseline;
  damage.perplexity_baseline = std::exp(damage.nll_baseline);
  damage.perplexity = std::exp(damage.nll);

  if (options.byte_count) {
    const double nats = damage.nll * static_cast<double>(damage.tokens);
    damage.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(*options.byte_count);
  }

  damage.kl = summarize_kl(tokens);
  damage.acceptance = mean_of(tokens.acceptance);
  damage.top1_agreement = mean_of(tokens.agree);
  damage.window_kl = window_means(tokens.kl);
  damage.window_acceptance = window_means(tokens.acceptance);
  damage.window_top1_agreement = window_means(tokens.agree);

  const at::Tensor delta = tokens.nll_damaged.to(at::kDouble) - tokens.nll_baseline.to(at::kDouble);
  const at::Tensor changed = tokens.agree.logical_not();
  const at::Tensor of_changed = delta.masked_fill(tokens.agree, 0);
  const auto changes = changed.sum().item<int64_t>();
  if (changes > 0) {
    damage.direction = of_changed.sum().item<double>() / static_cast<double>(changes);
  }
  if (changes < damage.tokens) {
    damage.delta_nll_unchanged =
        delta.masked_fill(changed, 0).sum().item<double>() / static_cast<double>(damage.tokens - changes);
  }

  enum Series : size_t { kDelta, kKl, kAcceptance, kAgreement, kDeltaOfChanged, kChanged };
  const Resamples resamples(
      {difference(damage.window_nll, damage.window_nll_baseline), damage.window_kl, damage.window_acceptance,
       damage.window_top1_agreement, doubles(by_window(of_changed).sum(1)), doubles(by_window(changed).sum(1))},
      options);
  damage.delta_nll_interval = resamples.interval(kDelta);
  damage.kl.mean_interval = resamples.interval(kKl);
  damage.acceptance_interval = resamples.interval(kAcceptance);
  damage.top1_agreement_interval = resamples.interval(kAgreement);
  damage.direction_interval = resamples.interval_of_ratio(kDeltaOfChanged, kChanged);
  damage.top5_overlap = mean_of(tokens.top5_overlap.nan_to_num(0.0));
  damage.flips_right_to_wrong = mean_of(tokens.right_baseline.logical_and(tokens.right_damaged.logical_not()));
  damage.flips_wrong_to_right = mean_of(tokens.right_damaged.logical_and(tokens.right_baseline.logical_not()));
  damage.accuracy_baseline = mean_of(tokens.right_baseline);
  damage.accuracy = mean_of(tokens.right_damaged);
  const auto calibration_error = [](const at::Tensor& confidence, const at::Tensor& right) {
    return metrics::expected_calibration_error(confidence.clamp(0, 1), right);  // of a rounding error beyond 1
  };
  damage.calibration_error_baseline = calibration_error(tokens.confidence_baseline, tokens.right_baseline);
  damage.calibration_error = calibration_error(tokens.confidence_damaged, tokens.right_damaged);
  damage.entropy_baseline = mean_of(tokens.entropy_baseline);
  damage.entropy_shift = mean_of(tokens.entropy_damaged) - damage.entropy_baseline;
  damage.index = hemorrhage_index(damage.delta_nll, damage.nll_baseline, unigram_nll);
  damage.unigram_nll = unigram_nll;
  damage.index_source = options.unigram ? options.unigram_source : "evaluated tokens";
  return damage;
}

}  // namespace hemostat
