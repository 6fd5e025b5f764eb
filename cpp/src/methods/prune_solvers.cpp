#include <string>

#include <hemostat/prune.h>

#include "axes.h"
#include "catalogue.h"
#include "gram_factor.h"
#include "on_linears.h"
#include "pruning_axis.h"

namespace hemostat {
namespace {

prune::AdmmFactor admm_factor(const SharedInput& sites, const Options& options, MemoryBudget& budget) {
  const c10::Device device = sites.front().linear->dense().device();
  prune::AdmmFactor factor =
      prune::admm_factor(sites.front().input->gram().to(device), option<double>(options, "damp"));
  factor.inverse = budget.hold(factor.inverse);
  return factor;
}

Linear admm(const Site& site, const prune::AdmmFactor& held, const Options& options, double severity) {
  const auto admm = pruned_at<prune::AdmmOptions>(options, severity);
  const at::Tensor weight = site.linear->dense();
  prune::AdmmFactor factor = held;
  factor.inverse = factor.inverse.to(weight.device());  // from its file, where it had to be kept there
  return site.linear->with_weight(prune::admm(weight, factor, admm).weight);
}

struct Moments {
  at::Tensor mean, norm;
};

Moments input_moments(const SharedInput& sites, const Options&, MemoryBudget&) {
  return {.mean = sites.front().input->mean(), .norm = sites.front().input->norm()};
}

Linear dsnot(const Site& site, const Moments& input, const Options& options, double severity) {
  const at::Tensor weight = site.linear->dense();
  const at::Tensor mean = input.mean.to(weight.device()), norm = input.norm.to(weight.device());
  auto magnitude = pruned_at<prune::MagnitudeOptions>(options, severity);
  magnitude.scope = prune::Scope::row;
  const at::Tensor initial = option<std::string>(options, "initial") == "magnitude"
                                 ? prune::magnitude(weight, magnitude)
                                 : prune::wanda(weight, norm, pruned_at<prune::WandaOptions>(options, severity));
  auto dsnot = options_as<prune::DsnotOptions>(options);
  dsnot.pattern = magnitude.pattern;
  const at::Tensor mask = prune::dsnot(weight, initial, mean, norm, dsnot);
  return site.linear->with_weight(prune::apply(weight, mask));
}

}  // namespace

std::vector<Method> prune_solver_methods() {
  return {
      {.name = "admm",
       .kind = Kind::weights,
       .description = "removes weights, adjusts the others by alternating directions",
       .axis = axes::sparsity(),
       .needs = {Need::gram},
       .options = declared<prune::AdmmOptions>() + pattern_length(),
       .change = on_gram_factors(admm_factor, admm),
       .axis_for = pruning_axis},
      {.name = "dsnot",
       .kind = Kind::weights,
       .description = "swaps kept and removed weights until output means are right",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm, Need::mean},
       .options =
           std::vector<OptionSpec>{
               {"initial", std::string("wanda"), "the mask it begins with", {"wanda", "magnitude"}}} +
           pattern_length() + declared<prune::DsnotOptions>({"max_cycles"}),
       .change = on_inputs(input_moments, dsnot),
       .axis_for = pruning_axis},
  };
}

}  // namespace hemostat
