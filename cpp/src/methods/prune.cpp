#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"
#include "pruning_axis.h"

namespace hemostat {
namespace {

Prepared prepare_magnitude(const Model& model, const Statistics*, const Options& options) {
  check_pattern("magnitude", model, options);
  const auto change = [options](const std::string&, const Linear& linear, double severity) {
    auto mask_options = pruned_at<prune::MagnitudeOptions>(options, severity);
    mask_options.scope = option<std::string>(options, "scope") == "row" ? prune::Scope::row : prune::Scope::tensor;
    const at::Tensor weight = linear.dense();
    return linear.with_weight(prune::apply(weight, prune::magnitude(weight, mask_options)));
  };
  return per_linear("magnitude", pruning_axis(model, options), model, options, change);
}

Prepared prepare_wanda(const Model& model, const Statistics* statistics, const Options& options) {
  check_pattern("wanda", model, options);
  check_statistics("wanda", model, filter_of(options), *statistics, Need::column_norm);
  std::map<std::string, at::Tensor> norms;
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    norms[named.name] = statistics->at(named.name).norm().to(model.device());
  }
  const auto change = [options, norms](const std::string& name, const Linear& linear, double severity) {
    const at::Tensor weight = linear.dense();
    const at::Tensor mask = prune::wanda(weight, norms.at(name), pruned_at<prune::WandaOptions>(options, severity));
    return linear.with_weight(prune::apply(weight, mask));
  };
  return per_linear("wanda", pruning_axis(model, options), model, options, change);
}

}  // namespace

std::vector<Method> prune_methods() {
  return {
      {.name = "magnitude",
       .kind = "weights",
       .description = "removes the smallest weights of each matrix or row",
       .axis = axes::sparsity(),
       .needs = {},
       .options = with_filter(
           {{"scope", std::string("tensor"), "what the fraction counts over", {"tensor", "row"}}, pattern_length()}),
       .prepare = prepare_magnitude,
       .axis_for = pruning_axis},
      {.name = "wanda",
       .kind = "weights",
       .description = "removes the smallest |weight| · input norm of each row",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options = with_filter({pattern_length()}),
       .prepare = prepare_wanda,
       .axis_for = pruning_axis},
  };
}

}  // namespace hemostat
