// Room `generate`: the loop that continues a text, token by token, with the key-value cache.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <hemostat/model.h>

namespace hemostat {

struct GenerateOptions {
  int64_t max_new_tokens = 0;  // at least 1; prompt and new tokens together within the model's context
  // Of the random numbers. They are hashed from (seed, index of the prompt, position, token), so that two models, or
  // one model at two temperatures, share them: equal models sample equal text, and similar ones stay together as long
  // as they can.
  int64_t seed = 0;
  std::optional<std::vector<int64_t>> eos_token_ids = std::nullopt;  // end a text; none: the model's; empty: never
  int64_t batch = 16;                                                // prompts at a time, all of one length
};

// The continuation of each prompt, without the prompt and with the end-of-text token that ended it. `decoder` says how
// tokens are chosen (the model's own decoder is not asked); sampling is by the Gumbel-max trick: the largest of
// logit / temperature − log(−log u), u uniform from the hash, which is distributed as softmax(logits / temperature)
// (Gumbel, "Statistical Theory of Extreme Values and Some Practical Applications", 1954). NaN counts as the largest
// logit. Random numbers don't depend on batching, and logits only by a matrix product's rounding.
//   prompts  each at least one token ID in 0 … V − 1
// ValueError naming the prompt where that is not so or its length with max_new_tokens exceeds the context, and for
// options or a decoder out of range; before any work.
std::vector<std::vector<int64_t>> generate(const Model& model, const std::vector<std::vector<int64_t>>& prompts,
                                           const Decoder& decoder, const GenerateOptions& options);

}  // namespace hemostat
