#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "group_size.h"
#include "per_linear.h"

namespace hemostat {
namespace {

void check_group_size(const std::string& method, const Model& model, const Options& options, int64_t group_size) {
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    if (group_size > 0 && named.linear->in_features() % group_size != 0) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): group_size = {} does not divide the {} input features of '{}'", method,
                      group_size, named.linear->in_features(), named.name));
    }
  }
}

Prepared prepare_rtn(const Model& model, const Statistics*, const Options& options) {
  quantize::RtnOptions rtn{.group_size = parse_group_size("rtn", option<std::string>(options, "group_size")),
                           .symmetric = option<bool>(options, "symmetric"),
                           .search_clip = option<bool>(options, "search_clip")};
  check_group_size("rtn", model, options, rtn.group_size);
  const auto change = [rtn](const std::string&, const Linear& linear, double severity) mutable {
    rtn.bits = severity;
    return linear.with_weight(quantize::rtn(linear.dense(), rtn));
  };
  return per_linear("rtn", axes::bits(), model, options, change);
}

Prepared prepare_gptq(const Model& model, const Statistics* statistics, const Options& options) {
  quantize::GptqOptions gptq{.group_size = parse_group_size("gptq", option<std::string>(options, "group_size")),
                             .symmetric = option<bool>(options, "symmetric")};
  if (gptq.group_size == quantize::kPerTensor) {
    throw ValueError("hemostat.prepare(gptq): group_size must be row or a positive integer, got 'tensor'");
  }
  check_group_size("gptq", model, options, gptq.group_size);
  const auto factors = gram_factors("gptq", model, filter_of(options), *statistics,
                                    {.damp = option<double>(options, "damp"),
                                     .act_order = option<bool>(options, "act_order"),
                                     .block_size = option<int64_t>(options, "block_size")});
  const auto change = [gptq, factors](const std::string& name, const Linear& linear, double severity) mutable {
    gptq.bits = severity;
    return linear.with_weight(quantize::gptq(linear.dense(), *factors.at(name), gptq));
  };
  return per_linear("gptq", axes::bits(), model, options, change);
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
       .prepare = prepare_rtn},
      {.name = "gptq",
       .kind = "weights",
       .description = "rounds weights column by column, those still to come make up for the error",
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
       .prepare = prepare_gptq},
      gguf_method(),
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
