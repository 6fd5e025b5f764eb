#include <vector>

#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "declared.h"
#include "gram_factor.h"

namespace hemostat {
namespace {

Linear rtn(const Site& site, const Options& options, double severity) {
  auto rtn = options_as<quantize::RtnOptions>(options);
  rtn.bits = severity;
  const at::Tensor weight = quantize::rtn(site.linear->dense(), rtn);
  return site.linear->with_weight(
      weight, quantize::group_bits_per_weight(weight.sizes(), rtn.group_size, severity, rtn.symmetric));
}

solve::GramFactor gptq_factor(const SharedInput& sites, const Options& options, MemoryBudget& budget) {
  return gram_factor(sites, options_as<solve::GramFactorOptions>(options), budget);
}

Linear gptq(const Site& site, const solve::GramFactor& factor, const Options& options, double severity) {
  auto gptq = options_as<quantize::GptqOptions>(options);
  gptq.bits = severity;
  const bool ordered = gptq.act_order && !gptq.static_groups && gptq.group_size != quantize::kPerRow;
  const double feature_bits = ordered ? 32 : 0;  // which group is each one's
  const at::Tensor weight = site.linear->dense();
  return site.linear->with_weight(
      quantize::gptq(weight, factor.to(weight.device()), gptq),
      quantize::group_bits_per_weight(weight.sizes(), gptq.group_size, severity, gptq.symmetric, feature_bits));
}

// A scale of the input is the linears' together.
std::vector<Linear> awq(const SharedInput& sites, const Held&, const Options& options, double severity) {
  auto awq = options_as<quantize::AwqOptions>(options);
  awq.bits = severity;
  const bool search_clip = awq.search_clip;
  std::vector<at::Tensor> weights;
  for (const Site& site : sites) {
    weights.push_back(site.linear->dense());
  }
  const c10::Device device = weights.front().device();
  const at::Tensor gram = sites.front().input->gram().to(device);
  const at::Tensor scale = quantize::awq_scale(weights, sites.front().input->absmean().to(device), gram, awq);
  awq.check_finite = false;  // awq_scale has looked at all of it
  std::vector<Linear> result;
  for (size_t i = 0; i < sites.size(); ++i) {
    // Queries and keys meet in a product, where a clip that is best for each alone is not best: the authors leave them.
    const bool alone = sites[i].role != Role::q && sites[i].role != Role::k;
    awq.search_clip = search_clip && alone;
    const at::Tensor weight = quantize::awq_scaled(weights[i], scale, gram, awq);
    result.push_back(sites[i].linear->with_weight(
        weight, quantize::group_bits_per_weight(weight.sizes(), awq.group_size, severity, awq.symmetric,
                                                /*feature_bits=*/16)));
  }
  return result;
}

Linear activation(const Site& site, const Options& options, double severity) {
  Linear result = *site.linear;
  result.input.bits = severity;
  result.input.symmetric = option<bool>(options, "symmetric");
  return result;
}

}  // namespace

std::vector<Method> quantize_methods() {
  return {
      {.name = "rtn",
       .kind = Kind::weights,
       .description = "rounds weights to the nearest of equally spaced values",
       .axis = axes::bits(),
       .needs = {},
       .options = declared<quantize::RtnOptions>(),
       .change = on_sites(rtn)},
      {.name = "gptq",
       .kind = Kind::weights,
       .description = "rounds weights column by column; later ones make up for it",
       .axis = axes::bits(),
       .needs = {Need::gram},
       .options = declared<quantize::GptqOptions>(),
       .change = on_gram_factors(gptq_factor, gptq)},
      gguf_method(),
      {.name = "awq",
       .kind = Kind::weights,
       .description = "rounds weights whose salient inputs were scaled up",
       .axis = axes::bits(),
       .needs = {Need::absmean, Need::gram},
       .options = declared<quantize::AwqOptions>(),
       .change = OnLinears{.change_input = awq, .costs = products_with_input}},
      {.name = "activation",
       .kind = Kind::activations,
       .description = "rounds every token of a linear layer's input, dynamically",
       .axis = axes::bits(),
       .needs = {},
       .options = declared<quantize::ActivationOptions>(),
       .change = on_sites(activation)},
  };
}

}  // namespace hemostat
