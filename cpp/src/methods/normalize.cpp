#include <hemostat/normalize.h>

#include "axes.h"
#include "catalogue.h"

namespace hemostat {
namespace {

Axis norms_axis(const Model& model, const Options&) {
  const int64_t norms = normalize::norm_count(model);
  return axes::fraction_of("norms", norms, norms);
}

Prepared prepare_drop_norms(const Model& model, const Statistics*, const Options& options) {
  const int64_t norms = normalize::norm_count(model);
  const auto apply = [model, norms](double severity) {
    return normalize::drop_norms(model, {.count = axes::parts_at(severity, norms)});
  };
  return Prepared("drop_norms", norms_axis(model, options), apply, model);
}

}  // namespace

std::vector<Method> normalize_methods() {
  return {
      {.name = "drop_norms",
       .kind = "normalization",
       .description = "leaves norms out, the deepest first",
       .axis = axes::fraction("norms"),
       .needs = {},
       .options = {},
       .prepare = prepare_drop_norms,
       .axis_for = norms_axis},
  };
}

}  // namespace hemostat
