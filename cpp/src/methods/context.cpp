#include <hemostat/context.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"

namespace hemostat {
namespace {

Model token_noise(const Model& model, const Held&, const Options& options, double severity) {
  auto noise = options_as<context::TokenNoiseOptions>(options);
  noise.rate = severity;
  return context::token_noise(model, noise);
}

}  // namespace

std::vector<Method> context_methods() {
  return {
      {.name = "token_noise",
       .kind = Kind::input,
       .description = "replaces, drops or swaps tokens that the model reads",
       .axis = axes::fraction("rate"),
       .needs = {},
       .options = declared<context::TokenNoiseOptions>(),
       .change = OnModel{.change = token_noise}},
  };
}

}  // namespace hemostat
