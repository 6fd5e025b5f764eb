#include <hemostat/context.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Prepared prepare_token_noise(const Model& model, const Statistics*, const Options& options) {
  const std::string& kind = option<std::string>(options, "kind");
  context::TokenNoiseOptions noise{.kind = kind == "drop"   ? TokenNoise::drop
                                           : kind == "swap" ? TokenNoise::swap
                                                            : TokenNoise::replace,
                                   .seed = option<int64_t>(options, "seed")};
  const auto apply = [model, noise](double severity) mutable {
    noise.rate = severity;
    return context::token_noise(model, noise);
  };
  return Prepared("token_noise", axes::fraction("rate"), apply, model);
}

}  // namespace

std::vector<Method> context_methods() {
  return {
      {.name = "token_noise",
       .kind = "input",
       .description = "replaces, drops or swaps tokens that the model reads",
       .axis = axes::fraction("rate"),
       .needs = {},
       .options = {{"kind", std::string("replace"), "what happens to a token", {"replace", "drop", "swap"}},
                   {"seed", int64_t{0}, "of the hash that chooses the tokens", {}}},
       .prepare = prepare_token_noise},
  };
}

}  // namespace hemostat
