// Units in the order of their importance, and which of them fall at a sparsity.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include <hemostat/structured.h>

#include "structured/cut.h"

namespace hemostat::structured {

// A linear whose input features units are made of: o, or the down of an MLP.
struct Layer {
  size_t block = 0;
  int64_t mlp = -1;  // −1: o
  std::string name;
  const Linear* linear = nullptr;                // of the model that is ranked
  int64_t unit_parameters = 0;                   // of the linears of its block that go with a unit
  std::vector<std::vector<int64_t>> units = {};  // input features of each; of a channel one
  std::vector<double> scores = {};               // of the units
  bool of_heads() const { return mlp < 0; }
};

// The layers of all blocks but the spared ones, in the model's order: o before down. With Heads::queries `order_within`
// gives the score of each query head, by which each group's fall together; without it heads keep their order.
using HeadScores = std::function<std::vector<double>(const Layer& o, int64_t heads)>;
std::vector<Layer> layers_of(const Model& model, Heads heads, int64_t spare_first, int64_t spare_last,
                             const HeadScores& order_within);

// Sums of the features of each unit.
std::vector<double> sums_over(const std::vector<std::vector<int64_t>>& units, const at::Tensor& features);
std::vector<double> means_over(const std::vector<std::vector<int64_t>>& units, const at::Tensor& features);

// What competes: each block for itself, or all of them. by_kind: heads with heads and channels with channels, and
// `remove_heads` of the former fall; else all units, by score.
struct Contest {
  bool global = true;
  bool by_kind = false;
  int64_t remove_heads = 0;
};

struct Ranking::Contents {
  std::string operation;
  Model model;
  Statistics statistics;  // of o and down, for the compensation
  std::vector<Layer> layers;
  Contest contest;
  Compensation compensation;
  double damp;
  // In the place of heads and channels: dimensions of the residual stream, the least important first.
  std::vector<int64_t> dimensions = {};
};

// ValueError unless the model has blocks, and o and down of every layer have what is needed, finite and of their size.
void check_inputs(const std::string& operation, const Model& model, const std::vector<Layer>& layers,
                  const Statistics& statistics, const std::set<Need>& needs);

const InputStatistics& input_of(const Statistics& statistics, const Layer& layer);

// What a compensation reads.
std::set<Need> needs_of(Compensation compensation);

}  // namespace hemostat::structured
