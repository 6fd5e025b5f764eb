// Two models' predictions side by side, a batch of windows at a time: what a BaselineEvaluation and localize share.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/metrics.h>

#include "model/head_chunks.h"

namespace hemostat {

// What a NumericalError says is not finite, where the unchanged model is not.
constexpr const char* kBaseline = "hemostat: the baseline";

// All ValueError (a dtype: TypeError) naming `operation`.
void check_options(const CompareOptions& options, int64_t vocab, const char* operation);
void check_comparable(const Model& baseline, const Model& damaged, const char* operation);
at::Tensor checked_windows(const Model& model, const at::Tensor& tokens, const char* operation);

// Of the add-one smoothed unigram model, on the targets of `tokens` [windows, length]; nats per token.
double unigram_nll(const CompareOptions& options, const at::Tensor& tokens, int64_t vocab);

// The states [windows, length, H] that have a target, [windows · (length − 1), H], and those targets of tokens
// [windows, length].
at::Tensor predicting_states(const at::Tensor& states);
at::Tensor targets_of(const at::Tensor& tokens);

// What the baseline predicts of a batch's targets.
struct BatchPredictions {
  at::Tensor targets;  // int64 [windows · (length − 1)]
  at::Tensor logits;   // [targets, V]; undefined: made again from `hidden`, some 64 MB at a time
  at::Tensor hidden;   // [targets, H], on any device
};

// Two models' heads, whose logits are compared some 64 MB at a time. The models outlive it.
class PairedHeads {
 public:
  PairedHeads(const Model& baseline, const Model& damaged, int64_t window_tokens);

  // The baseline's logits [targets, V] of hidden [targets, H], to be kept.
  at::Tensor baseline_logits(const at::Tensor& hidden);

  // hidden: the damaged model's [targets, H]; undefined: the baseline is compared with itself.
  metrics::TokenDivergence compare(const BatchPredictions& baseline, const at::Tensor& hidden);

 private:
  const Model& baseline_;
  const Model& damaged_;
  int64_t window_tokens_;
  ChunkedHead baseline_head_, damaged_head_;
};

// Of one batch after the other.
metrics::TokenDivergence concatenated(const std::vector<metrics::TokenDivergence>& parts);

}  // namespace hemostat
