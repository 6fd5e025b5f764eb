#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "groups.h"
#include "straight_through.h"

namespace hemostat::quantize {

namespace {

// The grids of the authors' code.
constexpr int64_t kExponents = 20;
constexpr int64_t kClips = 10;
constexpr double kClipStep = 0.05;
constexpr double kLeastScale = 1e-4;

struct Levels {
  int64_t count;
  int64_t group_size;
  bool symmetric;
};

Levels checked(std::string_view operation, const AwqOptions& options, int64_t in_features) {
  check_within_rows(operation, options.group_size);
  return {.count = checked_levels(operation, options.bits),
          .group_size = checked_group_size(operation, options.group_size, in_features),
          .symmetric = options.symmetric};
}

at::Tensor rounded(const at::Tensor& scaled, const Levels& levels) {
  at::Tensor out = at::empty(scaled.sizes(), scaled.options());
  kernels::fake_quantize(scaled, levels.count, levels.group_size, levels.symmetric, out);
  return out;
}

at::Tensor searched_scale(const std::vector<at::Tensor>& given, const at::Tensor& absmean, const at::Tensor& given_gram,
                          const Levels& levels) {
  at::Tensor best = at::ones_like(absmean);
  if (absmean.numel() == 0) {
    return best;
  }
  // Which scale is the best does not depend on the units of weights and inputs, but their products may leave float32.
  const at::Tensor gram = given_gram.mul(arguments::unit_factor(given_gram));
  double unit = std::numeric_limits<double>::infinity();
  for (const at::Tensor& weight : given) {
    unit = std::min(unit, arguments::unit_factor(weight));
  }
  std::vector<at::Tensor> weights;
  for (const at::Tensor& weight : given) {
    weights.push_back(weight.mul(unit));
  }
  double least = std::numeric_limits<double>::infinity();
  for (int64_t step = 0; step < kExponents; ++step) {
    at::Tensor scale = absmean.pow(static_cast<double>(step) / kExponents).clamp_min_(kLeastScale);
    scale.div_(scale.amax().sqrt().mul_(scale.amin().sqrt()));
    double error = 0;
    for (const at::Tensor& weight : weights) {
      const at::Tensor change = rounded(weight.mul(scale), levels).div_(scale).sub_(weight);
      error += change.mm(gram).mul_(change).sum(at::kDouble).item<double>();
    }
    if (error < least) {
      least = error;
      best = scale;
    }
  }
  return best;
}

// [out_features, groups, 1]: where each group of the scaled weight is clipped.
at::Tensor searched_clip(const at::Tensor& scaled, const at::Tensor& scale, const at::Tensor& gram,
                         const Levels& levels) {
  const int64_t entries = levels.group_size;
  const int64_t groups = scaled.size(1) / entries;
  const at::Tensor grouped = scaled.view({-1, groups, entries});
  // What a group adds to the outputs depends on the block of the Gram matrix on its own inputs. [groups, entries,
  // entries]
  const at::Tensor own = gram.reshape({groups, entries, groups, entries}).diagonal(0, 0, 2).permute({2, 0, 1});
  const at::Tensor largest = grouped.abs().amax(2, /*keepdim=*/true);

  at::Tensor best = largest;
  at::Tensor least = at::full({groups, scaled.size(0)}, std::numeric_limits<float>::infinity(), scaled.options());
  for (int64_t step = 0; step < kClips; ++step) {
    const at::Tensor limit = largest.mul(1.0 - kClipStep * static_cast<double>(step));
    const at::Tensor clipped = at::clamp(grouped, -limit, limit).view(scaled.sizes());
    const at::Tensor change =
        rounded(clipped, levels).sub_(scaled).div_(scale).view({-1, groups, entries}).transpose(0, 1);
    const at::Tensor error = at::bmm(change, own).mul_(change).sum(2);
    const at::Tensor better = error < least;
    least = at::where(better, error, least);
    best = at::where(better.t().unsqueeze(2), limit, best);
  }
  return best;
}

// A checked weight with the scale of its input features.
struct Scaled {
  at::Tensor weight, scale, gram;
  Levels levels;
};

// weight · diag(scale), clipped where that is asked for.
at::Tensor scaled_and_clipped(std::string_view operation, const Scaled& given, const AwqOptions& options) {
  const at::Tensor scaled = given.weight.detach().to(at::kFloat).mul(given.scale).contiguous();
  if (options.check_finite) {
    arguments::check_result(operation, "weight times its scale", scaled);
  }
  if (!options.search_clip || scaled.numel() == 0) {
    return scaled;
  }
  const at::Tensor limit = searched_clip(scaled, given.scale, given.gram, given.levels);
  const at::Tensor grouped = scaled.view({scaled.size(0), -1, given.levels.group_size});
  return at::clamp(grouped, -limit, limit).view(scaled.sizes());
}

at::Tensor rounded(std::string_view operation, const Scaled& given, const AwqOptions& options) {
  if (given.weight.numel() == 0) {
    return at::empty(given.weight.sizes(), given.weight.options());
  }
  const at::Tensor levelled = rounded(scaled_and_clipped(operation, given, options), given.levels);
  const at::Tensor result = levelled.div(given.scale).to(given.weight.scalar_type());
  if (options.check_finite) {
    arguments::check_result(operation, "weight", result);
  }
  return straight_through(given.weight, result);
}

std::shared_ptr<GroupPacked> packed(std::string_view operation, const Scaled& given, const AwqOptions& options) {
  const auto codes = rtn_packed(
      scaled_and_clipped(operation, given, options),
      {.bits = options.bits, .group_size = options.group_size, .symmetric = options.symmetric, .check_finite = false});
  return std::make_shared<GroupPacked>(codes->codes(), codes->scale(), codes->zero(), codes->group_size(),
                                       codes->bits(), codes->symmetric(), given.weight.scalar_type(), at::Tensor(),
                                       given.scale);
}

at::Tensor checked_absmean(std::string_view operation, const at::Tensor& activation_absmean, const at::Tensor& weight,
                           bool check_finite) {
  at::Tensor absmean = arguments::checked_features(operation, "activation_absmean", activation_absmean, weight);
  if (check_finite) {
    arguments::check_not_negative(operation, "activation_absmean", absmean);
  }
  return absmean;
}

at::Tensor checked_gram(std::string_view operation, const at::Tensor& gram, bool check_finite) {
  if (check_finite) {
    arguments::check_gram_values(operation, gram.detach());
  }
  return gram.detach().to(at::kFloat);
}

// The weight and the Gram matrix of its inputs, by their shapes; no scale yet.
Scaled unscaled(std::string_view operation, const at::Tensor& weight, const at::Tensor& gram,
                const AwqOptions& options) {
  arguments::check_matrix(operation, "weight", weight);
  arguments::check_gram(operation, gram, "weight", weight);
  return {.weight = weight, .scale = {}, .gram = gram, .levels = checked(operation, options, weight.size(1))};
}

constexpr std::string_view kAwq = "hemostat.quantize.awq", kAwqScaled = "hemostat.quantize.awq_scaled";

Scaled checked_scaled(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& gram,
                      const AwqOptions& options) {
  Scaled given = unscaled(kAwqScaled, weight, gram, options);
  given.scale = arguments::checked_features(kAwqScaled, "scale", scale, weight);
  if (options.check_finite) {
    const at::Tensor valid = at::logical_and(at::isfinite(given.scale), given.scale.gt(0));
    arguments::check_invalid(kAwqScaled, "scale", valid.logical_not().sum(), "NaN, infinite or not positive");
    arguments::check_finite(kAwqScaled, "weight", weight);
  }
  given.gram = checked_gram(kAwqScaled, gram, options.check_finite && options.search_clip);
  return given;
}

Scaled with_searched_scale(const at::Tensor& weight, const at::Tensor& activation_absmean, const at::Tensor& gram,
                           const AwqOptions& options) {
  Scaled given = unscaled(kAwq, weight, gram, options);
  const at::Tensor absmean = checked_absmean(kAwq, activation_absmean, weight, options.check_finite);
  if (options.check_finite) {
    arguments::check_finite(kAwq, "weight", weight);
  }
  given.gram = checked_gram(kAwq, gram, options.check_finite);
  given.scale = weight.numel() == 0
                    ? at::ones_like(absmean)
                    : searched_scale({weight.detach().to(at::kFloat)}, absmean, given.gram, given.levels);
  return given;
}

}  // namespace

at::Tensor awq_scale(at::TensorList weights, const at::Tensor& activation_absmean, const at::Tensor& gram,
                     const AwqOptions& options) {
  constexpr std::string_view kOperation = "hemostat.quantize.awq_scale";
  if (weights.empty()) {
    throw ValueError(fmt::format("{}: weights is empty, but must hold at least one", kOperation));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const std::string name = fmt::format("weights[{}]", i);
    arguments::check_matrix(kOperation, name, weights[i]);
    arguments::check_gram(kOperation, gram, name, weights[i]);
  }
  const Levels levels = checked(kOperation, options, gram.size(0));
  const at::Tensor absmean = checked_absmean(kOperation, activation_absmean, weights.front(), options.check_finite);
  const at::Tensor whole = checked_gram(kOperation, gram, options.check_finite);
  std::vector<at::Tensor> values;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (options.check_finite) {
      arguments::check_finite(kOperation, fmt::format("weights[{}]", i), weights[i]);
    }
    if (weights[i].numel() > 0) {
      values.push_back(weights[i].detach().to(at::kFloat));
    }
  }
  return searched_scale(values, absmean, whole, levels);
}

at::Tensor awq_scaled(const at::Tensor& weight, const at::Tensor& scale, const at::Tensor& gram,
                      const AwqOptions& options) {
  return rounded(kAwqScaled, checked_scaled(weight, scale, gram, options), options);
}

std::shared_ptr<GroupPacked> awq_scaled_packed(const at::Tensor& weight, const at::Tensor& scale,
                                               const at::Tensor& gram, const AwqOptions& options) {
  return packed(kAwqScaled, checked_scaled(weight, scale, gram, options), options);
}

at::Tensor awq(const at::Tensor& weight, const at::Tensor& activation_absmean, const at::Tensor& gram,
               const AwqOptions& options) {
  return rounded(kAwq, with_searched_scale(weight, activation_absmean, gram, options), options);
}

std::shared_ptr<GroupPacked> awq_packed(const at::Tensor& weight, const at::Tensor& activation_absmean,
                                        const at::Tensor& gram, const AwqOptions& options) {
  return packed(kAwq, with_searched_scale(weight, activation_absmean, gram, options), options);
}

}  // namespace hemostat::quantize
