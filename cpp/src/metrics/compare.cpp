#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/metrics.h>
#include <hemostat/statistics.h>

#include "metrics/damage.h"
#include "metrics/head_chunks.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.compare";

void check_options(const CompareOptions& options, int64_t vocab) {
  const auto at_least = [](const char* option, double value, double least) {
    if (!(value >= least)) {
      throw ValueError(fmt::format("{}: {} is {}, but takes at least {}", kOperation, option, value, least));
    }
  };
  at_least("batch", static_cast<double>(options.batch), 1);
  at_least("memory_budget", options.memory_budget, 0);
  at_least("bootstrap_samples", static_cast<double>(options.bootstrap_samples), 1);
  if (options.byte_count) {
    at_least("byte_count", static_cast<double>(*options.byte_count), 1);
  }
  if (options.unigram) {
    const at::Tensor& counts = *options.unigram;
    if (!counts.defined() || !at::isIntegralType(counts.scalar_type(), false)) {
      throw TypeError(fmt::format("{}: unigram is {}, but takes int64", kOperation,
                                  counts.defined() ? c10::toString(counts.scalar_type()) : "undefined"));
    }
    if (counts.dim() != 1 || counts.size(0) != vocab) {
      throw ValueError(fmt::format("{}: unigram has {} entries, but the vocabulary has {} tokens", kOperation,
                                   counts.numel(), vocab));
    }
  }
}

at::Tensor checked_windows(const Model& model, const at::Tensor& tokens) {
  const at::Tensor windows = checked_tokens(model, tokens, kOperation);
  if (windows.dim() != 2 || windows.size(0) < 1 || windows.size(1) < 2) {
    throw ValueError(fmt::format("{}: tokens is [{}, {}], but takes at least one window of at least two tokens",
                                 kOperation, windows.size(0), windows.size(-1)));
  }
  return windows;
}

// Of each batch's tokens that have a target, [windows · (length − 1), H].
at::Tensor predicting_states(const Model& model, const at::Tensor& tokens) {
  const at::Tensor hidden = hidden_states(model, tokens);
  return hidden.narrow(1, 0, tokens.size(1) - 1).reshape({-1, hidden.size(2)}).contiguous();
}

int64_t vocabulary(const Model& model) { return model.head.linear.out_features(); }

void check_comparable(const Model& baseline, const Model& damaged) {
  if (vocabulary(damaged) != vocabulary(baseline)) {
    throw ValueError(fmt::format("{}: the damaged model has {} tokens in its vocabulary, but the baseline has {}",
                                 kOperation, vocabulary(damaged), vocabulary(baseline)));
  }
  if (damaged.device() != baseline.device()) {
    throw ValueError(fmt::format("{}: the damaged model is on {}, but the baseline is on {}", kOperation,
                                 damaged.device().str(), baseline.device().str()));
  }
}

metrics::TokenDivergence concatenated(const std::vector<metrics::TokenDivergence>& parts) {
  using Field = at::Tensor metrics::TokenDivergence::*;
  using T = metrics::TokenDivergence;
  metrics::TokenDivergence whole;
  for (const Field field : {&T::nll_baseline, &T::nll_damaged, &T::kl, &T::kl_reverse, &T::entropy_baseline,
                            &T::entropy_damaged, &T::confidence_baseline, &T::confidence_damaged, &T::top5_overlap,
                            &T::top1_baseline, &T::top1_damaged, &T::agree, &T::right_baseline, &T::right_damaged}) {
    std::vector<at::Tensor> pieces;
    pieces.reserve(parts.size());
    for (const auto& part : parts) {
      pieces.push_back(part.*field);
    }
    whole.*field = at::cat(pieces).cpu();
  }
  return whole;
}

}  // namespace

BaselineEvaluation::BaselineEvaluation(Model baseline, at::Tensor tokens, CompareOptions options)
    : model_(std::move(baseline)), options_(std::move(options)) {
  const c10::InferenceMode inference;
  const int64_t vocab = vocabulary(model_);
  check_options(options_, vocab);
  tokens_ = checked_windows(model_, tokens);
  const int64_t windows = tokens_.size(0);
  const int64_t length = tokens_.size(1);

  const at::Tensor counts =
      options_.unigram ? *options_.unigram : at::bincount(tokens_.reshape({-1}), /*weights=*/{}, /*minlength=*/vocab);
  unigram_nll_ = metrics::unigram_nll(counts, tokens_.narrow(1, 1, length - 1));

  MemoryBudget budget(options_.memory_budget);
  const double logits_bytes = static_cast<double>(windows * (length - 1)) * static_cast<double>(vocab) *
                              static_cast<double>(c10::elementSize(model_.dtype()));
  const bool keep_logits = options_.keep_logits && budget.take(logits_bytes);

  ChunkedHead head(model_);
  for (int64_t start = 0; start < windows; start += options_.batch) {
    const int64_t count = std::min(options_.batch, windows - start);
    const at::Tensor hidden = predicting_states(model_, tokens_.narrow(0, start, count));
    if (keep_logits) {
      // Through the head's buffer, as where they are recomputed: a GEMM may round by where its result lies.
      const int64_t step = tokens_per_chunk(model_, model_, hidden.size(0), length - 1);
      at::Tensor kept;
      for (int64_t row = 0; row < hidden.size(0); row += step) {
        const int64_t rows = std::min(step, hidden.size(0) - row);
        const at::Tensor chunk = head(hidden.narrow(0, row, rows));
        if (!kept.defined()) {
          kept = at::empty({hidden.size(0), vocab}, chunk.options());
        }
        kept.narrow(0, row, rows).copy_(chunk);
      }
      logits_.push_back(std::move(kept));
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
  check_comparable(model_, damaged);
  const int64_t windows = tokens_.size(0);
  const int64_t length = tokens_.size(1);
  ChunkedHead baseline_head(model_);
  ChunkedHead damaged_head(damaged);
  const double temperature = model_.decoder.temperature;
  const double damaged_temperature = damaged.decoder.temperature;

  std::vector<metrics::TokenDivergence> parts;
  size_t batch = 0;
  for (int64_t start = 0; start < windows; start += options_.batch, ++batch) {
    const int64_t count = std::min(options_.batch, windows - start);
    const at::Tensor tokens = tokens_.narrow(0, start, count);
    const at::Tensor targets = tokens.narrow(1, 1, length - 1).reshape({-1});
    const at::Tensor hidden = itself ? at::Tensor() : predicting_states(damaged, tokens);
    const int64_t step = tokens_per_chunk(model_, damaged, targets.size(0), length - 1);
    for (int64_t row = 0; row < targets.size(0); row += step) {
      const int64_t rows = std::min(step, targets.size(0) - row);
      at::Tensor ours = keeps_logits() ? logits_[batch].narrow(0, row, rows)
                                       : baseline_head(hidden_[batch].narrow(0, row, rows).to(model_.device()));
      at::Tensor theirs = itself ? ours : damaged_head(hidden.narrow(0, row, rows));
      double scale = 1 / damaged_temperature;
      if (temperature != 1) {  // both by the same arithmetic, so that equal models stay equal
        ours = ours.to(at::kFloat).mul(1 / temperature);
        theirs = theirs.to(at::kFloat).mul(1 / damaged_temperature);
        scale = 1;
      }
      parts.push_back(metrics::divergence(ours, theirs, targets.narrow(0, row, rows), scale));
    }
    if (options_.progress && !itself) {
      options_.progress(start + count, windows);
    }
  }
  return summarize(concatenated(parts), windows, unigram_nll_, options_);
}

Damage compare(const Model& baseline, const Model& damaged, const at::Tensor& tokens, const CompareOptions& options) {
  check_comparable(baseline, damaged);
  CompareOptions once = options;
  once.keep_logits = false;
  return BaselineEvaluation(baseline, tokens, std::move(once)).compare(damaged);
}

}  // namespace hemostat
