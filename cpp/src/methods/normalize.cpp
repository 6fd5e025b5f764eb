#include <hemostat/normalize.h>

#include "axes.h"
#include "catalogue.h"

namespace hemostat {
namespace {

Axis norms_axis(const Model& model, const Options&) {
  const int64_t norms = normalize::norm_count(model);
  return axes::fraction_of("norms", norms, norms);
}

Model drop_norms(const Model& model, const Held&, const Options&, double severity) {
  return normalize::drop_norms(model, {.count = axes::parts_at(severity, normalize::norm_count(model))});
}

}  // namespace

std::vector<Method> normalize_methods() {
  return {
      {.name = "drop_norms",
       .kind = Kind::normalization,
       .description = "leaves norms out, the deepest first",
       .axis = axes::fraction("norms"),
       .needs = {},
       .options = {},
       .change = OnModel{.change = drop_norms},
       .axis_for = norms_axis},
  };
}

}  // namespace hemostat
