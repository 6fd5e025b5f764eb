#include <cmath>

#include <hemostat/ablate.h>

#include "axes.h"
#include "catalogue.h"
#include "per_linear.h"

namespace hemostat {
namespace {

Prepared prepare_drop_layers(const Model& model, const Statistics*, const Options& options) {
  const auto layers = static_cast<int64_t>(model.blocks.size());
  std::optional<std::vector<int64_t>> order;
  if (!option<std::vector<int64_t>>(options, "order").empty()) {
    order = option<std::vector<int64_t>>(options, "order");
  }
  ablate::drop_layers(model, {.count = 0, .order = order});  // a bad order is refused before any work
  const int64_t most = order ? static_cast<int64_t>(order->size()) : layers - 1;
  const auto apply = [model, order, layers](double severity) {
    return ablate::drop_layers(model, {.count = std::llround(severity * static_cast<double>(layers)), .order = order});
  };
  return Prepared("drop_layers", axes::fraction_of("layers", layers, most), apply, model);
}

}  // namespace

std::vector<Method> ablate_methods() {
  return {
      {.name = "drop_layers", .kind = "architecture", .description = "leaves blocks out, from the second-last backwards",
       .axis = axes::fraction_of("layers", 0, 0), .needs = {},
       .options = {{"order", std::vector<int64_t>{}, "indices of blocks in the order in which they fall", {}}},
       .prepare = prepare_drop_layers},
  };
}

}  // namespace hemostat
