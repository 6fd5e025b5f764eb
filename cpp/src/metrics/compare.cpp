#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>

#include <hemostat/metrics.h>
#include <hemostat/statistics.h>

#include "metrics/comparison.h"
#include "metrics/damage.h"
#include "metrics/losses.h"
#include "model/finite.h"
#include "model/heap_trimmer.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.compare";

}  // namespace

BaselineEvaluation::BaselineEvaluation(Model baseline, at::Tensor tokens, CompareOptions options)
    : model_(std::move(baseline)), options_(std::move(options)) {
  const c10::InferenceMode inference;
  const int64_t vocab = vocabulary(model_);
  check_options(options_, vocab, kOperation);
  tokens_ = checked_windows(model_, tokens, kOperation);
  const int64_t windows = tokens_.size(0);
  if (model_.foreign.has_loss()) {
    losses_ =
        losses_of(model_, tokens_, options_, [&](const at::Tensor& batch, const at::Tensor& losses, int64_t first) {
          check_finite_values(model_, batch, losses, kBaseline, first);
        });
    return;
  }
  const int64_t length = tokens_.size(1);

  unigram_nll_ = unigram_nll(options_, tokens_, vocab);

  MemoryBudget budget(options_.memory_budget);
  const double logits_bytes = static_cast<double>(windows * (length - 1)) * static_cast<double>(vocab) *
                              static_cast<double>(c10::elementSize(model_.dtype()));
  const bool keep_logits = options_.keep_logits && budget.take(logits_bytes);

  PairedHeads heads(model_, model_, length - 1);
  HeapTrimmer trimmer;
  for (int64_t start = 0; start < windows; start += options_.batch) {
    const int64_t count = std::min(options_.batch, windows - start);
    const at::Tensor batch = tokens_.narrow(0, start, count);
    const at::Tensor hidden = predicting_states(hidden_states(model_, batch, {.observer = &trimmer}));
    check_finite_values(model_, batch, hidden, kBaseline, start);
    if (keep_logits) {
      logits_.push_back(heads.baseline_logits(hidden));
    } else if (budget.take(static_cast<double>(hidden.nbytes()))) {
      hidden_.push_back(hidden);
    } else {
      at::Tensor mapped = MemoryBudget(0).zeros(hidden.sizes(), hidden.scalar_type(), at::kCPU);
      hidden_.push_back(mapped.copy_(hidden));
    }
    if (options_.progress) {
      options_.progress(start + count, windows);
    }
  }
  bytes_ = options_.memory_budget - budget.remaining();
}

Damage BaselineEvaluation::compare(const Model& damaged) const { return compare(damaged, /*itself=*/false); }

Damage BaselineEvaluation::unchanged() const { return compare(model_, /*itself=*/true); }

Damage BaselineEvaluation::compare(const Model& damaged, bool itself) const {
  const c10::InferenceMode inference;
  check_comparable(model_, damaged, kOperation);
  if (model_.foreign.has_loss()) {
    return sized(summarize_losses(losses_, itself ? losses_ : losses_of(damaged, tokens_, options_), options_),
                 damaged);
  }
  const int64_t windows = tokens_.size(0);
  PairedHeads heads(model_, damaged, tokens_.size(1) - 1);
  HeapTrimmer trimmer;

  std::vector<metrics::TokenDivergence> parts;
  size_t batch = 0;
  for (int64_t start = 0; start < windows; start += options_.batch, ++batch) {
    const int64_t count = std::min(options_.batch, windows - start);
    const at::Tensor tokens = tokens_.narrow(0, start, count);
    const BatchPredictions predictions{.targets = targets_of(tokens),
                                       .logits = keeps_logits() ? logits_[batch] : at::Tensor(),
                                       .hidden = keeps_logits() ? at::Tensor() : hidden_[batch]};
    const at::Tensor hidden =
        itself ? at::Tensor() : predicting_states(hidden_states(damaged, tokens, {.observer = &trimmer}));
    parts.push_back(heads.compare(predictions, hidden));
    check_finite_values(model_, tokens, parts.back().nll_baseline, kBaseline, start);  // the head may overflow too
    if (options_.progress && !itself) {
      options_.progress(start + count, windows);
    }
  }
  return sized(summarize(concatenated(parts), windows, unigram_nll_, options_), damaged);
}

Damage BaselineEvaluation::sized(Damage damage, const Model& damaged) const {
  damage.bytes_baseline = model_.bytes();
  damage.bytes = damaged.bytes();
  return damage;
}

Damage compare(const Model& baseline, const Model& damaged, const at::Tensor& tokens, const CompareOptions& options) {
  check_comparable(baseline, damaged, kOperation);
  CompareOptions once = options;
  once.keep_logits = false;
  const BaselineEvaluation evaluation(baseline, tokens, std::move(once));
  Damage damage = evaluation.compare(damaged);
  if (options.generate) {
    damage.generation = evaluation.compare_generation(damaged);
  }
  return damage;
}

}  // namespace hemostat
