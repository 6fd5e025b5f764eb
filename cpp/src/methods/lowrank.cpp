#include <hemostat/interrupt.h>
#include <hemostat/lowrank.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Axis removed_parameters() {
  Axis axis = axes::fraction("removed");
  axis.unit = "fraction of parameters removed";
  axis.continuous_at_neutral = false;
  return axis;
}

Prepared prepare_svd(const Model& model, const Statistics*, const Options& options) {
  std::map<std::string, lowrank::Decomposition> decompositions;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    check_interrupt();
    decompositions.emplace(named.name, lowrank::decompose(named.linear->dense()));
  }
  const auto change = [decompositions = std::move(decompositions)](const std::string& name, const Linear& linear,
                                                                   double severity) {
    lowrank::Factors factors = decompositions.at(name).at(severity);
    Linear result = linear.with_weight(at::Tensor());
    result.a = factors.a;
    result.b = factors.b;
    return result;
  };
  return per_linear("svd", removed_parameters(), model, options, change);
}

}  // namespace

std::vector<Method> lowrank_methods() {
  return {
      {.name = "svd",
       .kind = "factors",
       .description = "keeps the largest singular values of each matrix, as two factors",
       .axis = removed_parameters(),
       .needs = {},
       .options = with_filter(),
       .prepare = prepare_svd},
  };
}

}  // namespace hemostat
