// Room `structured`: smaller models. Attention heads, MLP channels, whole blocks or dimensions of the residual stream
// are taken out, so that what is left runs faster on any hardware. Model in, Model out.
//
// Heads and channels are removed in units with all that depends on them: a head with its rows of q (and of k and v) and
// its columns of o; a channel with its rows of gate and up and its column of down. At least one unit of each sublayer
// stays. `sparsity` is the fraction removed of the parameters of the linears inside blocks, met to the nearest unit.
//
// Errors, before any work: ValueError for a foreign module, for statistics that are missing, not finite or of another
// size, a fraction beyond what can be removed, and linears whose input is rotated.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>
#include <hemostat/options.h>
#include <hemostat/statistics.h>

namespace hemostat::structured {

// What makes up for the input features x_removed of o and down that are gone, beside those that are kept:
//   bias           W_removed · E[x_removed] joins the layer's bias (An et al. 2023, FLAP, arXiv 2312.11983, eq. 7)
//   least_squares  W_kept + W_removed · G_removed,kept · (G_kept,kept + damp · mean(diag G_kept,kept) · I)⁻¹, the
//   weights
//                  that give the least mean squared change of the layer's output; G = E[x xᵀ]
enum class Compensation { none, bias, least_squares };

// How query heads that share keys and values fall: whole groups with their key-value head, or as many query heads of
// every group, each group's least important first. Alike where each head has its own.
enum class Heads { groups, queries };

// What FLAP compares with what: UL within each block, AL all blocks at once; UM the same ratio of heads and channels,
// AM both in one order, MM `remove_heads` heads and channels for the rest.
enum class Structure { al_am, al_mm, ul_um, ul_mm };

// Of an input feature: IFV its variance, WIFV that times Σ_r W_r², WIFN mean_r |W_r| times its root mean square.
enum class Fluctuation { wifv, ifv, wifn };

// The saliency of a weight: |w·g| (param_first), w²·E[g²] (param_second), |w·g − ½ w²·E[g²]| (param_mix), summed over a
// unit's row or column; or |Σ w·g| of it (vectorize). g is the mean gradient of a sequence's mean NLL.
enum class Taylor { param_first, param_second, param_mix, vectorize };

// How the saliencies of a unit's linears become one number.
enum class Reduction { sum, mean, max, prod };

// block: heads and channels. channel: dimensions of the residual stream, the same ones in every block.
enum class Granularity { block, channel };

}  // namespace hemostat::structured

namespace hemostat {

template <>
inline constexpr auto words<structured::Compensation> =
    std::array{Word{structured::Compensation::none, "none"}, Word{structured::Compensation::bias, "bias"},
               Word{structured::Compensation::least_squares, "least_squares"}};
template <>
inline constexpr auto words<structured::Heads> =
    std::array{Word{structured::Heads::groups, "groups"}, Word{structured::Heads::queries, "queries"}};
template <>
inline constexpr auto words<structured::Structure> =
    std::array{Word{structured::Structure::al_am, "AL-AM"}, Word{structured::Structure::al_mm, "AL-MM"},
               Word{structured::Structure::ul_um, "UL-UM"}, Word{structured::Structure::ul_mm, "UL-MM"}};
template <>
inline constexpr auto words<structured::Fluctuation> =
    std::array{Word{structured::Fluctuation::wifv, "WIFV"}, Word{structured::Fluctuation::ifv, "IFV"},
               Word{structured::Fluctuation::wifn, "WIFN"}};
template <>
inline constexpr auto words<structured::Taylor> = std::array{
    Word{structured::Taylor::param_first, "param_first"}, Word{structured::Taylor::param_second, "param_second"},
    Word{structured::Taylor::param_mix, "param_mix"}, Word{structured::Taylor::vectorize, "vectorize"}};
template <>
inline constexpr auto words<structured::Reduction> =
    std::array{Word{structured::Reduction::sum, "sum"}, Word{structured::Reduction::mean, "mean"},
               Word{structured::Reduction::max, "max"}, Word{structured::Reduction::prod, "prod"}};
template <>
inline constexpr auto words<structured::Granularity> =
    std::array{Word{structured::Granularity::block, "block"}, Word{structured::Granularity::channel, "channel"}};

}  // namespace hemostat

namespace hemostat::structured {

// Fields that several options have.
template <typename Options>
constexpr auto sparsity_field() {
  return Field{"sparsity", &Options::sparsity, "fraction removed of the parameters of linears inside blocks",
               between(0, 1), SetBy::severity};
}
template <typename Options>
constexpr auto heads_field() {
  return Field{"heads", &Options::heads,
               "whole key-value groups, or as many query heads of each group (alike where each head has its own keys)"};
}
template <typename Options>
constexpr auto compensation_field() {
  return Field{"compensation", &Options::compensation, "what makes up for removed input features of o and down"};
}
template <typename Options>
constexpr auto damp_field() {
  return Field{"damp", &Options::damp, "share of the mean diagonal entry added to the Gram matrix's diagonal",
               at_least(0)};
}

struct WandaSpOptions {
  double sparsity = 0;
  Heads heads = Heads::groups;
  Compensation compensation = Compensation::none;
  double damp = 0.01;

  static constexpr auto fields() {
    using Own = WandaSpOptions;
    return std::tuple{sparsity_field<Own>(), heads_field<Own>(), compensation_field<Own>(), damp_field<Own>()};
  }
};

// Structured Wanda (An et al. 2023, FLAP, arXiv 2312.11983, §4.1): an input feature of o or down scores mean_r |W_rj| ·
// ‖x_j‖, a head the sum over its features. Each block loses the same fraction: of its heads the floor, of its channels
// what remains. Reads column_norm.
Model wanda_sp(const Model& model, const Statistics& statistics, const WandaSpOptions& options);

struct FlapOptions {
  double sparsity = 0;
  Structure structure = Structure::al_am;
  Fluctuation metric = Fluctuation::wifv;
  int64_t remove_heads = 0;
  Heads heads = Heads::groups;
  Compensation compensation = Compensation::bias;
  double damp = 0.01;

  static constexpr auto fields() {
    using Own = FlapOptions;
    return std::tuple{sparsity_field<Own>(),
                      Field{"structure", &Own::structure, "which units compete with which"},
                      Field{"metric", &Own::metric, "the importance of an input feature of o or down"},
                      Field{"remove_heads", &Own::remove_heads,
                            "AL-MM and UL-MM: units of heads removed in the whole model", at_least(0)},
                      heads_field<Own>(),
                      compensation_field<Own>(),
                      damp_field<Own>()};
  }
};

// FLAP (An et al. 2023, arXiv 2312.11983, eq. 5 to 7): input features of o and down that fluctuate least are replaced
// by their mean. As in the authors' code scores of o are squared; where all blocks compete (AL) they are standardized
// in each layer, a head has the mean of its features' and AM weighs units by their parameters. Reads column_norm and
// mean.
Model flap(const Model& model, const Statistics& statistics, const FlapOptions& options);

struct LlmPrunerOptions {
  double sparsity = 0;
  Taylor taylor = Taylor::param_first;
  Reduction reduction = Reduction::sum;
  Granularity granularity = Granularity::block;
  bool global_pruning = false;
  int64_t spare_first = 0, spare_last = 0;
  Heads heads = Heads::groups;
  Compensation compensation = Compensation::none;
  double damp = 0.01;

  static constexpr auto fields() {
    using Own = LlmPrunerOptions;
    return std::tuple{sparsity_field<Own>(),
                      Field{"taylor", &Own::taylor, "the saliency of a weight"},
                      Field{"reduction", &Own::reduction, "how the saliencies of a unit's linears become one"},
                      Field{"granularity", &Own::granularity,
                            "heads and channels of each block, or dimensions of the whole residual stream"},
                      Field{"global_pruning", &Own::global_pruning,
                            "units of all blocks compete; False: each block loses the same fraction"},
                      Field{"spare_first", &Own::spare_first, "blocks at the beginning that lose nothing", at_least(0)},
                      Field{"spare_last", &Own::spare_last, "blocks at the end that lose nothing", at_least(0)},
                      heads_field<Own>(),
                      compensation_field<Own>(),
                      damp_field<Own>()};
  }
};

// LLM-Pruner (Ma et al. 2023, arXiv 2305.11627, eq. 3 to 6) without its fine-tuning. Reads gradient_mean (not for
// param_second), gradient_square (for param_second and param_mix).
Model llm_pruner(const Model& model, const Statistics& statistics, const LlmPrunerOptions& options);

struct GradientAwareOptions {
  double sparsity = 0;
  Heads heads = Heads::groups;
  Compensation compensation = Compensation::least_squares;
  double damp = 0.01;

  static constexpr auto fields() {
    using Own = GradientAwareOptions;
    return std::tuple{sparsity_field<Own>(), heads_field<Own>(), compensation_field<Own>(), damp_field<Own>()};
  }
};

// Heads and channels by predicted damage. With G the Gram matrix of the input of o or down and f the row Fisher, to
// remove its features S and to update the others optimally costs
//   e(S) = ½ Σ_r f_r W_rS [(G⁻¹)_SS]⁻¹ W_rSᵀ   nats per token
// (OBS; Hassibi & Stork 1993). In each layer units fall greedily by e, weights and G⁻¹ updated after each thirty-second
// of them; all layers then compete by e per parameter. Reads gram and row_fisher.
Model gradient_aware(const Model& model, const Statistics& statistics, const GradientAwareOptions& options);

// Heads and channels in the order of their importance, found once for every sparsity. Immutable; copies share.
class Ranking {
 public:
  struct Contents;
  explicit Ranking(std::shared_ptr<const Contents> contents) : contents_(std::move(contents)) {}

  double most() const;                  // the largest sparsity there is
  Model remove(double sparsity) const;  // ValueError beyond most()

 private:
  std::shared_ptr<const Contents> contents_;
};

Ranking rank_wanda_sp(const Model& model, const Statistics& statistics, const WandaSpOptions& options);
Ranking rank_flap(const Model& model, const Statistics& statistics, const FlapOptions& options);
Ranking rank_llm_pruner(const Model& model, const Statistics& statistics, const LlmPrunerOptions& options);
Ranking rank_gradient_aware(const Model& model, const Statistics& statistics, const GradientAwareOptions& options);

// The largest sparsity that leaves a unit in each sublayer of the blocks that are not spared.
double most_removable(const Model& model, Heads heads, int64_t spare_first = 0, int64_t spare_last = 0);

// Block influence (Men et al. 2024, ShortGPT, arXiv 2403.03853, eq. 1): of each block 1 − E[cos(x_in, x_out)], x the
// residual stream at a token of tokens int64 [windows, length]. float64 [L].
std::vector<double> block_influence(const Model& model, const at::Tensor& tokens);

// Blocks from the least to the most influential, of equal ones the earlier first.
std::vector<int64_t> order_by_influence(const Model& model, const at::Tensor& tokens);

struct ShortGptOptions {
  int64_t count = 0;

  static constexpr auto fields() {
    return std::tuple{
        Field{"count", &ShortGptOptions::count, "blocks to drop, fewer than there are", at_least(0), SetBy::severity}};
  }
};

// Drops the blocks of the least influence.
Model shortgpt(const Model& model, const at::Tensor& tokens, const ShortGptOptions& options);

struct SlebOptions {
  int64_t count = 0;
  int64_t windows = 16;
  int64_t spare_first = 1, spare_last = 1;

  static constexpr auto fields() {
    using Own = SlebOptions;
    return std::tuple{
        Field{"count", &Own::count, "blocks to drop, fewer than there are", at_least(0), SetBy::severity},
        Field{"windows", &Own::windows, "calibration windows it judges by, the first so many; 0: all", at_least(0)},
        Field{"spare_first", &Own::spare_first, "blocks at the beginning that stay", at_least(0)},
        Field{"spare_last", &Own::spare_last, "blocks at the end that stay", at_least(0)}};
  }
};

// Greedy removal (Song et al. 2024, SLEB, arXiv 2402.09025, Algorithm 1): again and again the block falls without which
// the remaining model predicts tokens int64 [windows, length] best, a pass over them for each block that is left.
Model sleb(const Model& model, const at::Tensor& tokens, const SlebOptions& options);

// The blocks in the order in which sleb drops them, as far as it was asked for; what is known is kept.
class GreedyOrder {
 public:
  GreedyOrder(const Model& model, const at::Tensor& tokens, const SlebOptions& options);

  int64_t most() const;  // blocks that can fall
  std::vector<int64_t> first(int64_t count);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

struct SliceGptOptions {
  double sliced = 0;
  int64_t round_interval = 8;

  static constexpr auto fields() {
    using Own = SliceGptOptions;
    return std::tuple{
        Field{"sliced", &Own::sliced, "fraction of the residual stream's dimensions that is deleted", between(0, 1),
              SetBy::severity},
        Field{"round_interval", &Own::round_interval, "dimensions are deleted so many at a time", at_least(1)}};
  }
};

// SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024, §3): norms become plain RMS norms, their gains (and a layer norm's
// means) part of the linears around them; before each sublayer the residual stream is turned to the principal
// components of what reaches it on tokens int64 [windows, length], in the model sliced so far, and the last ones are
// deleted. The turns between bases are Block::attention_shortcut and mlp_shortcut. ValueError for mixtures of experts,
// parallel blocks, norms after a sublayer, and inputs that are scaled or rotated.
Model slicegpt(const Model& model, const at::Tensor& tokens, const SliceGptOptions& options);

}  // namespace hemostat::structured
