// Room `metrics`: damage, measured between a baseline and a damaged model on the same tokens by teacher forcing.
//
// Protocol: tokens are int64 [windows, length]; every target inside a window counts once (length − 1 a window).
// Logarithms are natural, so NLL, KL and entropy are in nats per token.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>
#include <hemostat/statistics.h>

namespace hemostat {

namespace metrics {

// Per token; logits [tokens, vocab] (or [windows, length, vocab], targets likewise), targets int64.
struct TokenDivergence {
  at::Tensor nll_baseline, nll_damaged, kl, kl_reverse, entropy_baseline, entropy_damaged;   // float32 [tokens]
  at::Tensor confidence_baseline, confidence_damaged, top5_overlap;                          // float32 [tokens]
  at::Tensor top1_baseline, top1_damaged;                                                    // int64 [tokens]
  at::Tensor agree, right_baseline, right_damaged;                                           // bool [tokens]
};

TokenDivergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                           const at::Tensor& targets);

// Expected calibration error: Σ over equal-width bins of |accuracy − confidence| · share of tokens. In 0 … 1.
// confidence float [tokens] in 0 … 1, right bool [tokens].
double expected_calibration_error(const at::Tensor& confidence, const at::Tensor& right, int64_t bins = 15);

// Mean −log of the add-one smoothed unigram model (count + 1)/(total + V) over targets.
double unigram_nll(const at::Tensor& counts, const at::Tensor& targets);

}  // namespace metrics

struct Interval {
  double low = 0, high = 0;
};

// KL(baseline ‖ damaged) over tokens.
struct KlSummary {
  double mean = 0, median = 0, p90 = 0, p99 = 0, max = 0;
  std::vector<double> by_confidence;       // mean in each quartile of the baseline's confidence, least confident first
  double reverse_mean = 0;                 // KL(damaged ‖ baseline)
};

struct Damage {
  int64_t windows = 0, tokens = 0;         // targets
  double nll_baseline = 0, nll = 0;        // nats per token
  double perplexity_baseline = 0, perplexity = 0;
  double delta_nll = 0;                    // nats per token
  Interval delta_nll_interval;             // 95 %, paired bootstrap over windows
  std::optional<double> bits_per_byte;     // where the byte count was given
  KlSummary kl;
  double top1_agreement = 0, top5_overlap = 0;             // fractions
  double flips_right_to_wrong = 0, flips_wrong_to_right = 0;
  double accuracy_baseline = 0, accuracy = 0;              // of the top-1 token
  double calibration_error_baseline = 0, calibration_error = 0;
  double entropy_baseline = 0, entropy_shift = 0;          // mean entropy, and damaged − baseline
  std::optional<double> index;             // hemorrhage index; none where the baseline is no better than the unigram
  std::string index_source;                // where the unigram counts came from: "given" or "evaluated tokens"
  bool within_noise_floor = false;         // set by sweep
  std::vector<double> window_nll_baseline, window_nll;     // mean of each window, for intervals
};

struct CompareOptions {
  std::optional<at::Tensor> unigram;       // int64 [V] token counts; none: counted from the evaluated tokens
  std::optional<int64_t> byte_count;       // UTF-8 bytes of all targets
  int64_t batch = 4;                       // windows at a time
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes for the baseline's logits; beyond it its hidden states are kept
  int64_t bootstrap_samples = 2000;
  int64_t seed = 0;
  std::function<void(int64_t done, int64_t total)> progress;  // windows; may throw Interrupted
};

// The baseline evaluated once, to be compared with many.
class BaselineEvaluation {
 public:
  BaselineEvaluation(Model baseline, at::Tensor tokens, CompareOptions options = {});

  // Neither model's logits are ever held for the whole corpus. ValueError where the vocabularies differ.
  Damage compare(const Model& damaged) const;

  const Model& model() const { return model_; }
  const at::Tensor& tokens() const { return tokens_; }
  const CompareOptions& options() const { return options_; }
  bool keeps_logits() const { return !logits_.empty(); }

 private:
  at::Tensor baseline_logits(size_t batch) const;
  Model model_;
  at::Tensor tokens_;
  CompareOptions options_;
  std::vector<at::Tensor> hidden_, logits_;  // per batch; one of the two
  double unigram_nll_ = 0;
};

Damage compare(const Model& baseline, const Model& damaged, const at::Tensor& tokens,
               const CompareOptions& options = {});

}  // namespace hemostat
