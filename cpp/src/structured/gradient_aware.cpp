#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "model/foreign.h"
#include "structured/ranking.h"

namespace hemostat::structured {
namespace {

constexpr const char* kGradientAware = "hemostat.structured.gradient_aware";
constexpr int64_t kSteps = 32;  // of what is left of a layer's channels so many parts are taken, one after the other

// One o or down on its way to fewer input features: its weight √f·W [out, in] and (G + damp)⁻¹, float64.
class Eliminated {
 public:
  Eliminated(const Layer& layer, const Statistics& statistics, double damp) : layer_(layer) {
    const InputStatistics& own = input_of(statistics, layer);
    const at::Tensor fisher = statistics.gradient(layer.name).row_fisher();
    at::Tensor gram = (own.count() > 0 ? own : own.alike()).gram().to(at::kDouble);
    gram.diagonal().add_(gram.diagonal().mean() * damp + std::numeric_limits<double>::min());
    const auto [factor, info] = at::linalg_cholesky_ex(gram);
    if (info.item<int>() != 0) {
      throw NumericalError(fmt::format("{}: the Gram matrix of {} has no Cholesky factorization with damp = {}",
                                       kGradientAware, layer.name, damp));
    }
    inverse_ = at::cholesky_inverse(factor);
    weight_ = layer.linear->dense().to(gram.device(), at::kDouble) *
              fisher.to(gram.device(), at::kDouble).sqrt().unsqueeze(1);
  }

  // ½ Σ_r f_r W_rS [(G⁻¹)_SS]⁻¹ W_rSᵀ of these units.
  std::vector<double> costs(const std::vector<size_t>& units) const {
    if (!layer_.of_heads()) {
      std::vector<int64_t> channels;
      for (const size_t unit : units) {
        channels.push_back(layer_.units[unit].front());
      }
      const at::Tensor here = at::tensor(channels, at::kLong).to(weight_.device());
      const at::Tensor cost =
          (weight_.index_select(1, here).square().sum(0) / inverse_.diagonal().index_select(0, here) * 0.5)
              .to(at::kCPU)
              .contiguous();
      return {cost.const_data_ptr<double>(), cost.const_data_ptr<double>() + cost.numel()};
    }
    std::vector<double> result;
    for (const size_t unit : units) {
      const at::Tensor here = indices({unit}), columns = weight_.index_select(1, here);
      result.push_back(0.5 * (at::linalg_solve(among(here), columns.t()) * columns.t()).sum().item<double>());
    }
    return result;
  }

  void remove(const std::vector<size_t>& units) {
    const at::Tensor here = indices(units);
    const at::Tensor shares = at::linalg_solve(among(here), inverse_.index_select(0, here));  // (P_SS)⁻¹ P_S:
    weight_.addmm_(weight_.index_select(1, here), shares, 1, -1);
    inverse_.addmm_(inverse_.index_select(1, here), shares, 1, -1);
  }

 private:
  at::Tensor indices(const std::vector<size_t>& units) const {
    std::vector<int64_t> features;
    for (const size_t unit : units) {
      features.insert(features.end(), layer_.units[unit].begin(), layer_.units[unit].end());
    }
    return at::tensor(features, at::kLong).to(weight_.device());
  }

  at::Tensor among(const at::Tensor& here) const { return inverse_.index_select(0, here).index_select(1, here); }

  const Layer& layer_;
  at::Tensor weight_, inverse_;
};

// Units in the order in which they fall, and their scores, which never decrease: predicted damage per parameter.
void order_greedily(Layer& layer, const Statistics& statistics, double damp) {
  Eliminated eliminated(layer, statistics, damp);
  std::vector<size_t> left(layer.units.size());
  for (size_t i = 0; i < left.size(); ++i) {
    left[i] = i;
  }
  layer.scores.assign(layer.units.size(), std::numeric_limits<double>::infinity());
  double before = 0;
  while (left.size() > 1) {
    check_interrupt();
    const std::vector<double> costs = eliminated.costs(left);
    std::vector<size_t> order(left.size());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] < costs[b]; });
    const size_t count = layer.of_heads() ? 1 : std::min(left.size() - 1, (left.size() + kSteps - 1) / kSteps);
    std::vector<size_t> falling;
    for (size_t i = 0; i < count; ++i) {
      falling.push_back(left[order[i]]);
      before = std::max(before, costs[order[i]] / static_cast<double>(layer.unit_parameters));
      layer.scores[falling.back()] = before;
    }
    eliminated.remove(falling);
    std::erase_if(left, [&](size_t unit) { return std::find(falling.begin(), falling.end(), unit) != falling.end(); });
  }
}

}  // namespace

Ranking rank_gradient_aware(const Model& model, const Statistics& statistics, const GradientAwareOptions& options) {
  const at::NoGradGuard no_grad;
  check_has_blocks(model, kGradientAware);
  check_options(kGradientAware, options);
  std::set<Need> needs = needs_of(options.compensation);
  needs.insert(Need::gram);
  const std::vector<Layer> whole = layers_of(model, Heads::groups, 0, 0, nullptr);
  check_inputs(kGradientAware, model, whole, statistics, needs);
  for (const Layer& layer : whole) {
    const GradientStatistics& gradient = statistics.gradient(layer.name);
    if (!gradient.has(Need::row_fisher) || !gradient.finite(Need::row_fisher) ||
        gradient.out_features() != layer.linear->out_features()) {
      throw ValueError(fmt::format("{}: statistics of {} have no finite row_fisher of its {} rows; collect it",
                                   kGradientAware, layer.name, layer.linear->out_features()));
    }
  }
  // Within a group, query heads by what each alone would cost.
  const HeadScores alone = [&](const Layer& o, int64_t heads) {
    Layer single = o;
    single.units.clear();
    const int64_t head_dim = o.linear->in_features() / heads;
    std::vector<size_t> all;
    for (int64_t head = 0; head < heads; ++head) {
      std::vector<int64_t>& own = single.units.emplace_back();
      for (int64_t i = 0; i < head_dim; ++i) {
        own.push_back(head * head_dim + i);
      }
      all.push_back(static_cast<size_t>(head));
    }
    return Eliminated(single, statistics, options.damp).costs(all);
  };
  std::vector<Layer> layers = layers_of(model, options.heads, 0, 0, alone);
  for (Layer& layer : layers) {
    order_greedily(layer, statistics, options.damp);
  }
  Statistics kept;
  for (const Layer& layer : layers) {
    if (options.compensation != Compensation::none) {
      kept.inputs[layer.name] = statistics.inputs.at(layer.name);
    }
  }
  return Ranking(std::make_shared<const Ranking::Contents>(Ranking::Contents{.operation = kGradientAware,
                                                                             .model = model,
                                                                             .statistics = std::move(kept),
                                                                             .layers = std::move(layers),
                                                                             .contest = {.global = true},
                                                                             .compensation = options.compensation,
                                                                             .damp = options.damp}));
}

Model gradient_aware(const Model& model, const Statistics& statistics, const GradientAwareOptions& options) {
  return rank_gradient_aware(model, statistics, options).remove(options.sparsity);
}

}  // namespace hemostat::structured
