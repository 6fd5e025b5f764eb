#include <hemostat/context.h>

#include "axes.h"
#include "catalogue.h"
#include "on_linears.h"

namespace hemostat {
namespace {

Model token_noise(const Model& model, const Held&, const Options& options, double severity) {
  const std::string& kind = option<std::string>(options, "kind");
  return context::token_noise(model, {.rate = severity,
                                      .kind = kind == "drop"   ? TokenNoise::drop
                                              : kind == "swap" ? TokenNoise::swap
                                                               : TokenNoise::replace,
                                      .seed = option<int64_t>(options, "seed")});
}

}  // namespace

std::vector<Method> context_methods() {
  return {
      {.name = "token_noise",
       .kind = Kind::input,
       .description = "replaces, drops or swaps tokens that the model reads",
       .axis = axes::fraction("rate"),
       .needs = {},
       .options = {{"kind", std::string("replace"), "what happens to a token", {"replace", "drop", "swap"}},
                   {"seed", int64_t{0}, "of the hash that chooses the tokens", {}}},
       .change = OnModel{.change = token_noise}},
  };
}

}  // namespace hemostat
