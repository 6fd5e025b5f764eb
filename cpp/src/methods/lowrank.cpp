#include <algorithm>

#include <hemostat/lowrank.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "on_linears.h"

namespace hemostat {
namespace {

Axis removed_parameters() {
  Axis axis = axes::fraction("removed");
  axis.unit = "fraction of parameters removed";
  axis.continuous_at_neutral = false;
  return axis;
}

using Decompose = lowrank::Decomposition (*)(const Site&, const at::Tensor& weight, const Options&);

Linear truncated(const Site& site, const lowrank::Decomposition& decomposition, const Options&, double severity) {
  const c10::Device device = site.linear->dense().device();
  const lowrank::Factors factors = decomposition.at(severity);
  Linear result = site.linear->with_weight(at::Tensor());
  result.a = factors.a.to(device);
  result.b = factors.b.to(device);
  return result;
}

// Each linear is decomposed once; a severity takes the leading factors.
OnLinears factored(Decompose decompose) {
  OnLinears result = on_sites(
      [decompose](const Site& site, const Options& options, MemoryBudget& budget) {
        lowrank::Decomposition decomposition = decompose(site, site.linear->dense(), options);
        decomposition.us = budget.hold(decomposition.us);
        decomposition.vh = budget.hold(decomposition.vh);
        return decomposition;
      },
      truncated);
  result.holds = [](const SharedInput& sites, const Options&) {  // of as many ranks as have no more parameters
    double bytes = 0;
    for (const Site& site : sites) {
      const int64_t out = site.linear->out_features(), in = site.linear->in_features();
      bytes += 4 * static_cast<double>(out + in) * static_cast<double>(out * in / (out + in));
    }
    return bytes;
  };
  result.costs = [](const SharedInput& sites, const Options&) {
    double products = 0;
    for (const Site& site : sites) {
      const auto out = static_cast<double>(site.linear->out_features());
      const auto in = static_cast<double>(site.linear->in_features());
      products += out * in * std::min(out, in);
    }
    return products;
  };
  return result;
}

lowrank::Decomposition svd(const Site&, const at::Tensor& weight, const Options&) { return lowrank::decompose(weight); }

lowrank::Decomposition asvd(const Site& site, const at::Tensor& weight, const Options& options) {
  return lowrank::decompose_asvd(weight, site.input->absmean().to(weight.device()), option<double>(options, "alpha"));
}

lowrank::Decomposition svd_llm(const Site& site, const at::Tensor& weight, const Options& options) {
  return lowrank::decompose_svd_llm(weight, site.input->gram().to(weight.device()), option<double>(options, "damp"));
}

}  // namespace

std::vector<Method> lowrank_methods() {
  return {
      {.name = "svd",
       .kind = Kind::factors,
       .description = "keeps a matrix's largest singular values, as two factors",
       .axis = removed_parameters(),
       .needs = {},
       .options = {},
       .change = factored(svd)},
      {.name = "asvd",
       .kind = Kind::factors,
       .description = "svd where input features count by their mean activation",
       .axis = removed_parameters(),
       .needs = {Need::absmean},
       .options = declared<lowrank::AsvdOptions>(),
       .change = factored(asvd)},
      {.name = "svd_llm",
       .kind = Kind::factors,
       .description = "the two factors that err least on the calibration inputs",
       .axis = removed_parameters(),
       .needs = {Need::gram},
       .options = declared<lowrank::SvdLlmOptions>(),
       .change = factored(svd_llm)},
  };
}

}  // namespace hemostat
