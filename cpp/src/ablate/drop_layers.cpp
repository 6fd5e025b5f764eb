#include <hemostat/ablate.h>

#include <numeric>
#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat::ablate {

Model drop_layers(const Model& model, const DropLayersOptions& options) {
  constexpr const char* kOperation = "hemostat.ablate.drop_layers";
  const auto layers = static_cast<int64_t>(model.blocks.size());
  if (options.count < 0 || options.count >= layers) {
    throw ValueError(fmt::format("{}: count is {}, but a model of {} layers can lose 0 … {}", kOperation, options.count,
                                 layers, layers - 1));
  }
  std::vector<int64_t> order;
  if (options.order) {
    order = *options.order;
    if (static_cast<int64_t>(order.size()) < options.count) {
      throw ValueError(
          fmt::format("{}: order has {} layers, but {} are to be dropped", kOperation, order.size(), options.count));
    }
  } else {
    order.resize(layers - 1);
    std::iota(order.rbegin(), order.rend(), int64_t{0});
  }

  std::vector<bool> listed(layers, false), dropped(layers, false);
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t layer = order[i];
    if (layer < 0 || layer >= layers) {
      throw ValueError(
          fmt::format("{}: order has {}, but the model's layers are 0 … {}", kOperation, layer, layers - 1));
    }
    if (listed[layer]) {
      throw ValueError(fmt::format("{}: order has {} twice", kOperation, layer));
    }
    listed[layer] = true;
    dropped[layer] = static_cast<int64_t>(i) < options.count;
  }

  Model result = model;
  result.blocks.clear();
  for (int64_t layer = 0; layer < layers; ++layer) {
    if (!dropped[layer]) {
      result.blocks.push_back(model.blocks[layer]);
    }
  }
  return result;
}

}  // namespace hemostat::ablate
