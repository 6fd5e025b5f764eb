#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/mitigate.h>
#include <hemostat/prune.h>

#include "calibrate/autocast.h"
#include "common/arguments.h"
#include "kernels/isa.h"
#include "methods/predict.h"
#include "mitigate/allocation.h"
#include "mitigate/distillation.h"
#include "model/foreign.h"
#include "model/heap_trimmer.h"

namespace hemostat::mitigate {
namespace {

constexpr const char* kOperation = "hemostat.mitigate.gradient_aware_pruning";

constexpr int64_t kJudging = 4, kLeastHeld = 8, kMostHeld = 16, kMostAllocating = 16;  // windows
constexpr std::array<double, 3> kCurve{0.35, 0.55, 0.75};
constexpr int64_t kCurveIterations = 8, kCurveRows = 256;
constexpr double kCurveDamp = 0.05;
constexpr double kMostWeight = 4;  // of a token, in means: the first ones would outweigh all others

// α, λ and damp that are tried, the more trusting of the calibration text first.
constexpr std::array<GradientAwareSettings, 2> kSettings{{
    {.correct = 1, .correct_damp = 0.01, .damp = 0.01},
    {.correct = 0.5, .correct_damp = 0.1, .damp = 0.05},
}};

// Whether passes are faster with products in bfloat16.
bool in_bfloat16(const Model& model) {
  const auto mixture = [](const Block& block) { return !block.experts.mlps.empty(); };  // which gathers in one dtype
  return model.device().is_cpu() && model.dtype() == at::kFloat &&
         std::none_of(model.blocks.begin(), model.blocks.end(), mixture) && kernels::multiplies_bfloat16();
}

struct Severity {
  std::optional<double> sparsity;
  std::optional<std::string> pattern;
};

prune::AdmmOptions admm_options(const Severity& severity, int64_t iterations, const at::Tensor& row_fisher) {
  return {.sparsity = severity.sparsity,
          .pattern = severity.pattern,
          .iterations = iterations,
          .row_weight = row_fisher,
          .check_finite = false};
}

// Of an expert that no token reached, what stands for its Gram matrix.
at::Tensor gram_of(const InputStatistics& input) { return input.count() > 0 ? input.gram() : input.alike().gram(); }

// Which is not given every token.
bool of_expert(const Model& model, const Site& site) {
  const bool in_mlp = site.role == Role::gate || site.role == Role::up || site.role == Role::down;
  return in_mlp && !model.blocks[*site.block].experts.mlps.empty();
}

LinearFilter only(const std::vector<std::string>& names) { return {.include = names, .exclude = {}}; }

}  // namespace

struct GradientAwarePruning::Ready {
  Model model;
  GradientAwareOptions options;
  LinearFilter filter;
  double memory_budget;
  at::Tensor windows, solving, held;                     // all, and their two parts
  Statistics judging;                                    // row Fisher, and Gram matrices of held-out windows
  std::vector<std::string> names = {};                   // in the model's order
  std::vector<double> weights = {};                      // of each, how many
  std::map<std::string, DamageCurve> curves = {};        // none without allocation
  std::optional<BaselineEvaluation> baseline = {};       // on held-out windows, where they choose or judge
  std::map<std::string, at::Tensor> token_weights = {};  // of guided Gram matrices, by the first linear of an input

  void measure_curves();
  void weigh_tokens();
  std::map<std::string, double> shares(double sparsity) const;
  Model pruned(const GradientAwareSettings& settings, const std::map<std::string, double>& shares,
               const Severity& severity, const at::Tensor& windows, const LinearFilter& chosen,
               const std::function<void(int64_t, int64_t)>& progress) const;
  GradientAwareSettings chosen_settings(const std::map<std::string, double>& shares, const Severity& severity) const;
  LinearFilter first_blocks() const;
  Statistics collected(const at::Tensor& windows, std::set<Need> needs) const {
    const Bfloat16Products products(model.device().type(), in_bfloat16(model));
    return collect(model, windows, {.needs = std::move(needs), .memory_budget = memory_budget / 2, .filter = filter});
  }
};

void GradientAwarePruning::Ready::measure_curves() {
  const at::Tensor windows = solving.narrow(0, 0, std::min(kMostAllocating, solving.size(0)));
  const BlockwiseOptions blockwise{.needs = {Need::gram},
                                   .memory_budget = memory_budget / 2,
                                   .filter = filter,
                                   .bfloat16_products = in_bfloat16(model)};
  calibrate_blockwise(model, windows, blockwise, [&](const SharedInput& sites) {
    const prune::AdmmFactor factor =
        prune::admm_factor(gram_of(*sites.front().input).to(model.device()), kCurveDamp, /*check_finite=*/false);
    const at::Tensor judge = gram_of(judging.at(sites.front().name)).to(model.device());
    std::vector<Linear> unchanged;
    for (const Site& site : sites) {
      check_interrupt();
      const int64_t stride = std::max<int64_t>(1, site.linear->out_features() / kCurveRows);  // some rows tell of all
      const at::Tensor weight = site.linear->dense().slice(0, 0, std::nullopt, stride).to(at::kFloat).contiguous();
      const at::Tensor fisher =
          judging.gradient(site.name).row_fisher().slice(0, 0, std::nullopt, stride).to(at::kDouble);
      std::array<double, kCurve.size()> damages;
      std::transform(kCurve.begin(), kCurve.end(), damages.begin(), [&](double sparsity) {
        const auto options = admm_options({.sparsity = sparsity, .pattern = {}}, kCurveIterations, fisher);
        const at::Tensor change = prune::admm(weight, factor, options).weight.sub_(weight);
        return static_cast<double>(stride) * quadratic_damage(change, judge, fisher);
      });
      curves.emplace(site.name, DamageCurve(kCurve, damages));
      unchanged.push_back(*site.linear);
    }
    trim_grown_heap();
    return unchanged;
  });
}

void GradientAwarePruning::Ready::weigh_tokens() {
  const Statistics gradients = collected(windows, {Need::token_fisher});
  for (const SharedInput& sites : sites_of(model, filter, &gradients)) {
    if (of_expert(model, sites.front())) {
      continue;
    }
    at::Tensor sum;
    for (const Site& site : sites) {
      const at::Tensor own = site.gradient->token_fisher();
      const at::Tensor share = own / own.mean().clamp_min(1e-30);
      sum = sum.defined() ? sum + share : share;
    }
    const at::Tensor mean = sum / static_cast<double>(sites.size());
    const at::Tensor capped = mean.clamp_max(kMostWeight);
    token_weights[sites.front().name] = capped / capped.mean();
  }
}

std::map<std::string, double> GradientAwarePruning::Ready::shares(double sparsity) const {
  std::map<std::string, double> result;
  if (curves.empty() || sparsity < 0.02 || sparsity > 0.98) {
    for (const std::string& name : names) {
      result[name] = sparsity;
    }
    return result;
  }
  std::vector<DamageCurve> ordered;
  for (const std::string& name : names) {
    ordered.push_back(curves.at(name));
  }
  const std::vector<double> allocated = allocate(ordered, weights, sparsity, options.width);
  for (size_t i = 0; i < names.size(); ++i) {
    result[names[i]] = allocated[i];
  }
  return result;
}

Model GradientAwarePruning::Ready::pruned(const GradientAwareSettings& settings,
                                          const std::map<std::string, double>& shares, const Severity& severity,
                                          const at::Tensor& windows, const LinearFilter& chosen,
                                          const std::function<void(int64_t, int64_t)>& progress) const {
  const auto change = [&](const SharedInput& sites) {
    const prune::AdmmFactor factor =
        prune::admm_factor(gram_of(*sites.front().input).to(model.device()), settings.damp, /*check_finite=*/false);
    std::vector<Linear> linears;
    for (const Site& site : sites) {
      check_interrupt();
      const Severity own{.sparsity = severity.pattern ? std::nullopt : std::optional(shares.at(site.name)),
                         .pattern = severity.pattern};
      const auto admm = admm_options(own, options.iterations, judging.gradient(site.name).row_fisher());
      linears.push_back(site.linear->with_weight(prune::admm(site.linear->dense(), factor, admm).weight));
    }
    trim_grown_heap();
    return linears;
  };
  BlockwiseOptions blockwise{.needs = {Need::gram},
                             .memory_budget = memory_budget,
                             .filter = chosen,
                             .correct = options.propagate ? settings.correct : 0,
                             .correct_damp = settings.correct_damp,
                             .bfloat16_products = in_bfloat16(model),
                             .progress = progress};
  for (const auto& [name, weight] : token_weights) {
    blockwise.token_weights[name] = weight.narrow(0, 0, windows.size(0));
  }
  std::map<std::string, Linear> changed;
  const Model walked = calibrate_blockwise(model, windows, blockwise, [&](const SharedInput& sites) {
    std::vector<Linear> linears = change(sites), unchanged;
    if (options.propagate) {
      return linears;
    }
    for (size_t i = 0; i < sites.size(); ++i) {
      changed.emplace(sites[i].name, std::move(linears[i]));
      unchanged.push_back(*sites[i].linear);
    }
    return unchanged;
  });
  return options.propagate
             ? walked
             : map_linears(model, chosen, [&](const std::string& name, const Linear&) { return changed.at(name); });
}

// Enough blocks to tell settings apart.
LinearFilter GradientAwarePruning::Ready::first_blocks() const {
  const size_t count = std::max<size_t>(1, model.blocks.size() / 8);
  std::vector<std::string> first;
  for (const NamedLinear& named : linears(model, filter)) {
    if (named.block && *named.block < count) {
      first.push_back(named.name);
    }
  }
  return first.empty() ? filter : only(first);
}

GradientAwareSettings GradientAwarePruning::Ready::chosen_settings(const std::map<std::string, double>& shares,
                                                                   const Severity& severity) const {
  GradientAwareSettings best = kSettings.front();
  double least = std::numeric_limits<double>::infinity();
  const LinearFilter first = first_blocks();
  const at::Tensor windows = solving.narrow(0, 0, (solving.size(0) + 1) / 2);
  for (const GradientAwareSettings& settings : kSettings) {
    const double kl = baseline->compare(pruned(settings, shares, severity, windows, first, nullptr)).kl.mean;
    if (kl < least) {
      least = kl;
      best = settings;
    }
  }
  return best;
}

GradientAwarePruning::GradientAwarePruning(const Model& model, const at::Tensor& calibration,
                                           const GradientAwareOptions& options, const LinearFilter& filter,
                                           double memory_budget) {
  check_options(kOperation, options);
  check_has_blocks(model, kOperation);
  const at::Tensor windows = checked_tokens(model, calibration, kOperation);
  if (windows.size(0) < 2 || windows.size(1) < 2) {
    throw ValueError(fmt::format("{}: calibration is [{}, {}], but takes at least 2 windows of at least 2 tokens",
                                 kOperation, windows.size(0), windows.size(1)));
  }
  const at::NoGradGuard no_grad;
  const int64_t held = std::min(windows.size(0) / 2, std::clamp<int64_t>(windows.size(0) / 8, kLeastHeld, kMostHeld));
  const int64_t solving = windows.size(0) - held;
  auto ready = std::make_shared<Ready>(Ready{.model = model,
                                             .options = options,
                                             .filter = filter,
                                             .memory_budget = memory_budget,
                                             .windows = windows,
                                             .solving = windows.narrow(0, 0, solving),
                                             .held = windows.narrow(0, solving, held),
                                             .judging = {}});
  for (const NamedLinear& named : linears(model, filter)) {
    ready->names.push_back(named.name);
    ready->weights.push_back(static_cast<double>(named.linear->out_features() * named.linear->in_features()));
  }
  if (ready->names.empty()) {
    throw ValueError(fmt::format("{}: include and exclude leave no linear layer to prune", kOperation));
  }
  std::set<Need> needs{Need::row_fisher};
  if (options.allocation) {
    needs.insert(Need::gram);
  }
  if (options.propagate || options.refine) {
    ready->baseline.emplace(model, ready->held.narrow(0, 0, std::min(kJudging, held)),
                            CompareOptions{.keep_logits = false, .bootstrap_samples = 1});
  }
  ready->judging = ready->collected(ready->held, needs);
  if (options.allocation) {
    ready->measure_curves();
    ready->judging.inputs.clear();  // large, and of no use from here on
    trim_grown_heap();
  }
  if (options.gram == Gram::guided) {
    ready->weigh_tokens();
  }
  ready_ = std::move(ready);
}

GradientAwarePruning::Result GradientAwarePruning::at(const std::optional<double>& sparsity,
                                                      const std::optional<std::string>& pattern,
                                                      const Progress& progress) const {
  const at::NoGradGuard no_grad;
  const Ready& ready = *ready_;
  const Severity severity{sparsity, pattern};
  const std::map<std::string, double> shares = pattern ? std::map<std::string, double>() : ready.shares(*sparsity);
  const GradientAwareSettings settings =
      ready.options.propagate ? ready.chosen_settings(shares, severity) : kSettings.back();
  const auto blocks = [&](int64_t done, int64_t total) {
    if (progress) {
      progress("prune", done, total);
    }
  };
  Result result{.model = ready.pruned(settings, shares, severity, ready.windows, ready.filter, blocks),
                .settings = settings,
                .sparsity = shares};
  if (ready.options.refine) {
    const auto steps = [&](int64_t done, int64_t total) {
      if (progress) {
        progress("refine", done, total);
      }
    };
    Model refined = distilled(ready.model, result.model, ready.windows,
                              {.filter = ready.filter, .memory_budget = ready.memory_budget, .progress = steps});
    if (ready.baseline->compare(refined).kl.mean < ready.baseline->compare(result.model).kl.mean) {
      result.model = std::move(refined);
    }
  }
  return result;
}

}  // namespace hemostat::mitigate
