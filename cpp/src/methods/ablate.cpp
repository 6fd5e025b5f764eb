#include <algorithm>

#include <hemostat/ablate.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

std::optional<std::vector<int64_t>> order_of(const Options& options) {
  const auto& order = option<std::vector<int64_t>>(options, "order");
  return order.empty() ? std::nullopt : std::optional(order);
}

Axis layers_axis(const Model& model, const Options& options) {
  const auto layers = static_cast<int64_t>(model.blocks.size());
  const auto order = order_of(options);
  return axes::fraction_of("layers", layers,
                           order ? static_cast<int64_t>(order->size()) : std::max<int64_t>(layers - 1, 0));
}

Prepared prepare_drop_layers(const Model& model, const Statistics*, const Options& options) {
  const auto order = order_of(options);
  ablate::drop_layers(model, {.count = 0, .order = order});  // a bad order is refused before any work
  const auto apply = [model, order, layers = static_cast<int64_t>(model.blocks.size())](double severity) {
    return ablate::drop_layers(model, {.count = axes::parts_at(severity, layers), .order = order});
  };
  return Prepared("drop_layers", layers_axis(model, options), apply, model);
}

}  // namespace

std::vector<Method> ablate_methods() {
  return {
      {.name = "drop_layers",
       .kind = "architecture",
       .description = "leaves blocks out, from the second-last backwards",
       .axis = axes::fraction("layers"),
       .needs = {},
       .options = {{"order", std::vector<int64_t>{}, "indices of blocks in the order in which they fall", {}}},
       .prepare = prepare_drop_layers,
       .axis_for = layers_axis},
  };
}

}  // namespace hemostat
