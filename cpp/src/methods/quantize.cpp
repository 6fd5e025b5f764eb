#include <string>
#include <vector>

#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "gram_factor.h"
#include "group_size.h"
#include "on_linears.h"

namespace hemostat {
namespace {

Linear rtn(const Site& site, const Options& options, double severity) {
  const quantize::RtnOptions rtn{.bits = severity,
                                 .group_size = group_size_of("rtn", options),
                                 .symmetric = option<bool>(options, "symmetric"),
                                 .search_clip = option<bool>(options, "search_clip")};
  const at::Tensor weight = quantize::rtn(site.linear->dense(), rtn);
  return site.linear->with_weight(
      weight, quantize::group_bits_per_weight(weight.sizes(), rtn.group_size, severity, rtn.symmetric));
}

solve::GramFactor gptq_factor(const SharedInput& sites, const Options& options, MemoryBudget& budget) {
  return gram_factor(sites,
                     {.damp = option<double>(options, "damp"),
                      .act_order = option<bool>(options, "act_order"),
                      .block_size = option<int64_t>(options, "block_size")},
                     budget);
}

Linear gptq(const Site& site, const solve::GramFactor& factor, const Options& options, double severity) {
  const quantize::GptqOptions gptq{.bits = severity,
                                   .group_size = group_size_of("gptq", options),
                                   .symmetric = option<bool>(options, "symmetric"),
                                   .static_groups = option<bool>(options, "static_groups")};
  const bool ordered =
      option<bool>(options, "act_order") && !gptq.static_groups && gptq.group_size != quantize::kPerRow;
  const double feature_bits = ordered ? 32 : 0;  // which group is each one's
  const at::Tensor weight = site.linear->dense();
  return site.linear->with_weight(
      quantize::gptq(weight, factor.to(weight.device()), gptq),
      quantize::group_bits_per_weight(weight.sizes(), gptq.group_size, severity, gptq.symmetric, feature_bits));
}

// A scale of the input is the linears' together.
std::vector<Linear> awq(const SharedInput& sites, const Held&, const Options& options, double severity) {
  quantize::AwqOptions awq{
      .bits = severity, .group_size = group_size_of("awq", options), .symmetric = option<bool>(options, "symmetric")};
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
    awq.search_clip = option<bool>(options, "search_clip") && alone;
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
  const OptionSpec symmetric{"symmetric", false, "codes symmetric about 0", {}};
  return {
      {.name = "rtn",
       .kind = Kind::weights,
       .description = "rounds weights to the nearest of equally spaced values",
       .axis = axes::bits(),
       .needs = {},
       .options = {{"group_size",
                    std::string("row"),
                    "weights that share a scale: row, tensor, or a number that "
                    "divides the input features",
                    {}},
                   symmetric,
                   {"search_clip", false, "searches each group's range for the least squared error", {}}},
       .change = on_sites(rtn),
       .check = group_check("rtn", /*whole=*/true)},
      {.name = "gptq",
       .kind = Kind::weights,
       .description = "rounds weights column by column; later ones make up for it",
       .axis = axes::bits(),
       .needs = {Need::gram},
       .options =
           {{"group_size",
             std::string("128"),
             "weights that share a scale: row, or a number that divides the input features",
             {}},
            symmetric,
            {"act_order", false, "takes the most active input features first", {}},
            {"static_groups", false, "groups neighbours as they are, their ranges those of the weight at first", {}},
            {"block_size", int64_t{128}, "columns that are solved together", {}},
            {"damp", 0.01, "share of the mean diagonal entry added to the Gram matrix", {}}},
       .change = on_gram_factors(gptq_factor, gptq),
       .check = group_check("gptq", /*whole=*/false)},
      gguf_method(),
      {.name = "awq",
       .kind = Kind::weights,
       .description = "rounds weights whose salient inputs were scaled up",
       .axis = axes::bits(),
       .needs = {Need::absmean, Need::gram},
       .options =
           {{"group_size",
             std::string("128"),
             "weights that share a scale: row, or a number that divides the input features",
             {}},
            symmetric,
            {"search_clip", false, "clips each group, but for queries and keys, for the least error of outputs", {}}},
       .change = OnLinears{.change_input = awq, .costs = products_with_input},
       .check = group_check("awq", /*whole=*/false)},
      {.name = "activation",
       .kind = Kind::activations,
       .description = "rounds every token of a linear layer's input, dynamically",
       .axis = axes::bits(),
       .needs = {},
       .options = {symmetric},
       .change = on_sites(activation)},
  };
}

}  // namespace hemostat
