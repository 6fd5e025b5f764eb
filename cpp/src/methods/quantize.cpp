#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "group_size.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Prepared prepare_rtn(const Model& model, const Statistics*, const Options& options) {
  quantize::RtnOptions rtn{.group_size = group_size_of("rtn", options),
                           .symmetric = option<bool>(options, "symmetric"),
                           .search_clip = option<bool>(options, "search_clip")};
  const auto change = [rtn](const std::string&, const Linear& linear, double severity) mutable {
    rtn.bits = severity;
    const at::Tensor weight = quantize::rtn(linear.dense(), rtn);
    return linear.with_weight(weight,
                              quantize::group_bits_per_weight(weight.sizes(), rtn.group_size, severity, rtn.symmetric));
  };
  return per_linear("rtn", axes::bits(), model, options, change);
}

Prepared prepare_gptq(const Model& model, const Statistics* statistics, const Options& options) {
  quantize::GptqOptions gptq{.group_size = group_size_of("gptq", options),
                             .symmetric = option<bool>(options, "symmetric")};
  const bool act_order = option<bool>(options, "act_order");
  const auto factors = gram_factors("gptq", model, filter_of(options), *statistics,
                                    {.damp = option<double>(options, "damp"),
                                     .act_order = act_order,
                                     .block_size = option<int64_t>(options, "block_size")});
  const double feature_bits = act_order && gptq.group_size != quantize::kPerRow ? 32 : 0;  // which group is each one's
  const auto change = [=](const std::string& name, const Linear& linear, double severity) mutable {
    gptq.bits = severity;
    const at::Tensor weight = linear.dense();
    return linear.with_weight(
        quantize::gptq(weight, factors.at(name).to(weight.device()), gptq),
        quantize::group_bits_per_weight(weight.sizes(), gptq.group_size, severity, gptq.symmetric, feature_bits));
  };
  return per_linear("gptq", axes::bits(), model, options, change);
}

// What the linears on one input share: a scale of that input is theirs together.
struct ScaledInput {
  at::Tensor absmean, gram;
};

// Queries and keys meet in a product, where a clip that is best for each alone is not best: the authors leave them.
std::set<std::string> queries_and_keys(const Model& model) {
  std::set<const Linear*> found;
  for (const Block& block : model.blocks) {
    found.insert({&block.attention.q, &block.attention.k});
  }
  std::set<std::string> names;
  for (const NamedLinear& named : linears(model)) {
    if (found.count(named.linear) > 0) {
      names.insert(named.name);
    }
  }
  return names;
}

Prepared prepare_awq(const Model& model, const Statistics* statistics, const Options& options) {
  const LinearFilter filter = filter_of(options);
  check_chosen("awq", model, filter);
  quantize::AwqOptions awq{.group_size = group_size_of("awq", options),
                           .symmetric = option<bool>(options, "symmetric")};
  check_statistics("awq", model, filter, *statistics, Need::absmean);
  check_statistics("awq", model, filter, *statistics, Need::gram);

  MemoryBudget budget;
  std::map<std::string, size_t> input_of;
  std::vector<ScaledInput> inputs;
  for (const InputGroup& group : by_input(model, filter, *statistics)) {
    check_interrupt();
    for (const NamedLinear& named : group.linears) {
      input_of[named.name] = inputs.size();
    }
    inputs.push_back({.absmean = group.input->absmean().to(model.device()), .gram = budget.hold(group.input->gram())});
  }
  const std::set<std::string> unclipped = queries_and_keys(model);
  const bool search_clip = option<bool>(options, "search_clip");
  const auto apply = [=, inputs = std::move(inputs)](double severity) {
    at::NoGradGuard no_grad;
    quantize::AwqOptions at_bits = awq;
    at_bits.bits = severity;
    std::vector<std::vector<NamedLinear>> sharing(inputs.size());
    for (const NamedLinear& named : linears(model, filter)) {
      sharing[input_of.at(named.name)].push_back(named);
    }
    std::vector<at::Tensor> scales;
    for (size_t i = 0; i < inputs.size(); ++i) {
      check_interrupt();
      std::vector<at::Tensor> weights;
      for (const NamedLinear& named : sharing[i]) {
        weights.push_back(named.linear->dense());
      }
      scales.push_back(about("awq", sharing[i], [&] {
        return quantize::awq_scale(weights, inputs[i].absmean, inputs[i].gram.to(model.device()), at_bits);
      }));
    }
    return map_linears(model, filter, [&](const std::string& name, const Linear& linear) {
      const size_t i = input_of.at(name);
      quantize::AwqOptions own = at_bits;
      own.search_clip = search_clip && unclipped.count(name) == 0;
      own.check_finite = false;  // awq_scale has looked at all of it
      return about("awq", {{name, &linear}}, [&] {
        const at::Tensor weight =
            quantize::awq_scaled(linear.dense(), scales[i], inputs[i].gram.to(model.device()), own);
        return linear.with_weight(weight, quantize::group_bits_per_weight(weight.sizes(), own.group_size, severity,
                                                                          own.symmetric, /*feature_bits=*/16));
      });
    });
  };
  return Prepared("awq", axes::bits(), apply, model);
}

Prepared prepare_activation(const Model& model, const Statistics*, const Options& options) {
  const bool symmetric = option<bool>(options, "symmetric");
  const auto change = [symmetric](const std::string&, const Linear& linear, double severity) {
    Linear result = linear;
    result.input.bits = severity;
    result.input.symmetric = symmetric;
    return result;
  };
  return per_linear("activation", axes::bits(), model, options, change);
}

}  // namespace

std::vector<Method> quantize_methods() {
  const OptionSpec symmetric{"symmetric", false, "codes symmetric about 0", {}};
  return {
      {.name = "rtn",
       .kind = "weights",
       .description = "rounds weights to the nearest of equally spaced values",
       .axis = axes::bits(),
       .needs = {},
       .options = with_filter({{"group_size",
                                std::string("row"),
                                "weights that share a scale: row, tensor, or a number that "
                                "divides the input features",
                                {}},
                               symmetric,
                               {"search_clip", false, "searches each group's range for the least squared error", {}}}),
       .prepare = prepare_rtn,
       .check = group_check("rtn", /*whole=*/true)},
      {.name = "gptq",
       .kind = "weights",
       .description = "rounds weights column by column; later ones make up for it",
       .axis = axes::bits(),
       .needs = {Need::gram},
       .options = with_filter({{"group_size",
                                std::string("row"),
                                "weights that share a scale: row, or a number that divides the input features",
                                {}},
                               symmetric,
                               {"act_order", false, "takes the most active input features first", {}},
                               {"block_size", int64_t{128}, "columns that are solved together", {}},
                               {"damp", 0.01, "share of the mean diagonal entry added to the Gram matrix", {}}}),
       .prepare = prepare_gptq,
       .check = group_check("gptq", /*whole=*/false)},
      gguf_method(),
      {.name = "awq",
       .kind = "weights",
       .description = "rounds weights whose salient inputs were scaled up",
       .axis = axes::bits(),
       .needs = {Need::absmean, Need::gram},
       .options = with_filter(
           {{"group_size",
             std::string("row"),
             "weights that share a scale: row, or a number that divides the input features",
             {}},
            symmetric,
            {"search_clip", false, "clips each group, but for queries and keys, for the least error of outputs", {}}}),
       .prepare = prepare_awq,
       .check = group_check("awq", /*whole=*/false)},
      {.name = "activation",
       .kind = "activations",
       .description = "rounds every token of a linear layer's input, dynamically",
       .axis = axes::bits(),
       .needs = {},
       .options = with_filter({symmetric}),
       .prepare = prepare_activation},
  };
}

}  // namespace hemostat
