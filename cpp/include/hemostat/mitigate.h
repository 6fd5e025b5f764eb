// Room `mitigate`: treatments. Each brings a damaged model's predictions back towards the unchanged model's, and is
// judged on text that it did not see.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include <ATen/core/Tensor.h>

#include <hemostat/methods.h>
#include <hemostat/metrics.h>
#include <hemostat/options.h>

namespace hemostat::mitigate {

// Which tokens the Gram matrix of an input counts alike: all of them, or each as the loss depends on what its linears
// give there (Kim et al. 2025, "GuidedQuant", arXiv 2505.07004).
enum class Gram { plain, guided };

}  // namespace hemostat::mitigate

namespace hemostat {

template <>
inline constexpr auto words<mitigate::Gram> =
    std::array{Word{mitigate::Gram::plain, "plain"}, Word{mitigate::Gram::guided, "guided"}};

}  // namespace hemostat

namespace hemostat::mitigate {

struct GradientAwareOptions {
  bool allocation = true;
  double width = 0.2;
  bool propagate = true;
  Gram gram = Gram::plain;
  bool refine = false;
  int64_t iterations = 20;

  static constexpr auto fields() {
    return std::tuple{
        Field{"allocation", &GradientAwareOptions::allocation,
              "each linear has the sparsity at which the predicted damage of all is least; else all have the same"},
        Field{"width", &GradientAwareOptions::width, "how far a linear's sparsity may be from the mean", between(0, 1)},
        Field{"propagate", &GradientAwareOptions::propagate,
              "block by block, each linear is aimed at what the unchanged model gives; else all from the unchanged "
              "model's statistics"},
        Field{"gram", &GradientAwareOptions::gram, "which tokens count: all alike, or by their gradients"},
        Field{"refine", &GradientAwareOptions::refine,
              "what is kept is trained towards the unchanged model's distribution at the end"},
        Field{"iterations", &GradientAwareOptions::iterations, "how often ADMM adjusts weights and mask", at_least(1)}};
  }
};

// What held-out windows choose.
struct GradientAwareSettings {
  double correct = 0;       // α: how far linears are aimed at the unchanged model's outputs, 0 … 1
  double correct_damp = 0;  // λ of that
  double damp = 0;          // of ADMM
};

// Gradient-aware pruning, made ready on calibration tokens int64 [windows ≥ 2, length ≥ 2]. Of the windows the last
// ones, an eighth, at least 8 but no more than half, are held out. They give the row Fisher and the Gram matrices by
// which damage is predicted, and choose settings; the last pass then takes all windows.
//
//   1. Each linear's predicted damage e(s) = ½ Σ_r f_r ΔW_r G ΔW_rᵀ after a short ADMM at three sparsities, log e as a
//      quadratic in logit s; Σ e_l(s_l) is made least at the given mean, |s_l − s| ≤ width. n:m
//      patterns are not allocated: each linear has the same.
//   2. Block by block (calibrate_blockwise), ADMM on rows scaled by √f_r towards the unchanged model's outputs.
//   3. With refine, what is kept learns the unchanged model's distribution of the next token (Adam, the mask fixed);
//      where that does not lower KL, it is left out.
class GradientAwarePruning {
 public:
  // ValueError for tokens that are too few or out of range, and for a model without blocks.
  GradientAwarePruning(const Model& model, const at::Tensor& calibration, const GradientAwareOptions& options = {},
                       const LinearFilter& filter = {}, double memory_budget = 1024.0 * 1024 * 1024);

  struct Result {
    Model model;
    GradientAwareSettings settings;
    std::map<std::string, double> sparsity;  // of each linear
  };

  using Progress = std::function<void(const std::string& stage, int64_t done, int64_t total)>;  // may throw Interrupted

  // Exactly one of the two: the fraction of the linears' weights that falls, or "n:m".
  Result at(const std::optional<double>& sparsity, const std::optional<std::string>& pattern,
            const Progress& progress = nullptr) const;

 private:
  struct Ready;
  std::shared_ptr<const Ready> ready_;
};

// A treated model, and what it and an untreated one cost on text that neither saw. Without such text: only the model.
struct Treatment {
  Model model;
  std::optional<Damage> untreated = std::nullopt, treated = std::nullopt;
  std::optional<double> recovery = std::nullopt;             // 1 − ΔNLL treated / ΔNLL untreated
  std::optional<Interval> recovery_interval = std::nullopt;  // 95 %, paired bootstrap over windows
  std::map<std::string, double> settings = {};               // what the treatment chose
  std::map<std::string, double> severities = {};             // of each linear
};

// From two damages on the same windows. Recovery is none where the untreated model's ΔNLL is not above 0.
void judge(Treatment& treatment, Damage untreated, Damage treated, int64_t samples = 2000, int64_t seed = 0);

struct GradientAwarePruningOptions {
  std::optional<double> sparsity = std::nullopt;
  std::optional<std::string> pattern = std::nullopt;
  std::optional<at::Tensor> evaluation = std::nullopt;  // int64 [windows, length]: judged on, never calibrated on
  GradientAwareOptions treatment = {};
  MethodSpec untreated = {.method = "wanda", .options = {}};  // at the same sparsity or pattern, on dense statistics
  LinearFilter filter = {};
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes
  GradientAwarePruning::Progress progress = nullptr;
};

// GradientAwarePruning, once, and judged. ValueError, before any work, for a sparsity or a pattern that cannot be, or
// both or none of them.
Treatment gradient_aware_pruning(const Model& model, const at::Tensor& calibration,
                                 const GradientAwarePruningOptions& options);

}  // namespace hemostat::mitigate
