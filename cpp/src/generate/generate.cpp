#include <hemostat/generate.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/decode.h>
#include <hemostat/error.h>

#include "common/token_hash.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.generate";

using Tokens = std::vector<int64_t>;

void check_ids(const Tokens& ids, int64_t vocab, const std::string& argument) {
  for (const int64_t id : ids) {
    if (id < 0 || id >= vocab) {
      throw ValueError(
          fmt::format("{}: {} has the ID {}, but the vocabulary takes 0 … {}", kOperation, argument, id, vocab - 1));
    }
  }
}

void check(const Model& model, const std::vector<Tokens>& prompts, const Decoder& decoder,
           const GenerateOptions& options) {
  const auto at_least_one = [](const char* option, int64_t value) {
    if (value < 1) {
      throw ValueError(fmt::format("{}: {} is {}, but takes at least 1", kOperation, option, value));
    }
  };
  at_least_one("max_new_tokens", options.max_new_tokens);
  at_least_one("batch", options.batch);
  if (!(decoder.temperature > 0) || !std::isfinite(decoder.temperature)) {
    throw ValueError(
        fmt::format("{}: temperature is {}, but must be positive and finite; do_sample=False takes the most likely",
                    kOperation, decoder.temperature));
  }
  if (options.eos_token_ids) {
    check_ids(*options.eos_token_ids, model.config.vocab_size, "eos_token_id");
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string prompt = fmt::format("prompts[{}]", i);
    if (prompts[i].empty()) {
      throw ValueError(fmt::format("{}: {} is empty, but takes at least one token", kOperation, prompt));
    }
    check_ids(prompts[i], model.config.vocab_size, prompt);
    const auto length = static_cast<int64_t>(prompts[i].size());
    if (length > model.config.context - options.max_new_tokens) {
      throw ValueError(fmt::format("{}: {} has {} tokens, which with max_new_tokens = {} exceed the context of {}",
                                   kOperation, prompt, length, options.max_new_tokens, model.config.context));
    }
  }
}

// Some prompts of one length, side by side.
class Batch {
 public:
  Batch(const Model& model, const std::vector<Tokens>& prompts, std::vector<int64_t> indices, const Decoder& decoder,
        const GenerateOptions& options)
      : model_(model), indices_(std::move(indices)), decoder_(decoder), seed_(options.seed) {
    const auto on_device = at::TensorOptions().dtype(at::kLong).device(model.device());
    std::vector<at::Tensor> rows;
    for (const int64_t index : indices_) {
      rows.push_back(at::tensor(prompts[index], at::kLong));
    }
    tokens_ = at::stack(rows).to(on_device);
    index_column_ = at::tensor(indices_, at::kLong).unsqueeze(1).to(on_device);
    vocabulary_ = at::arange(model.head.linear.out_features(), on_device);
    eos_ = options.eos_token_ids.value_or(model.config.eos_token_ids);
  }

  void run(int64_t max_new_tokens, std::vector<Tokens>& continuations) {
    KvCache cache(model_, tokens_.size(0), tokens_.size(1) + max_new_tokens);
    std::vector<bool> ended(indices_.size(), false);
    for (int64_t i = 0; i < max_new_tokens; ++i) {
      const at::Tensor hidden = hidden_states(model_, tokens_, {.cache = &cache});
      tokens_ = chosen(logits(model_, hidden.slice(1, hidden.size(1) - 1)).squeeze(1), cache.length()).unsqueeze(1);
      const at::Tensor read = tokens_.cpu();
      const int64_t* fresh = read.const_data_ptr<int64_t>();
      for (size_t row = 0; row < indices_.size(); ++row) {
        if (!ended[row]) {
          continuations[indices_[row]].push_back(fresh[row]);
          ended[row] = std::find(eos_.begin(), eos_.end(), fresh[row]) != eos_.end();
        }
      }
      if (std::find(ended.begin(), ended.end(), false) == ended.end()) {
        break;
      }
    }
  }

 private:
  // logits [B, V] → the token [B] that comes at `position` of each text
  at::Tensor chosen(const at::Tensor& logits, int64_t position) const {
    const at::Tensor scores = logits.to(at::kFloat);
    if (!decoder_.do_sample) {
      return at::argmax(scores, -1);
    }
    const at::Tensor positions = at::full({}, position, index_column_.options());
    std::vector<at::Tensor> drawn;
    for (int64_t row = 0; row < scores.size(0); ++row) {  // one at a time, so that the noise stays in cache
      const at::Tensor noise = gumbel(hash(seed_, {index_column_[row], positions, vocabulary_}));
      drawn.push_back(at::argmax(decode::temperature(scores[row], decoder_.temperature).add_(noise), -1));
    }
    return at::stack(drawn);
  }

  const Model& model_;
  std::vector<int64_t> indices_;  // into the prompts
  const Decoder& decoder_;
  int64_t seed_;
  Tokens eos_;
  at::Tensor tokens_;                     // [B, T], what the model reads next
  at::Tensor index_column_, vocabulary_;  // [B, 1], [V]
};

}  // namespace

std::vector<Tokens> generate(const Model& model, const std::vector<Tokens>& prompts, const Decoder& decoder,
                             const GenerateOptions& options) {
  check(model, prompts, decoder, options);
  const c10::InferenceMode inference;
  std::map<size_t, std::vector<int64_t>> by_length;
  for (size_t i = 0; i < prompts.size(); ++i) {
    by_length[prompts[i].size()].push_back(static_cast<int64_t>(i));
  }
  std::vector<Tokens> continuations(prompts.size());
  for (const auto& [length, indices] : by_length) {
    for (size_t begin = 0; begin < indices.size(); begin += static_cast<size_t>(options.batch)) {
      const size_t end = std::min(indices.size(), begin + static_cast<size_t>(options.batch));
      Batch(model, prompts, {indices.begin() + begin, indices.begin() + end}, decoder, options)
          .run(options.max_new_tokens, continuations);
    }
  }
  return continuations;
}

}  // namespace hemostat
