// Models with fewer heads and channels than another.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hemostat/structured.h>

namespace hemostat::structured {

// What stays of a block, in ascending order. heads: of query heads, of each key-value group the same number or none.
// channels: of the MLP, or of each expert.
struct Kept {
  std::vector<int64_t> heads;
  std::vector<std::vector<int64_t>> channels;
};

// One MLP of a block, or as many as it has experts.
std::vector<const Mlp*> mlps_of(const Block& block);
std::vector<Mlp*> mlps_of(Block& block);

// The names of o, and of the down of each MLP.
std::string name_of_o(const Model& model, const Block& block);
std::string name_of_down(const Model& model, const Block& block, size_t mlp);
// The same of any linear of the block.
std::string name_in(const Model& model, const Block& block, std::string Naming::* linear);

// `statistics` are of o and down, and read for a compensation alone. ValueError where an o or down has a rotated input.
Model cut(const Model& model, const std::vector<Kept>& kept, const Statistics& statistics, Compensation compensation,
          double damp);

// Everything that reads or writes the residual stream without the dimensions that are not in `kept`, int64 ascending.
Model cut_residual(const Model& model, const at::Tensor& kept);

}  // namespace hemostat::structured
