#include <hemostat/context.h>

namespace hemostat::context {

Model token_noise(const Model& model, const TokenNoiseOptions& options) {
  check_options("hemostat.context.token_noise", options);
  Model result = model;
  result.input = {.kind = options.kind, .rate = options.rate, .seed = options.seed};
  return result;
}

}  // namespace hemostat::context
