#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "model/foreign.h"
#include "structured/ranking.h"

namespace hemostat::structured {
namespace {

using Contents = Ranking::Contents;

// Only what a compensation reads, so that the rest need not outlive the ranking.
Statistics kept_statistics(const Statistics& statistics, const std::vector<Layer>& layers, Compensation compensation) {
  Statistics result;
  if (compensation != Compensation::none) {
    for (const Layer& layer : layers) {
      result.inputs[layer.name] = statistics.inputs.at(layer.name);
    }
  }
  return result;
}

// Of o's input features, the sums over each query head.
template <typename PerFeature>
HeadScores head_scores(const PerFeature& per_feature) {
  return [per_feature](const Layer& o, int64_t heads) {
    const at::Tensor sums = per_feature(o).to(at::kCPU, at::kDouble).view({heads, -1}).sum(1);
    return std::vector<double>(sums.const_data_ptr<double>(), sums.const_data_ptr<double>() + heads);
  };
}

template <typename Options>
std::vector<Layer> checked_layers(const char* operation, const Model& model, const Statistics& statistics,
                                  const Options& options, std::set<Need> needs, int64_t spare_first = 0,
                                  int64_t spare_last = 0) {
  check_has_blocks(model, operation);
  check_options(operation, options);
  needs.merge(needs_of(options.compensation));
  std::vector<Layer> layers = layers_of(model, Heads::groups, spare_first, spare_last, nullptr);
  check_inputs(operation, model, layers, statistics, needs);
  return layers;
}

at::Tensor weight_of(const Layer& layer) { return layer.linear->dense().to(at::kFloat); }

at::Tensor norm_of(const Statistics& statistics, const Layer& layer, const at::Tensor& weight) {
  return input_of(statistics, layer).norm().to(weight.device());
}

at::Tensor wanda_feature_scores(const Statistics& statistics, const Layer& layer) {
  const at::Tensor weight = weight_of(layer);
  return weight.abs().mean(0) * norm_of(statistics, layer, weight);
}

at::Tensor fluctuations(const Statistics& statistics, const Layer& layer, Fluctuation metric) {
  const at::Tensor weight = weight_of(layer).to(at::kDouble);
  const at::Tensor norm = norm_of(statistics, layer, weight).to(at::kDouble);
  if (metric == Fluctuation::wifn) {
    return weight.abs().mean(0) * norm;
  }
  const at::Tensor mean = input_of(statistics, layer).mean().to(weight.device(), at::kDouble);
  const at::Tensor variance = (norm.square() - mean.square()).clamp_min(0);
  return metric == Fluctuation::ifv ? variance : variance * weight.square().sum(0);
}

// Mean 0 and standard deviation 1; all 0 where they are alike.
at::Tensor standardized(const at::Tensor& scores) {
  const at::Tensor centred = scores - scores.mean();
  const double deviation = scores.numel() > 1 ? scores.std().item<double>() : 0;
  return deviation > 0 ? centred / deviation : at::zeros_like(scores);
}

}  // namespace

Ranking rank_wanda_sp(const Model& model, const Statistics& statistics, const WandaSpOptions& options) {
  constexpr const char* kOperation = "hemostat.structured.wanda_sp";
  const at::NoGradGuard no_grad;
  checked_layers(kOperation, model, statistics, options, {Need::column_norm});
  const auto scores = [&statistics](const Layer& layer) { return wanda_feature_scores(statistics, layer); };
  std::vector<Layer> layers = layers_of(model, options.heads, 0, 0, head_scores(scores));
  for (Layer& layer : layers) {
    check_interrupt();
    layer.scores = sums_over(layer.units, scores(layer));
  }
  const Statistics kept = kept_statistics(statistics, layers, options.compensation);
  return Ranking(std::make_shared<const Contents>(Contents{.operation = kOperation,
                                                           .model = model,
                                                           .statistics = kept,
                                                           .layers = std::move(layers),
                                                           .contest = {.global = false},
                                                           .compensation = options.compensation,
                                                           .damp = options.damp}));
}

Ranking rank_flap(const Model& model, const Statistics& statistics, const FlapOptions& options) {
  constexpr const char* kOperation = "hemostat.structured.flap";
  const at::NoGradGuard no_grad;
  std::set<Need> needs{Need::column_norm};
  if (options.metric != Fluctuation::wifn) {
    needs.insert(Need::mean);
  }
  checked_layers(kOperation, model, statistics, options, needs);
  const bool global = options.structure == Structure::al_am || options.structure == Structure::al_mm;
  const auto scores = [&statistics, &options, global](const Layer& layer) {
    at::Tensor result = fluctuations(statistics, layer, options.metric);
    if (layer.of_heads()) {
      result = result.square();
    }
    return global ? standardized(result) : result;
  };
  std::vector<Layer> layers = layers_of(model, options.heads, 0, 0, head_scores(scores));
  for (Layer& layer : layers) {
    check_interrupt();
    layer.scores = global ? means_over(layer.units, scores(layer)) : sums_over(layer.units, scores(layer));
  }
  const Contest contest{.global = global,
                        .by_kind = options.structure == Structure::al_mm || options.structure == Structure::ul_mm,
                        .remove_heads = options.remove_heads};
  const Statistics kept = kept_statistics(statistics, layers, options.compensation);
  return Ranking(std::make_shared<const Contents>(Contents{.operation = kOperation,
                                                           .model = model,
                                                           .statistics = kept,
                                                           .layers = std::move(layers),
                                                           .contest = contest,
                                                           .compensation = options.compensation,
                                                           .damp = options.damp}));
}

namespace {

constexpr const char* kLlmPruner = "hemostat.structured.llm_pruner";

// Saliencies of the linears' weights.
class Saliency {
 public:
  Saliency(const Statistics& statistics, Taylor taylor) : statistics_(statistics), taylor_(taylor) {}

  // Of the rows (dimension 1 summed) or columns (dimension 0): float64.
  at::Tensor over(const Linear& linear, const std::string& name, int64_t dimension) const {
    const at::Tensor salience = of(linear, name);
    return taylor_ == Taylor::vectorize ? salience.sum(dimension).abs() : salience.abs().sum(dimension);
  }

 private:
  at::Tensor of(const Linear& linear, const std::string& name) const {
    const at::Tensor weight = linear.dense().to(at::kDouble);
    const GradientStatistics& gradient = checked(linear, name);
    const auto squares = [&] { return weight.square() * gradient.square().to(weight.device(), at::kDouble); };
    if (taylor_ == Taylor::param_second) {
      return squares();
    }
    const at::Tensor first = weight * gradient.mean().to(weight.device(), at::kDouble);
    return taylor_ == Taylor::param_mix ? first - 0.5 * squares() : first;
  }

  const GradientStatistics& checked(const Linear& linear, const std::string& name) const {
    const GradientStatistics& gradient = statistics_.gradient(name);
    if (gradient.in_features() != linear.in_features() || gradient.out_features() != linear.out_features()) {
      throw ValueError(fmt::format("{}: gradient statistics of {} are of a weight [{}, {}], but it has [{}, {}]",
                                   kLlmPruner, name, gradient.out_features(), gradient.in_features(),
                                   linear.out_features(), linear.in_features()));
    }
    std::set<Need> needs;
    if (taylor_ != Taylor::param_second) {
      needs.insert(Need::gradient_mean);
    }
    if (taylor_ == Taylor::param_second || taylor_ == Taylor::param_mix) {
      needs.insert(Need::gradient_square);
    }
    for (const Need need : needs) {
      if (!gradient.has(need)) {
        throw ValueError(
            fmt::format("{}: statistics of {} lack {}; collect them", kLlmPruner, name, hemostat::name(need)));
      }
      if (!gradient.finite(need)) {
        throw ValueError(
            fmt::format("{}: statistics of {} have a {} that is not finite", kLlmPruner, name, hemostat::name(need)));
      }
    }
    return gradient;
  }

  const Statistics& statistics_;
  Taylor taylor_;
};

at::Tensor reduced(const std::vector<at::Tensor>& parts, Reduction reduction) {
  const at::Tensor all = at::stack(parts);
  switch (reduction) {
    case Reduction::sum:
      return all.sum(0);
    case Reduction::mean:
      return all.mean(0);
    case Reduction::max:
      return all.amax(0);
    case Reduction::prod:
      return all.prod(0);
  }
  return all;
}

std::string expert_name(const Model& model, const Block& block, int64_t mlp, std::string Naming::* dense,
                        std::string Naming::* expert) {
  return block.experts.mlps.empty()
             ? name_in(model, block, dense)
             : name_in(model, block, &Naming::expert) + std::to_string(mlp) + "." + model.config.names.*expert;
}

// Of each input feature of o or down. A key-value head's rows count with the queries that read them, in equal parts.
at::Tensor unit_saliency(const Model& model, const Saliency& saliency, const Layer& layer, Reduction reduction) {
  const Block& block = model.blocks[layer.block];
  std::vector<at::Tensor> parts;
  if (layer.of_heads()) {
    const Attention& attention = block.attention;
    const int64_t group = attention.heads / attention.kv_heads;
    const auto shared = [&](const at::Tensor& rows) {
      return (rows.view({attention.kv_heads, 1, attention.head_dim}) / static_cast<double>(group))
          .expand({attention.kv_heads, group, attention.head_dim})
          .reshape({-1});
    };
    parts = {saliency.over(attention.q, name_in(model, block, &Naming::q), 1),
             shared(saliency.over(attention.k, name_in(model, block, &Naming::k), 1)),
             shared(saliency.over(attention.v, name_in(model, block, &Naming::v), 1)),
             saliency.over(attention.o, layer.name, 0)};
  } else {
    const Mlp& mlp = *mlps_of(block)[layer.mlp];
    if (mlp.gate.defined()) {
      parts.push_back(
          saliency.over(mlp.gate, expert_name(model, block, layer.mlp, &Naming::gate, &Naming::expert_gate), 1));
    }
    parts.push_back(saliency.over(mlp.up, expert_name(model, block, layer.mlp, &Naming::up, &Naming::expert_up), 1));
    parts.push_back(saliency.over(mlp.down, layer.name, 0));
  }
  return reduced(parts, reduction);
}

// Of each dimension of the residual stream, over all linears in blocks that read or write it.
at::Tensor dimension_saliency(const Model& model, const Saliency& saliency, Reduction reduction) {
  std::vector<at::Tensor> parts;
  for (const NamedLinear& named : linears(model)) {
    check_interrupt();
    const bool writes = named.role == Role::o || named.role == Role::down;
    parts.push_back(saliency.over(*named.linear, named.name, writes ? 1 : 0));
  }
  return reduced(parts, reduction);
}

}  // namespace

Ranking rank_llm_pruner(const Model& model, const Statistics& statistics, const LlmPrunerOptions& options) {
  const at::NoGradGuard no_grad;
  checked_layers(kLlmPruner, model, statistics, options, {}, options.spare_first, options.spare_last);
  const Saliency saliency(statistics, options.taylor);
  if (options.granularity == Granularity::channel) {
    if (options.compensation != Compensation::none) {
      throw ValueError(
          fmt::format("{}: compensation is '{}', but with granularity 'channel' no input features of o and "
                      "down are removed; it takes none",
                      kLlmPruner, word_of(options.compensation)));
    }
    const at::Tensor order =
        dimension_saliency(model, saliency, options.reduction).argsort(/*stable=*/true, 0, false).to(at::kCPU);
    return Ranking(std::make_shared<const Contents>(Contents{
        .operation = kLlmPruner,
        .model = model,
        .statistics = {},
        .layers = {},
        .contest = {},
        .compensation = Compensation::none,
        .damp = 0,
        .dimensions =
            std::vector<int64_t>(order.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>() + order.numel())}));
  }
  const auto scores = [&](const Layer& layer) { return unit_saliency(model, saliency, layer, options.reduction); };
  std::vector<Layer> layers =
      layers_of(model, options.heads, options.spare_first, options.spare_last, head_scores(scores));
  for (Layer& layer : layers) {
    check_interrupt();
    layer.scores = sums_over(layer.units, scores(layer));
  }
  const Statistics kept = kept_statistics(statistics, layers, options.compensation);
  return Ranking(std::make_shared<const Contents>(Contents{.operation = kLlmPruner,
                                                           .model = model,
                                                           .statistics = kept,
                                                           .layers = std::move(layers),
                                                           .contest = {.global = options.global_pruning},
                                                           .compensation = options.compensation,
                                                           .damp = options.damp}));
}

Model wanda_sp(const Model& model, const Statistics& statistics, const WandaSpOptions& options) {
  return rank_wanda_sp(model, statistics, options).remove(options.sparsity);
}

Model flap(const Model& model, const Statistics& statistics, const FlapOptions& options) {
  return rank_flap(model, statistics, options).remove(options.sparsity);
}

Model llm_pruner(const Model& model, const Statistics& statistics, const LlmPrunerOptions& options) {
  return rank_llm_pruner(model, statistics, options).remove(options.sparsity);
}

}  // namespace hemostat::structured
