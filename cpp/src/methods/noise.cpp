#include <hemostat/interrupt.h>
#include <hemostat/noise.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Prepared prepare_gaussian(const Model& model, const Statistics*, const Options& options) {
  const auto seed = static_cast<uint64_t>(option<int64_t>(options, "seed"));
  std::map<std::string, at::Tensor> directions;  // one for all severities
  uint64_t index = 0;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    check_interrupt();
    const auto& linear = *named.linear;
    directions.emplace(named.name, noise::direction({linear.out_features(), linear.in_features()},
                                                    seed * 0x9e3779b97f4a7c15ULL + index++, model.device()));
  }
  const auto change = [directions = std::move(directions)](const std::string& name, const Linear& linear,
                                                           double severity) {
    return linear.with_weight(noise::apply(linear.dense(), directions.at(name), {.sigma = severity}));
  };
  return per_linear("gaussian", axes::sigma(), model, options, change);
}

}  // namespace

std::vector<Method> noise_methods() {
  return {
      {.name = "gaussian",
       .kind = "weights",
       .description = "adds Gaussian noise of σ standard deviations of the matrix",
       .axis = axes::sigma(),
       .needs = {},
       .options = with_filter({{"seed", int64_t{0}, "of the noise's direction", {}}}),
       .prepare = prepare_gaussian},
  };
}

}  // namespace hemostat
