#include <hemostat/context.h>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat::context {

Model token_noise(const Model& model, const TokenNoiseOptions& options) {
  if (!(options.rate >= 0 && options.rate <= 1)) {
    throw ValueError(
        fmt::format("hemostat.context.token_noise: rate is {}, but takes 0 … 1 of the tokens", options.rate));
  }
  Model result = model;
  result.input = {.kind = options.kind, .rate = options.rate, .seed = options.seed};
  return result;
}

}  // namespace hemostat::context
