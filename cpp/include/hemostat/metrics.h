// Room `metrics`: damage, measured between a baseline and a damaged model on the same tokens: by teacher forcing, and
// by generation where the change is in how tokens are chosen.
//
// Protocol: tokens are int64 [windows, length]; every target inside a window counts once (length − 1 a window).
// Logarithms are natural, so NLL, KL and entropy are in nats per token. By generation, both models continue the first
// tokens of the first windows, with the same random numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

namespace metrics {

// Two models' predictions of each token. Every field has the targets' shape.
struct TokenDivergence {
  at::Tensor nll_baseline, nll_damaged;                // float32, nats: −log p(target)
  at::Tensor kl, kl_reverse;                           // float32, nats: KL(baseline ‖ damaged), KL(damaged ‖ baseline)
  at::Tensor acceptance;                               // float32, 0 … 1: Σ min(p, q), the chance that speculative
                                                       // decoding accepts a token of one where the other verifies
  at::Tensor entropy_baseline, entropy_damaged;        // float32, nats
  at::Tensor confidence_baseline, confidence_damaged;  // float32, 0 … 1: the largest probability
  at::Tensor top5_overlap;                             // float32, 0 … 1: |top-5 ∩ top-5| / 5
  at::Tensor top1_baseline, top1_damaged;              // int64: the most likely token, the lowest of equal ones
  at::Tensor agree, right_baseline, right_damaged;     // bool: same top-1; top-1 is the target
};

// Logits that hold NaN or +Inf give NaN, agree with nothing and are right nowhere.
//   baseline_logits, damaged_logits  [..., vocab], float32, bfloat16 or float16; of two dtypes: compared in float32
//   targets                          int64 [...], in 0 … vocab − 1
//   damaged_scale                    multiplies the damaged logits: 1/temperature
// ValueError for shapes or devices that differ, TypeError for a dtype.
TokenDivergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                           const at::Tensor& targets, double damaged_scale = 1);

// Expected calibration error, 0 … 1: Σ over `bins` equal-width bins ((b − 1)/bins, b/bins] of confidence of
// |accuracy − mean confidence| · share of tokens (Guo et al., "On Calibration of Modern Neural Networks",
// arXiv 1706.04599, equation 3). NaN where a confidence is NaN or there are no tokens.
//   confidence  floating [tokens], 0 … 1
//   right       bool [tokens]
double expected_calibration_error(const at::Tensor& confidence, const at::Tensor& right, int64_t bins = 15);

// Mean over targets, in nats, of −log of the add-one smoothed unigram model (count + 1)/(total + V).
//   counts   int64 [V], ≥ 0
//   targets  int64, in 0 … V − 1, at least one
double unigram_nll(const at::Tensor& counts, const at::Tensor& targets);

}  // namespace metrics

struct Interval {
  double low = 0, high = 0;

  bool contains(double value) const { return low <= value && value <= high; }  // false where an end is NaN
};

namespace metrics {

using Continuations = std::vector<std::vector<int64_t>>;  // token IDs, one list a prompt

// How far two models' continuations of the same prompts stay together, and how varied each model's are.
struct GenerationDivergence {
  std::vector<int64_t> positions;  // of each prompt: how many tokens both have in common before the first that
                                   // differs, or that only one has; new_tokens where none does
  double first_divergence = 0;     // their mean, in tokens
  std::optional<Interval> first_divergence_interval = std::nullopt;  // 95 %, bootstrap over prompts; none for one
  double first_divergence_median = 0;
  double exact_match = 0;  // fraction of prompts with equal continuations
  // Fraction of a continuation's 4-grams that occurred before in it, mean over continuations of at least 4 tokens
  // (Welleck et al., "Neural Text Generation with Unlikelihood Training", arXiv 1908.04319: seq-rep-4). NaN where there
  // are none.
  double repetition_baseline = 0, repetition = 0;
  // Different n-grams of all continuations / n-grams of all (Li et al., "A Diversity-Promoting Objective Function for
  // Neural Conversation Models", arXiv 1510.03055). NaN where there are none.
  double distinct_1_baseline = 0, distinct_1 = 0;
  double distinct_2_baseline = 0, distinct_2 = 0;
};

struct GenerationDivergenceOptions {
  std::optional<int64_t> new_tokens = std::nullopt;  // how long a continuation could be; none: the longest given
  int64_t bootstrap_samples = 2000;
  int64_t seed = 0;  // of the resampling
};

// ValueError where the numbers of continuations differ, there are none, or one is longer than new_tokens.
GenerationDivergence generation_divergence(const Continuations& baseline, const Continuations& damaged,
                                           const GenerationDivergenceOptions& options = {});

}  // namespace metrics

// How damage by generation is measured.
struct GenerationProtocol {
  int64_t prompts = 16;                           // at most, of the first windows
  int64_t prompt_length = 32;                     // tokens; at most half of a window
  int64_t new_tokens = 64;                        // at most, within the baseline's context and up to an end of text
  std::optional<Decoder> decoder = std::nullopt;  // of both models; none: each its own
};

struct GenerationDamage {
  int64_t prompts = 0, prompt_length = 0, new_tokens = 0;  // as they came to be
  int64_t seed = 0;                                        // of the random numbers that both models share
  metrics::GenerationDivergence divergence;
};

// KL(baseline ‖ damaged) over tokens, in nats. Quantiles are interpolated linearly between order statistics.
struct KlSummary {
  double mean = 0, median = 0, p90 = 0, p99 = 0, max = 0;
  std::optional<Interval> mean_interval = std::nullopt;  // see Damage
  std::vector<double> by_confidence;  // mean in each quarter of the tokens, ordered by the baseline's
                                      // confidence, least confident first; NaN in a quarter without tokens
  double reverse_mean = 0;            // KL(damaged ‖ baseline)
};

// Numbers are NaN where the damaged model's logits are (a collapse). A token with such logits agrees with nothing.
// Intervals are 95 %, from one paired bootstrap over windows that all of them share; none where there is one window.
//
// Of a foreign module with a loss there are no predictions of tokens: nll is its loss, a window a sample; perplexity,
// KL and what else follows from predictions are NaN, and there is no index.
struct Damage {
  std::string measure = "nll";       // "loss": of such a module
  int64_t windows = 0, tokens = 0;   // targets
  double nll_baseline = 0, nll = 0;  // nats per token
  double perplexity_baseline = 0, perplexity = 0;
  double delta_nll = 0;  // nll − nll_baseline, nats per token
  std::optional<Interval> delta_nll_interval = std::nullopt;
  std::optional<double> bits_per_byte = std::nullopt;  // where the byte count was given
  KlSummary kl;
  // Mean over tokens of Σ min(p, q), 0 … 1: what speculative decoding would accept; 1 − it is the mean total variation.
  // NaN also in damage stored by versions that did not measure it.
  double acceptance = std::numeric_limits<double>::quiet_NaN();
  std::optional<Interval> acceptance_interval = std::nullopt;
  double top1_agreement = 0, top5_overlap = 0;  // fractions
  std::optional<Interval> top1_agreement_interval = std::nullopt;
  // Mean ΔNLL of the targets whose top-1 prediction changed, nats: above 0 the changes are for the worse. None where
  // none changed. Its interval is of a ratio of sums over windows, and needs two windows with a change.
  // delta_nll = volume · direction + (1 − volume) · delta_nll_unchanged.
  std::optional<double> direction = std::nullopt;
  std::optional<Interval> direction_interval = std::nullopt;
  std::optional<double> delta_nll_unchanged = std::nullopt;   // of the other targets; none where all changed
  double flips_right_to_wrong = 0, flips_wrong_to_right = 0;  // fractions of all tokens
  double accuracy_baseline = 0, accuracy = 0;                 // of the top-1 token
  double calibration_error_baseline = 0, calibration_error = 0;
  double entropy_baseline = 0, entropy_shift = 0;  // mean entropy, and damaged − baseline
  // Hemorrhage index: delta_nll / (nll of the unigram model − nll_baseline), clipped below at 0. 0 is unchanged, 1 is
  // no better than the unigram. None where the baseline is itself no better than the unigram.
  std::optional<double> index = std::nullopt;
  std::optional<double> unigram_nll = std::nullopt;  // of the targets; none in damage that earlier versions stored
  std::string index_source;                          // where the unigram counts came from: "given", "evaluated tokens"
  bool within_noise_floor = false;                   // set by sweep
  // Model::bytes() of both: as stored, in the formats that weights were rounded to. None in damage between logits, and
  // in what earlier versions stored.
  std::optional<double> bytes_baseline = std::nullopt, bytes = std::nullopt;
  std::optional<GenerationDamage> generation = std::nullopt;  // where it was measured
  std::vector<double> window_nll_baseline, window_nll;        // mean of each window, for intervals
  std::vector<double> window_kl, window_top1_agreement, window_acceptance;

  // Whether the baseline predicts the text no better than the unigram model does: damage to it says nothing about what
  // is safe, and there is no index.
  bool no_better_than_unigram() const {
    return unigram_nll ? !(nll_baseline < *unigram_nll) : !index && predicts_tokens();
  }

  bool predicts_tokens() const { return measure != "loss"; }

  // Share of targets whose top-1 prediction changed, 0 … 1.
  double volume() const { return 1 - top1_agreement; }

  // Whether ΔNLL's interval holds 0: no damage was shown, which does not prove that there is none. None without one.
  std::optional<bool> silent() const {
    return delta_nll_interval ? std::optional(delta_nll_interval->contains(0)) : std::nullopt;
  }
};

struct CompareOptions {
  std::optional<at::Tensor> unigram = std::nullopt;  // int64 [V] token counts; none: counted from all evaluated tokens
  std::string unigram_source = "given";              // what Damage::index_source says of `unigram`
  std::optional<int64_t> byte_count = std::nullopt;  // UTF-8 bytes of all targets
  int64_t batch = 4;                                 // windows at a time
  // Bytes for what is kept of the baseline: its logits where they fit, else its final hidden states, from which the
  // head recomputes; what of these does not fit is mapped from temporary files.
  double memory_budget = 1024.0 * 1024 * 1024;
  bool keep_logits = true;  // false: hidden states at once, cheaper where only one model is compared
  int64_t bootstrap_samples = 2000;
  int64_t seed = 0;  // of the resampling, and of sampled text
  // compare, sweep and scan measure damage by generation too; sweep and scan do so anyway where the method's axis is
  // measured by it.
  bool generate = false;
  GenerationProtocol generation = {};
  std::function<void(int64_t done, int64_t total)> progress = nullptr;  // windows; may throw Interrupted
};

// The baseline evaluated once, to be compared with many. Logits are made and compared some 64 MB at a time.
class BaselineEvaluation {
 public:
  // ValueError, before any work, for tokens that are not [windows ≥ 1, length ≥ 2] or out of range, and for options out
  // of range. NumericalError naming the window and first_nonfinite's place where the baseline is not finite: from here,
  // or where its head alone is to blame, from the first comparison.
  BaselineEvaluation(Model baseline, at::Tensor tokens, CompareOptions options = {});

  // By teacher forcing: raw logits, divided by each model's decoder.temperature. The same model gives exactly no
  // damage. ValueError where the vocabularies or devices differ.
  Damage compare(const Model& damaged) const;

  // Both models' continuations of the same prompts; the baseline's are made once, at the first call. Models that choose
  // the same tokens give exactly no damage.
  GenerationDamage compare_generation(const Model& damaged) const;

  // The baseline compared with itself, without another forward pass.
  Damage unchanged() const;

  const Model& model() const { return model_; }
  const at::Tensor& tokens() const { return tokens_; }
  const CompareOptions& options() const { return options_; }
  bool keeps_logits() const { return !logits_.empty(); }
  double bytes() const { return bytes_; }  // of memory that the kept logits or hidden states take

 private:
  Damage compare(const Model& damaged, bool itself) const;
  Damage sized(Damage damage, const Model& damaged) const;
  Model model_;
  at::Tensor tokens_;
  CompareOptions options_;
  std::vector<at::Tensor> hidden_, logits_;  // of each batch [windows · (length − 1), H or V]; one of the two
  std::vector<double> losses_;               // of each window, of a foreign module that has a loss
  double bytes_ = 0, unigram_nll_ = 0;
  struct BaselineContinuations {
    std::mutex mutex;
    std::optional<metrics::Continuations> tokens;
  };
  std::shared_ptr<BaselineContinuations> continuations_ = std::make_shared<BaselineContinuations>();
};

// BaselineEvaluation and its compare, once.
Damage compare(const Model& baseline, const Model& damaged, const at::Tensor& tokens,
               const CompareOptions& options = {});

}  // namespace hemostat
