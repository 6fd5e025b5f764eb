// Room `ablate`: parts of a model left out. Model in, Model out.
#pragma once

#include <optional>
#include <vector>

#include <hemostat/model.h>

namespace hemostat::ablate {

struct DropLayersOptions {
  int64_t count = 0;                                         // blocks to drop, 0 … L − 1
  std::optional<std::vector<int64_t>> order = std::nullopt;  // indices of blocks, the first `count` of which fall
};

// Leaves `count` blocks out. Without an order: from the second-last backwards (the last block stays), the order in
// which depth is least missed (Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv
// 2403.17887, §4.4). Blocks keep their origin, so names and statistics follow them. ValueError for a count or index out
// of range, a repeated index, or an order that is too short.
Model drop_layers(const Model& model, const DropLayersOptions& options);

}  // namespace hemostat::ablate
