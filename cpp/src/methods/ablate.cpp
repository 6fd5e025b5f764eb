#include <algorithm>

#include <hemostat/ablate.h>

#include "axes.h"
#include "catalogue.h"
#include "on_linears.h"

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

// A bad order is refused before any work.
Held checked_order(const Model& model, const Statistics*, const Options& options) {
  ablate::drop_layers(model, {.count = 0, .order = order_of(options)});
  return {};
}

Model drop_layers(const Model& model, const Held&, const Options& options, double severity) {
  const auto layers = static_cast<int64_t>(model.blocks.size());
  return ablate::drop_layers(model, {.count = axes::parts_at(severity, layers), .order = order_of(options)});
}

}  // namespace

std::vector<Method> ablate_methods() {
  return {
      {.name = "drop_layers",
       .kind = Kind::architecture,
       .description = "leaves blocks out, from the second-last backwards",
       .axis = axes::fraction("layers"),
       .needs = {},
       .options = {{"order", std::vector<int64_t>{}, "indices of blocks in the order in which they fall", {}}},
       .change = OnModel{.hold = checked_order, .change = drop_layers},
       .axis_for = layers_axis},
  };
}

}  // namespace hemostat
