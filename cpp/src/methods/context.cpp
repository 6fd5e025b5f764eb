#include <hemostat/context.h>

#include "axes.h"
#include "catalogue.h"
#include "model/parts.h"
#include "on_linears.h"

namespace hemostat {
namespace {

Model token_noise(const Model& model, const Held&, const Options& options, double severity) {
  return context::token_noise(model,
                              {.rate = severity,
                               .kind = parts::from_word<TokenNoise>(option<std::string>(options, "kind")).value(),
                               .seed = option<int64_t>(options, "seed")});
}

// All but none.
std::vector<std::string> kinds_of_noise() {
  const auto& words = parts::kWords<TokenNoise>;
  return {words.begin() + 1, words.end()};
}

}  // namespace

std::vector<Method> context_methods() {
  return {
      {.name = "token_noise",
       .kind = Kind::input,
       .description = "replaces, drops or swaps tokens that the model reads",
       .axis = axes::fraction("rate"),
       .needs = {},
       .options = {{"kind", std::string("replace"), "what happens to a token", kinds_of_noise()},
                   {"seed", int64_t{0}, "of the hash that chooses the tokens", {}}},
       .change = OnModel{.change = token_noise}},
  };
}

}  // namespace hemostat
