// Room `context`: what the model reads is changed. Model in, Model out.
#pragma once

#include <hemostat/model.h>

namespace hemostat::context {

struct TokenNoiseOptions {
  double rate = 0;                        // fraction of tokens, 0 … 1
  TokenNoise kind = TokenNoise::replace;  // replace, drop, swap: see InputPerturbation in model.h
  int64_t seed = 0;
};

// Sets Model.input: a fraction of the tokens that the model reads is noise; the targets stay clean. With one seed, what
// falls at a rate also falls at every higher one. It replaces the noise that was set before. ValueError for a rate out
// of range.
Model token_noise(const Model& model, const TokenNoiseOptions& options);

}  // namespace hemostat::context
