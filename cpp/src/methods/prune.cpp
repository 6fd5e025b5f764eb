#include <cmath>
#include <optional>
#include <set>

#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>
#include <hemostat/quantize.h>
#include <hemostat/solve.h>

#include "axes.h"
#include "catalogue.h"
#include "gram_factor.h"
#include "group_size.h"
#include "on_linears.h"
#include "pruning_axis.h"

namespace hemostat {
namespace {

std::vector<OptionSpec> permutation() {
  return {{"permute",
           false,
           "with m: regroup each layer's columns by channel_permutation, so that n:m keeps more of the score",
           {}}};
}

FitCheck permutation_check(const std::string& method) {
  return [method](const Model&, const Options& options) {
    if (option<bool>(options, "permute") && option<int64_t>(options, "m") == 0) {
      throw ValueError(
          fmt::format("hemostat.prepare({}): permute regroups the columns of n:m pruning, so it needs m", method));
    }
  };
}

// The n:m mask of the matrix whose columns are permuted, with its columns in their own order.
at::Tensor regrouped_mask(const at::Tensor& score, const std::string& pattern) {
  const at::Tensor order = prune::channel_permutation(score, pattern);
  const at::Tensor mask = prune::mask(score.index_select(1, order), {.pattern = pattern});
  return at::empty_like(mask).index_copy_(1, order, mask);
}

at::Tensor input_norm(const SharedInput& sites, const Options&, MemoryBudget&) { return sites.front().input->norm(); }

Linear pruned(const Site& site, const at::Tensor& weight, const at::Tensor& mask) {
  return site.linear->with_weight(prune::apply(weight, mask));
}

Linear magnitude(const Site& site, const Options& options, double severity) {
  const at::Tensor weight = site.linear->dense();
  return pruned(site, weight, prune::magnitude(weight, pruned_at<prune::MagnitudeOptions>(options, severity)));
}

Linear wanda(const Site& site, const at::Tensor& input_norm, const Options& options, double severity) {
  const at::Tensor weight = site.linear->dense(), norm = input_norm.to(weight.device());
  const auto mask_options = pruned_at<prune::WandaOptions>(options, severity);
  return pruned(site, weight,
                option<bool>(options, "permute")
                    ? regrouped_mask(prune::score_wanda(weight, norm), *mask_options.pattern)
                    : prune::wanda(weight, norm, mask_options));
}

Linear ria(const Site& site, const at::Tensor& input_norm, const Options& options, double severity) {
  const at::Tensor weight = site.linear->dense(), norm = input_norm.to(weight.device());
  const auto mask_options = pruned_at<prune::RiaOptions>(options, severity);
  return pruned(site, weight,
                option<bool>(options, "permute")
                    ? regrouped_mask(prune::score_ria(weight, norm, mask_options.alpha), *mask_options.pattern)
                    : prune::ria(weight, norm, mask_options));
}

// How what is kept is rounded in the same pass; none where bits is 0.
std::optional<solve::Rounding> joint_rounding(const Options& options) {
  const auto bits = option<double>(options, "bits");
  if (bits == 0) {
    return std::nullopt;
  }
  return solve::Rounding{
      .bits = bits, .group_size = group_size_of("sparsegpt", options), .symmetric = option<bool>(options, "symmetric")};
}

Axis sparsegpt_axis(const Model& model, const Options& options) {
  Axis axis = pruning_axis(model, options);
  axis.continuous_at_neutral = option<double>(options, "bits") == 0;  // rounding does damage of its own
  return axis;
}

void check_sparsegpt(const Model&, const Options& options) {
  const auto bits = option<double>(options, "bits");
  if (bits != 0 && !(bits >= 2 && bits <= 8)) {
    throw ValueError(fmt::format("hemostat.prepare(sparsegpt): bits is {}, but must be 0 or from 2 to 8", bits));
  }
  const int64_t group_size = group_size_of("sparsegpt", options);
  if (bits == 0 && (group_size != quantize::kPerRow || option<bool>(options, "symmetric"))) {
    throw ValueError(
        "hemostat.prepare(sparsegpt): group_size and symmetric say how what is kept is rounded, but bits is not given");
  }
}

solve::GramFactor sparsegpt_factor(const SharedInput& sites, const Options& options, MemoryBudget& budget) {
  const int64_t m = option<int64_t>(options, "m"), block_size = option<int64_t>(options, "block_size");
  return gram_factor(sites,
                     {.damp = option<double>(options, "damp"),
                      .block_size = m > 0 && block_size > 0 ? prune::pattern_block_size(block_size, m) : block_size},
                     budget);
}

Linear sparsegpt(const Site& site, const solve::GramFactor& factor, const Options& options, double severity) {
  auto pruning = pruned_at<prune::SparseGptOptions>(options, severity);
  pruning.rounding = joint_rounding(options);
  const at::Tensor weight = site.linear->dense();
  const double stored_bits = pruning.rounding
                                 ? quantize::group_bits_per_weight(weight.sizes(), pruning.rounding->group_size,
                                                                   pruning.rounding->bits, pruning.rounding->symmetric)
                                 : 0;
  return site.linear->with_weight(prune::sparsegpt(weight, factor.to(weight.device()), pruning).weight, stored_bits);
}

std::set<Need> gradient_method_needs(const Options& options) {
  const auto& score = option<std::string>(options, "score");
  if (score != "gblm") {
    return {score == "taylor" ? Need::gradient_mean : Need::gradient_square};
  }
  return {Need::column_norm,
          option<std::string>(options, "norm") == "l1" ? Need::gradient_absmean : Need::gradient_square};
}

// Norms as the authors' code takes them. Activations: the root of the mean, over sequences, of the sum of squares over
// a sequence's tokens. Gradients: over all sequences, not divided by their number.
at::Tensor gblm_mask(const at::Tensor& weight, const InputStatistics& input, const GradientStatistics& gradient,
                     bool l1, const prune::GblmOptions& options) {
  const double sequences = static_cast<double>(gradient.count());
  const at::Tensor norm = input.norm() * std::sqrt(static_cast<double>(input.count()) / sequences);
  const at::Tensor gradient_norm = l1 ? gradient.absmean() * sequences : (gradient.square() * sequences).sqrt();
  return prune::gblm(weight, norm.to(weight.device()), gradient_norm.to(weight.device()), options);
}

// Its scope has a word of its own.
Options without_scope(Options options) {
  options.erase("scope");
  return options;
}

Linear gradient(const Site& site, const Options& options, double severity) {
  const auto& score = option<std::string>(options, "score");
  const auto& scope = option<std::string>(options, "scope");
  const bool rows = scope == "row" || (scope == "auto" && score == "gblm");
  const at::Tensor weight = site.linear->dense();
  if (score == "gblm") {
    auto mask_options = pruned_at<prune::GblmOptions>(without_scope(options), severity);
    mask_options.scope = rows ? prune::Scope::row : prune::Scope::tensor;
    return pruned(
        site, weight,
        gblm_mask(weight, *site.input, *site.gradient, option<std::string>(options, "norm") == "l1", mask_options));
  }
  auto mask_options = pruned_at<prune::GradientOptions>(without_scope(options), severity);
  mask_options.scope = rows ? prune::Scope::row : prune::Scope::tensor;
  return pruned(site, weight,
                score == "taylor" ? prune::taylor(weight, site.gradient->mean().to(weight.device()), mask_options)
                                  : prune::fisher(weight, site.gradient->square().to(weight.device()), mask_options));
}

}  // namespace

std::vector<Method> prune_methods() {
  return {
      {.name = "magnitude",
       .kind = Kind::weights,
       .description = "removes the smallest weights of each matrix or row",
       .axis = axes::sparsity(),
       .needs = {},
       .options = declared<prune::MagnitudeOptions>() + pattern_length(),
       .change = on_sites(magnitude),
       .axis_for = pruning_axis},
      {.name = "wanda",
       .kind = Kind::weights,
       .description = "removes the smallest |weight| · input norm of each row",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options = pattern_length() + permutation(),
       .change = on_inputs(input_norm, wanda),
       .axis_for = pruning_axis,
       .check = permutation_check("wanda")},
      {.name = "sparsegpt",
       .kind = Kind::weights,
       .description = "removes weights column by column; what is left makes up for it",
       .axis = axes::sparsity(),
       .needs = {Need::gram},
       .options = pattern_length() + declared<prune::SparseGptOptions>() +
                  std::vector<OptionSpec>{
                      {"bits", 0.0, "rounds what is kept in the same pass, 2 to 8; 0: does not", {}},
                      {.name = "group_size",
                       .default_value = std::string("row"),
                       .description =
                           "with bits: weights that share a scale: row, or a number that divides the input features",
                       .choices = {},
                       .range = quantize::kGroupsOfRows,
                       .divides = true},
                      {"symmetric", false, "with bits: codes symmetric about 0", {}}},
       .change = on_gram_factors(sparsegpt_factor, sparsegpt),
       .axis_for = sparsegpt_axis,
       .check = check_sparsegpt},
      {.name = "ria",
       .kind = Kind::weights,
       .description = "removes the weights of least relative importance · norm^alpha",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm},
       .options = declared<prune::RiaOptions>() + pattern_length() + permutation(),
       .change = on_inputs(input_norm, ria),
       .axis_for = pruning_axis,
       .check = permutation_check("ria")},
      {.name = "gradient",
       .kind = Kind::weights,
       .description = "removes the weights that the loss's gradients say matter least",
       .axis = axes::sparsity(),
       .needs = {Need::column_norm, Need::gradient_absmean},
       .options = std::vector<OptionSpec>{{"score",
                                           std::string("gblm"),
                                           "gblm: |weight| · (input norm + alpha · gradient norm); taylor: |weight · "
                                           "gradient|; fisher: weight² · gradient²",
                                           {"gblm", "taylor", "fisher"}}} +
                  declared<prune::GblmOptions>({"alpha"}) +
                  std::vector<OptionSpec>{{"norm", std::string("l1"), "of the gradients in gblm", {"l1", "l2"}},
                                          {"scope",
                                           std::string("auto"),
                                           "what the fraction counts over; auto: row for gblm, tensor for the others",
                                           {"auto", "tensor", "row"}}} +
                  pattern_length(),
       .change = on_sites(gradient),
       .axis_for = pruning_axis,
       .needs_for = gradient_method_needs},
  };
}

}  // namespace hemostat
