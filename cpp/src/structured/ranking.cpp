#include "structured/ranking.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "model/foreign.h"

namespace hemostat::structured {
namespace {

constexpr double kRounding = 1e-9;  // a product within so much of an integer is that integer

std::vector<size_t> ascending(const std::vector<double>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  return order;
}

int64_t entries(const Linear& linear) { return linear.defined() ? linear.out_features() * linear.in_features() : 0; }

// Of the linears in blocks, their weights multiplied out.
int64_t block_parameters(const Block& block) {
  int64_t sum = 0;
  for (const Linear* linear : {&block.attention.q, &block.attention.k, &block.attention.v, &block.attention.o}) {
    sum += entries(*linear);
  }
  for (const Mlp* mlp : mlps_of(block)) {
    sum += entries(mlp->gate) + entries(mlp->up) + entries(mlp->down);
  }
  return sum;
}

int64_t parameters_of(const Model& model) {
  return std::accumulate(model.blocks.begin(), model.blocks.end(), int64_t{0},
                         [](int64_t sum, const Block& block) { return sum + block_parameters(block); });
}

// All units but the last one in the order stay.
int64_t removable(const Layer& layer) { return static_cast<int64_t>(layer.units.size()) - 1; }

class Selection {
 public:
  explicit Selection(const Ranking::Contents& contents)
      : contents_(contents), fallen_(contents.layers.size()), parameters_(parameters_of(contents.model)) {
    for (const Layer& layer : contents.layers) {
      orders_.push_back(ascending(layer.scores));
    }
  }

  std::vector<int64_t> counts(double sparsity) {
    const double target = sparsity * static_cast<double>(parameters_);
    if (contents_.contest.global) {
      contents_.contest.by_kind ? global_by_kind(target) : global(target, [](const Layer&) { return true; });
    } else {
      by_block(target);
    }
    return fallen_;
  }

  const std::vector<std::vector<size_t>>& orders() const { return orders_; }

 private:
  // The lowest scores of the layers in question until as many parameters as can be said are gone.
  template <typename Chosen>
  void global(double target, const Chosen& chosen) {
    struct Candidate {
      double score;
      size_t layer;
    };
    std::vector<Candidate> candidates;
    for (size_t i = 0; i < contents_.layers.size(); ++i) {
      const Layer& layer = contents_.layers[i];
      for (int64_t j = 0; chosen(layer) && j < removable(layer); ++j) {
        candidates.push_back({layer.scores[orders_[i][j]], i});
      }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score < b.score; });
    double gone = 0;
    for (const Candidate& candidate : candidates) {
      const auto own = static_cast<double>(contents_.layers[candidate.layer].unit_parameters);
      if (gone + own / 2 > target) {
        break;
      }
      gone += own;
      ++fallen_[candidate.layer];
    }
  }

  void global_by_kind(double target) {
    int64_t left = contents_.contest.remove_heads;
    std::vector<std::pair<double, size_t>> heads;
    for (size_t i = 0; i < contents_.layers.size(); ++i) {
      for (int64_t j = 0; contents_.layers[i].of_heads() && j < removable(contents_.layers[i]); ++j) {
        heads.emplace_back(contents_.layers[i].scores[orders_[i][j]], i);
      }
    }
    std::stable_sort(heads.begin(), heads.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    left = std::min<int64_t>(left, static_cast<int64_t>(heads.size()));
    for (int64_t i = 0; i < left; ++i) {
      ++fallen_[heads[i].second];
      target -= static_cast<double>(contents_.layers[heads[i].second].unit_parameters);
    }
    global(target, [](const Layer& layer) { return !layer.of_heads(); });
  }

  // The same fraction of each block: of its heads the floor, of its channels what remains.
  void by_block(double target) {
    double available = 0;
    std::set<size_t> blocks;
    for (const Layer& layer : contents_.layers) {
      if (blocks.insert(layer.block).second) {
        available += static_cast<double>(block_parameters(contents_.model.blocks[layer.block]));
      }
    }
    const double ratio = std::min(target / available, 1.0);
    for (size_t first = 0; first < contents_.layers.size();) {
      size_t end = first;
      while (end < contents_.layers.size() && contents_.layers[end].block == contents_.layers[first].block) {
        ++end;
      }
      one_block(first, end, ratio);
      first = end;
    }
  }

  void one_block(size_t first, size_t end, double ratio) {
    double goal = ratio * static_cast<double>(block_parameters(contents_.model.blocks[contents_.layers[first].block]));
    double channels = 0;  // parameters of those that can fall
    for (size_t i = first; i < end; ++i) {
      if (!contents_.layers[i].of_heads()) {
        channels += static_cast<double>(removable(contents_.layers[i]) * contents_.layers[i].unit_parameters);
      }
    }
    size_t mlps = first;
    if (contents_.layers[first].of_heads()) {
      const Layer& heads = contents_.layers[first];
      const auto own = static_cast<double>(heads.unit_parameters);
      int64_t count = contents_.contest.by_kind
                          ? contents_.contest.remove_heads / static_cast<int64_t>(contents_.model.blocks.size())
                          : static_cast<int64_t>(ratio * static_cast<double>(heads.units.size()) + kRounding);
      count = std::max(count, static_cast<int64_t>(std::ceil((goal - channels) / own - kRounding)));
      count = std::clamp<int64_t>(count, 0, removable(heads));
      fallen_[first] = count;
      goal -= static_cast<double>(count) * own;
      ++mlps;
    }
    const auto experts = static_cast<double>(end - mlps);
    for (size_t i = mlps; i < end; ++i) {
      const Layer& layer = contents_.layers[i];
      fallen_[i] = std::clamp<int64_t>(
          std::llround(std::floor(goal / experts / static_cast<double>(layer.unit_parameters) + 0.5 - kRounding)), 0,
          removable(layer));
    }
  }

  const Ranking::Contents& contents_;
  std::vector<int64_t> fallen_;
  int64_t parameters_;
  std::vector<std::vector<size_t>> orders_;
};

std::vector<Kept> everything(const Model& model) {
  std::vector<Kept> kept;
  for (const Block& block : model.blocks) {
    Kept& own = kept.emplace_back();
    own.heads.resize(block.attention.heads);
    std::iota(own.heads.begin(), own.heads.end(), int64_t{0});
    for (const Mlp* mlp : mlps_of(block)) {
      own.channels.emplace_back(mlp->up.defined() ? mlp->up.out_features() : 0);
      std::iota(own.channels.back().begin(), own.channels.back().end(), int64_t{0});
    }
  }
  return kept;
}

double fraction_removable(const Model& model, const std::vector<Layer>& layers) {
  double most = 0;
  for (const Layer& layer : layers) {
    most += static_cast<double>(removable(layer) * layer.unit_parameters);
  }
  return most / static_cast<double>(parameters_of(model));
}

void check_spared(const Model& model, int64_t spare_first, int64_t spare_last) {
  const auto blocks = static_cast<int64_t>(model.blocks.size());
  if (spare_first + spare_last >= blocks) {
    throw ValueError(
        fmt::format("hemostat.structured: spare_first = {} and spare_last = {} spare all of the model's {} "
                    "blocks",
                    spare_first, spare_last, blocks));
  }
}

}  // namespace

std::vector<Layer> layers_of(const Model& model, Heads heads, int64_t spare_first, int64_t spare_last,
                             const HeadScores& order_within) {
  check_has_blocks(model, "hemostat.structured");
  check_spared(model, spare_first, spare_last);
  std::vector<Layer> result;
  for (size_t i = spare_first; i + spare_last < model.blocks.size(); ++i) {
    const Block& block = model.blocks[i];
    const Attention& attention = block.attention;
    if (!block.skip_attention) {
      Layer layer{.block = i, .mlp = -1, .name = name_of_o(model, block), .linear = &attention.o};
      const int64_t group = attention.heads / attention.kv_heads, hidden = attention.o.out_features();
      std::vector<std::vector<int64_t>> query_heads;  // of each unit
      if (heads == Heads::groups || group == 1) {
        for (int64_t kv = 0; kv < attention.kv_heads; ++kv) {
          std::vector<int64_t>& members = query_heads.emplace_back(group);
          std::iota(members.begin(), members.end(), kv * group);
        }
        layer.unit_parameters = (2 * group + 2) * attention.head_dim * hidden;
      } else {
        query_heads.resize(group);
        const std::vector<double> scores =
            order_within ? order_within(layer, attention.heads) : std::vector<double>(attention.heads);
        for (int64_t kv = 0; kv < attention.kv_heads; ++kv) {
          const auto begin = scores.begin() + kv * group;
          const std::vector<size_t> order = ascending({begin, begin + group});
          for (int64_t rank = 0; rank < group; ++rank) {
            query_heads[rank].push_back(kv * group + static_cast<int64_t>(order[rank]));
          }
        }
        layer.unit_parameters = 2 * attention.kv_heads * attention.head_dim * hidden;
      }
      for (const std::vector<int64_t>& members : query_heads) {
        std::vector<int64_t>& own = layer.units.emplace_back();
        for (const int64_t head : members) {
          for (int64_t j = 0; j < attention.head_dim; ++j) {
            own.push_back(head * attention.head_dim + j);
          }
        }
      }
      result.push_back(std::move(layer));
    }
    const std::vector<const Mlp*> mlps = mlps_of(block);
    for (size_t j = 0; !block.skip_mlp && j < mlps.size(); ++j) {
      const Mlp& mlp = *mlps[j];
      Layer layer{.block = i,
                  .mlp = static_cast<int64_t>(j),
                  .name = name_of_down(model, block, j),
                  .linear = &mlp.down,
                  .unit_parameters = (mlp.gate.defined() ? 3 : 2) * mlp.down.out_features()};
      for (int64_t channel = 0; channel < mlp.down.in_features(); ++channel) {
        layer.units.push_back({channel});
      }
      result.push_back(std::move(layer));
    }
  }
  return result;
}

std::vector<double> sums_over(const std::vector<std::vector<int64_t>>& units, const at::Tensor& per_feature) {
  const at::Tensor values = per_feature.to(at::kCPU, at::kDouble).contiguous();
  const double* value = values.const_data_ptr<double>();
  std::vector<double> result;
  result.reserve(units.size());
  for (const std::vector<int64_t>& unit : units) {
    double sum = 0;
    for (const int64_t feature : unit) {
      sum += value[feature];
    }
    result.push_back(sum);
  }
  return result;
}

std::vector<double> means_over(const std::vector<std::vector<int64_t>>& units, const at::Tensor& per_feature) {
  std::vector<double> result = sums_over(units, per_feature);
  for (size_t i = 0; i < units.size(); ++i) {
    result[i] /= static_cast<double>(units[i].size());
  }
  return result;
}

const InputStatistics& input_of(const Statistics& statistics, const Layer& layer) { return statistics.at(layer.name); }

void check_inputs(const std::string& operation, const Model& model, const std::vector<Layer>& layers,
                  const Statistics& statistics, const std::set<Need>& needs) {
  check_has_blocks(model, operation);
  for (const Layer& layer : layers) {
    if (needs.empty()) {
      continue;
    }
    if (!statistics.contains(layer.name)) {
      throw ValueError(fmt::format("{}: statistics have nothing of {}", operation, layer.name));
    }
    const InputStatistics& input = statistics.at(layer.name);
    if (input.in_features() != layer.linear->in_features()) {
      throw ValueError(fmt::format("{}: statistics of {} are of {} input features, but it has {}", operation,
                                   layer.name, input.in_features(), layer.linear->in_features()));
    }
    for (const Need need : needs) {
      if (!input.has(need)) {
        throw ValueError(fmt::format("{}: statistics of {} lack {}; collect them", operation, layer.name, name(need)));
      }
      if (!input.finite(need)) {
        throw ValueError(
            fmt::format("{}: statistics of {} have a {} that is not finite", operation, layer.name, name(need)));
      }
    }
  }
}

std::set<Need> needs_of(Compensation compensation) {
  switch (compensation) {
    case Compensation::none:
      return {};
    case Compensation::bias:
      return {Need::mean};
    case Compensation::least_squares:
      return {Need::gram};
  }
  return {};
}

double most_removable(const Model& model, Heads heads, int64_t spare_first, int64_t spare_last) {
  return fraction_removable(model, layers_of(model, heads, spare_first, spare_last, nullptr));
}

double Ranking::most() const {
  const auto dimensions = static_cast<double>(contents_->dimensions.size());
  return contents_->dimensions.empty() ? fraction_removable(contents_->model, contents_->layers)
                                       : (dimensions - 1) / dimensions;
}

Model Ranking::remove(double sparsity) const {
  const Contents& contents = *contents_;
  if (!(sparsity >= 0 && sparsity <= most() + kRounding)) {
    throw ValueError(fmt::format("{}: sparsity is {}, but of this model 0 … {:.4g} can be removed", contents.operation,
                                 sparsity, most()));
  }
  if (sparsity == 0) {
    return contents.model;
  }
  if (!contents.dimensions.empty()) {
    const auto dimensions = static_cast<double>(contents.dimensions.size());
    std::vector<int64_t> kept(contents.dimensions.begin() + std::llround(sparsity * dimensions),
                              contents.dimensions.end());
    std::sort(kept.begin(), kept.end());
    return cut_residual(contents.model, at::tensor(kept, at::kLong));
  }
  Selection selection(contents);
  const std::vector<int64_t> counts = selection.counts(sparsity);
  std::vector<Kept> kept = everything(contents.model);
  for (size_t i = 0; i < contents.layers.size(); ++i) {
    const Layer& layer = contents.layers[i];
    const int64_t head_dim = layer.of_heads() ? contents.model.blocks[layer.block].attention.head_dim : 1;
    std::vector<int64_t>& own = layer.of_heads() ? kept[layer.block].heads : kept[layer.block].channels[layer.mlp];
    std::set<int64_t> gone;
    for (int64_t j = 0; j < counts[i]; ++j) {
      for (const int64_t feature : layer.units[selection.orders()[i][j]]) {
        gone.insert(feature / head_dim);
      }
    }
    std::erase_if(own, [&](int64_t index) { return gone.count(index) > 0; });
  }
  return cut(contents.model, kept, contents.statistics, contents.compensation, contents.damp);
}

}  // namespace hemostat::structured
