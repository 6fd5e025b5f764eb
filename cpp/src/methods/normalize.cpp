#include <cmath>

#include <hemostat/normalize.h>

#include "axes.h"
#include "catalogue.h"

namespace hemostat {
namespace {

Axis dropped_norms(int64_t norms) {
  Axis axis = axes::fraction_of("norms", norms, norms);
  return axis;
}

Prepared prepare_drop_norms(const Model& model, const Statistics*, const Options&) {
  const int64_t norms = normalize::norm_count(model);
  const auto apply = [model, norms](double severity) {
    return normalize::drop_norms(model, {.count = std::llround(severity * static_cast<double>(norms))});
  };
  return Prepared("drop_norms", dropped_norms(norms), apply, model);
}

}  // namespace

std::vector<Method> normalize_methods() {
  return {
      {.name = "drop_norms", .kind = "normalization", .description = "leaves norms out, the deepest first",
       .axis = dropped_norms(0), .needs = {}, .options = {}, .prepare = prepare_drop_norms},
  };
}

}  // namespace hemostat
