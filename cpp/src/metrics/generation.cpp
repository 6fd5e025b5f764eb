#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/generate.h>
#include <hemostat/metrics.h>

#include "metrics/bootstrap.h"
#include "metrics/comparison.h"

namespace hemostat {
namespace metrics {
namespace {

constexpr const char* kOperation = "hemostat.metrics.generation_divergence";

using Tokens = std::vector<int64_t>;
using NGrams = std::set<Tokens>;

// Adds a text's n-grams to `seen`; how many there are, seen before or not.
int64_t add_ngrams(const Tokens& text, size_t n, NGrams& seen) {
  if (text.size() < n) {
    return 0;
  }
  for (auto begin = text.begin(); begin + static_cast<std::ptrdiff_t>(n) <= text.end(); ++begin) {
    seen.emplace(begin, begin + static_cast<std::ptrdiff_t>(n));
  }
  return static_cast<int64_t>(text.size() - n + 1);
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : std::numeric_limits<double>::quiet_NaN(); }

double repetition(const Continuations& texts) {
  double sum = 0, long_enough = 0;
  for (const Tokens& text : texts) {
    NGrams seen;
    if (const auto count = static_cast<double>(add_ngrams(text, 4, seen)); count > 0) {
      sum += 1 - static_cast<double>(seen.size()) / count;
      ++long_enough;
    }
  }
  return ratio(sum, long_enough);
}

double distinct(const Continuations& texts, size_t n) {
  NGrams seen;
  int64_t count = 0;
  for (const Tokens& text : texts) {
    count += add_ngrams(text, n, seen);
  }
  return ratio(static_cast<double>(seen.size()), static_cast<double>(count));
}

int64_t longest(const Continuations& texts) {
  size_t length = 0;
  for (const Tokens& text : texts) {
    length = std::max(length, text.size());
  }
  return static_cast<int64_t>(length);
}

}  // namespace

GenerationDivergence generation_divergence(const Continuations& baseline, const Continuations& damaged,
                                           const GenerationDivergenceOptions& options) {
  if (baseline.empty() || baseline.size() != damaged.size()) {
    throw ValueError(fmt::format("{}: baseline has {} continuations and damaged {}, but takes as many, at least one",
                                 kOperation, baseline.size(), damaged.size()));
  }
  if (options.bootstrap_samples < 1) {
    throw ValueError(
        fmt::format("{}: bootstrap_samples is {}, but takes at least 1", kOperation, options.bootstrap_samples));
  }
  const int64_t given = std::max(longest(baseline), longest(damaged));
  const int64_t new_tokens = options.new_tokens.value_or(given);
  if (given > new_tokens) {
    throw ValueError(
        fmt::format("{}: new_tokens is {}, but a continuation has {} tokens", kOperation, new_tokens, given));
  }

  GenerationDivergence result;
  int64_t equal = 0;
  for (size_t i = 0; i < baseline.size(); ++i) {
    const auto [ours, theirs] =
        std::mismatch(baseline[i].begin(), baseline[i].end(), damaged[i].begin(), damaged[i].end());
    const bool same = ours == baseline[i].end() && theirs == damaged[i].end();
    equal += same ? 1 : 0;
    result.positions.push_back(same ? new_tokens : ours - baseline[i].begin());
  }
  std::vector<double> positions(result.positions.begin(), result.positions.end());
  const auto prompts = static_cast<double>(positions.size());
  result.first_divergence_interval = bootstrap_interval(positions, options.bootstrap_samples, options.seed);
  std::sort(positions.begin(), positions.end());
  result.first_divergence = std::accumulate(positions.begin(), positions.end(), 0.0) / prompts;
  result.first_divergence_median = quantile(positions, 0.5);
  result.exact_match = static_cast<double>(equal) / prompts;
  result.repetition_baseline = repetition(baseline);
  result.repetition = repetition(damaged);
  result.distinct_1_baseline = distinct(baseline, 1);
  result.distinct_1 = distinct(damaged, 1);
  result.distinct_2_baseline = distinct(baseline, 2);
  result.distinct_2 = distinct(damaged, 2);
  return result;
}

}  // namespace metrics

GenerationDamage BaselineEvaluation::compare_generation(const Model& damaged) const {
  check_comparable(model_, damaged, "hemostat.compare");
  const GenerationProtocol& protocol = options_.generation;
  GenerationDamage damage;
  damage.prompts = std::min(protocol.prompts, tokens_.size(0));
  damage.prompt_length = std::min(protocol.prompt_length, tokens_.size(1) / 2);
  damage.new_tokens = std::max<int64_t>(std::min(protocol.new_tokens, model_.config.context - damage.prompt_length), 1);
  damage.seed = options_.seed;

  std::vector<std::vector<int64_t>> prompts;
  for (int64_t i = 0; i < damage.prompts; ++i) {
    const at::Tensor prompt = tokens_[i].narrow(0, 0, damage.prompt_length).cpu().contiguous();
    prompts.emplace_back(prompt.const_data_ptr<int64_t>(), prompt.const_data_ptr<int64_t>() + damage.prompt_length);
  }
  const auto continuations = [&](const Model& model) {
    return generate(model, prompts, protocol.decoder.value_or(model.decoder),
                    {.max_new_tokens = damage.new_tokens, .seed = damage.seed});
  };
  {
    const std::lock_guard lock(continuations_->mutex);
    if (!continuations_->tokens) {
      continuations_->tokens = continuations(model_);
    }
  }
  damage.divergence = metrics::generation_divergence(
      *continuations_->tokens, continuations(damaged),
      {.new_tokens = damage.new_tokens, .bootstrap_samples = options_.bootstrap_samples, .seed = options_.seed});
  return damage;
}

}  // namespace hemostat
