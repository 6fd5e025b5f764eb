#include <functional>

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

// Every chosen linear is decomposed once; a severity takes the leading factors of each.
using Decompose = std::function<lowrank::Decomposition(const std::string& name, const at::Tensor& weight)>;

Prepared factored(const std::string& method, const Model& model, const Options& options, const Decompose& decompose) {
  MemoryBudget budget;
  std::map<std::string, lowrank::Decomposition> decompositions;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    check_interrupt();
    lowrank::Decomposition decomposition =
        about(method, {named}, [&] { return decompose(named.name, named.linear->dense()); });
    decomposition.us = budget.hold(decomposition.us);
    decomposition.vh = budget.hold(decomposition.vh);
    decompositions.emplace(named.name, std::move(decomposition));
  }
  const auto change = [decompositions = std::move(decompositions), device = model.device()](
                          const std::string& name, const Linear& linear, double severity) {
    const lowrank::Factors factors = decompositions.at(name).at(severity);
    Linear result = linear.with_weight(at::Tensor());
    result.a = factors.a.to(device);
    result.b = factors.b.to(device);
    return result;
  };
  return per_linear(method, removed_parameters(), model, options, change);
}

Prepared prepare_svd(const Model& model, const Statistics*, const Options& options) {
  return factored("svd", model, options,
                  [](const std::string&, const at::Tensor& weight) { return lowrank::decompose(weight); });
}

Prepared prepare_asvd(const Model& model, const Statistics* statistics, const Options& options) {
  check_statistics("asvd", model, filter_of(options), *statistics, Need::absmean);
  const auto alpha = option<double>(options, "alpha");
  return factored("asvd", model, options, [&](const std::string& name, const at::Tensor& weight) {
    return lowrank::decompose_asvd(weight, statistics->at(name).absmean().to(weight.device()), alpha);
  });
}

Prepared prepare_svd_llm(const Model& model, const Statistics* statistics, const Options& options) {
  check_statistics("svd_llm", model, filter_of(options), *statistics, Need::gram);
  const auto damp = option<double>(options, "damp");
  return factored("svd_llm", model, options, [&](const std::string& name, const at::Tensor& weight) {
    return lowrank::decompose_svd_llm(weight, statistics->at(name).gram().to(weight.device()), damp);
  });
}

}  // namespace

std::vector<Method> lowrank_methods() {
  return {
      {.name = "svd",
       .kind = "factors",
       .description = "keeps a matrix's largest singular values, as two factors",
       .axis = removed_parameters(),
       .needs = {},
       .options = with_filter(),
       .prepare = prepare_svd},
      {.name = "asvd",
       .kind = "factors",
       .description = "svd where input features count by their mean activation",
       .axis = removed_parameters(),
       .needs = {Need::absmean},
       .options = with_filter({{"alpha", 0.5, "exponent of the mean |activation|, 0 or more; 0: svd", {}}}),
       .prepare = prepare_asvd},
      {.name = "svd_llm",
       .kind = "factors",
       .description = "the two factors that err least on the calibration inputs",
       .axis = removed_parameters(),
       .needs = {Need::gram},
       .options = with_filter(
           {{"damp", 0.0, "what the Gram matrix's diagonal grows by, in fractions of its mean; 0 or more", {}}}),
       .prepare = prepare_svd_llm},
  };
}

}  // namespace hemostat
