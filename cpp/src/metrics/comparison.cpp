#include "metrics/comparison.h"

#include <algorithm>

#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "common/arguments.h"

namespace hemostat {

void check_options(const CompareOptions& options, int64_t vocab, const char* operation) {
  const auto at_least = [&](const char* option, double value, double least) {
    if (!(value >= least)) {
      throw ValueError(fmt::format("{}: {} is {}, but takes at least {}", operation, option, value, least));
    }
  };
  at_least("batch", static_cast<double>(options.batch), 1);
  at_least("memory_budget", options.memory_budget, 0);
  at_least("bootstrap_samples", static_cast<double>(options.bootstrap_samples), 1);
  at_least("generation's prompts", static_cast<double>(options.generation.prompts), 1);
  at_least("generation's prompt_length", static_cast<double>(options.generation.prompt_length), 1);
  at_least("generation's new_tokens", static_cast<double>(options.generation.new_tokens), 1);
  if (options.byte_count) {
    at_least("byte_count", static_cast<double>(*options.byte_count), 1);
  }
  if (options.unigram) {
    const at::Tensor& counts = *options.unigram;
    if (!counts.defined() || !at::isIntegralType(counts.scalar_type(), false)) {
      throw TypeError(fmt::format("{}: unigram is {}, but takes int64", operation,
                                  counts.defined() ? arguments::dtype_name(counts.scalar_type()) : "undefined"));
    }
    if (counts.dim() != 1 || counts.size(0) != vocab) {
      throw ValueError(fmt::format("{}: unigram has {} entries, but the vocabulary has {} tokens", operation,
                                   counts.numel(), vocab));
    }
  }
}

void check_comparable(const Model& baseline, const Model& damaged, const char* operation) {
  if (damaged.foreign.has_loss() != baseline.foreign.has_loss()) {
    throw ValueError(fmt::format("{}: one of the models has a loss in the place of a vocabulary", operation));
  }
  if (vocabulary(damaged) != vocabulary(baseline)) {
    throw ValueError(fmt::format("{}: the damaged model has {} tokens in its vocabulary, but the baseline has {}",
                                 operation, vocabulary(damaged), vocabulary(baseline)));
  }
  if (damaged.device() != baseline.device()) {
    throw ValueError(fmt::format("{}: the damaged model is on {}, but the baseline is on {}", operation,
                                 damaged.device().str(), baseline.device().str()));
  }
}

at::Tensor checked_windows(const Model& model, const at::Tensor& tokens, const char* operation) {
  at::Tensor windows = checked_tokens(model, tokens, operation);
  if (model.foreign.has_loss()) {
    return windows;
  }
  if (windows.dim() != 2 || windows.size(0) < 1 || windows.size(1) < 2) {
    throw ValueError(fmt::format("{}: tokens is [{}, {}], but takes at least one window of at least two tokens",
                                 operation, windows.size(0), windows.size(-1)));
  }
  return windows;
}

double unigram_nll(const CompareOptions& options, const at::Tensor& tokens, int64_t vocab) {
  const at::Tensor counts =
      options.unigram ? *options.unigram : at::bincount(tokens.reshape({-1}), /*weights=*/{}, /*minlength=*/vocab);
  return metrics::unigram_nll(counts, targets_of(tokens));
}

at::Tensor predicting_states(const at::Tensor& states) {
  return states.narrow(1, 0, states.size(1) - 1).reshape({-1, states.size(2)}).contiguous();
}

at::Tensor targets_of(const at::Tensor& tokens) { return tokens.narrow(1, 1, tokens.size(1) - 1).reshape({-1}); }

PairedHeads::PairedHeads(const Model& baseline, const Model& damaged, int64_t window_tokens)
    : baseline_(baseline),
      damaged_(damaged),
      window_tokens_(window_tokens),
      baseline_head_(baseline),
      damaged_head_(damaged) {}

// Through the head's buffer, as where they are made again: a GEMM may round by where its result lies.
at::Tensor PairedHeads::baseline_logits(const at::Tensor& hidden) {
  const int64_t step = tokens_per_chunk(baseline_, baseline_, hidden.size(0), window_tokens_);
  at::Tensor kept;
  for (int64_t row = 0; row < hidden.size(0); row += step) {
    const int64_t rows = std::min(step, hidden.size(0) - row);
    const at::Tensor chunk = baseline_head_(hidden.narrow(0, row, rows));
    if (!kept.defined()) {
      kept = at::empty({hidden.size(0), chunk.size(1)}, chunk.options());
    }
    kept.narrow(0, row, rows).copy_(chunk);
  }
  return kept;
}

metrics::TokenDivergence PairedHeads::compare(const BatchPredictions& baseline, const at::Tensor& hidden) {
  const double temperature = baseline_.decoder.temperature;
  const double damaged_temperature = damaged_.decoder.temperature;
  const int64_t targets = baseline.targets.size(0);
  const int64_t step = tokens_per_chunk(baseline_, damaged_, targets, window_tokens_);
  std::vector<metrics::TokenDivergence> parts;
  for (int64_t row = 0; row < targets; row += step) {
    const int64_t rows = std::min(step, targets - row);
    at::Tensor ours = baseline.logits.defined()
                          ? baseline.logits.narrow(0, row, rows)
                          : baseline_head_(baseline.hidden.narrow(0, row, rows).to(baseline_.device()));
    at::Tensor theirs = hidden.defined() ? damaged_head_(hidden.narrow(0, row, rows)) : ours;
    double scale = 1 / damaged_temperature;
    if (temperature != 1) {  // both by the same arithmetic, so that equal models stay equal
      ours = ours.to(at::kFloat).mul(1 / temperature);
      theirs = theirs.to(at::kFloat).mul(1 / damaged_temperature);
      scale = 1;
    }
    parts.push_back(metrics::divergence(ours, theirs, baseline.targets.narrow(0, row, rows), scale));
  }
  return concatenated(parts);
}

metrics::TokenDivergence concatenated(const std::vector<metrics::TokenDivergence>& parts) {
  using Field = at::Tensor metrics::TokenDivergence::*;
  using T = metrics::TokenDivergence;
  metrics::TokenDivergence whole;
  for (const Field field :
       {&T::nll_baseline, &T::nll_damaged, &T::kl, &T::kl_reverse, &T::acceptance, &T::entropy_baseline,
        &T::entropy_damaged, &T::confidence_baseline, &T::confidence_damaged, &T::top5_overlap, &T::top1_baseline,
        &T::top1_damaged, &T::agree, &T::right_baseline, &T::right_damaged}) {
    std::vector<at::Tensor> pieces;
    pieces.reserve(parts.size());
    for (const auto& part : parts) {
      pieces.push_back(part.*field);
    }
    whole.*field = at::cat(pieces).cpu();
  }
  return whole;
}

}  // namespace hemostat
