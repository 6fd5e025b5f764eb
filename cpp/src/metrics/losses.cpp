#include "metrics/losses.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "metrics/bootstrap.h"

namespace hemostat {

std::vector<double> losses_of(
    const Model& model, const at::Tensor& samples, const CompareOptions& options,
    const std::function<void(const at::Tensor& batch, const at::Tensor& losses, int64_t first)>& judge) {
  const int64_t total = samples.size(0);
  std::vector<double> all;
  for (int64_t first = 0; first < total; first += options.batch) {
    const int64_t count = std::min(options.batch, total - first);
    const at::Tensor batch = samples.narrow(0, first, count);
    const at::Tensor losses = hidden_states(model, batch);
    if (judge) {
      judge(batch, losses, first);
    }
    const at::Tensor exact = losses.to(at::kCPU, at::kDouble).contiguous();
    all.insert(all.end(), exact.const_data_ptr<double>(), exact.const_data_ptr<double>() + count);
    if (options.progress) {
      options.progress(first + count, total);
    }
  }
  return all;
}

Damage summarize_losses(const std::vector<double>& baseline, const std::vector<double>& damaged,
                        const CompareOptions& options) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const auto mean = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  Damage damage;
  damage.measure = "loss";
  damage.windows = damage.tokens = static_cast<int64_t>(baseline.size());
  damage.window_nll_baseline = baseline;
  damage.window_nll = damaged;
  damage.nll_baseline = mean(baseline);
  damage.nll = mean(damaged);
  damage.delta_nll = damage.nll - damage.nll_baseline;
  std::vector<double> differences = damaged;
  for (size_t i = 0; i < differences.size(); ++i) {
    differences[i] -= baseline[i];
  }
  if (differences.size() > 1) {
    damage.delta_nll_interval = bootstrap_interval(differences, options.bootstrap_samples, options.seed);
  }
  for (double* none : {&damage.perplexity_baseline, &damage.perplexity, &damage.kl.mean, &damage.kl.median,
                       &damage.kl.p90, &damage.kl.p99, &damage.kl.max, &damage.kl.reverse_mean, &damage.top1_agreement,
                       &damage.top5_overlap, &damage.flips_right_to_wrong, &damage.flips_wrong_to_right,
                       &damage.accuracy_baseline, &damage.accuracy, &damage.calibration_error_baseline,
                       &damage.calibration_error, &damage.entropy_baseline, &damage.entropy_shift}) {
    *none = kNone;
  }
  return damage;
}

}  // namespace hemostat
