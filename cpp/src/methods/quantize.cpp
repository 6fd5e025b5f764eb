#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "axes.h"
#include "catalogue.h"
#include "group_size.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Prepared prepare_rtn(const Model& model, const Statistics*, const Options& options) {
  quantize::RtnOptions rtn{.group_size = parse_group_size("rtn", option<std::string>(options, "group_size")),
                           .symmetric = option<bool>(options, "symmetric"),
                           .search_clip = option<bool>(options, "search_clip")};
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    if (rtn.group_size > 0 && named.linear->in_features() % rtn.group_size != 0) {
      throw ValueError(
          fmt::format("hemostat.prepare(rtn): group_size = {} does not divide the {} input features of '{}'",
                      rtn.group_size, named.linear->in_features(), named.name));
    }
  }
  const auto change = [rtn](const std::string&, const Linear& linear, double severity) mutable {
    rtn.bits = severity;
    return linear.with_weight(quantize::rtn(linear.dense(), rtn));
  };
  return per_linear("rtn", axes::bits(), model, options, change);
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
