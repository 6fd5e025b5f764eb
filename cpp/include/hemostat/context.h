// Room `context`: what the model reads is changed. Model in, Model out.
#pragma once

#include <array>
#include <cstdint>
#include <tuple>

#include <hemostat/model.h>
#include <hemostat/options.h>

namespace hemostat {

template <>
inline constexpr auto words<TokenNoise> =
    std::array{Word{TokenNoise::replace, "replace"}, Word{TokenNoise::drop, "drop"}, Word{TokenNoise::swap, "swap"}};

}  // namespace hemostat

namespace hemostat::context {

struct TokenNoiseOptions {
  double rate = 0;
  TokenNoise kind = TokenNoise::replace;  // see InputPerturbation in model.h
  int64_t seed = 0;

  static constexpr auto fields() {
    return std::tuple{Field{"rate", &TokenNoiseOptions::rate, "fraction of the tokens", between(0, 1), SetBy::severity},
                      Field{"kind", &TokenNoiseOptions::kind, "what happens to a token"},
                      Field{"seed", &TokenNoiseOptions::seed, "of the hash that chooses the tokens"}};
  }
};

// Sets Model.input: a fraction of the tokens that the model reads is noise; the targets stay clean. With one seed, what
// falls at a rate also falls at every higher one. It replaces the noise that was set before. ValueError for a rate out
// of range.
Model token_noise(const Model& model, const TokenNoiseOptions& options);

}  // namespace hemostat::context
