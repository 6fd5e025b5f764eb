#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/prune.h>

#include "common/arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

constexpr double kLeastNorm = 1e-8;  // of the largest
constexpr double kRelaxation = 1.7;
constexpr double kLeastRowWeight = 1e-4;  // of the mean

AdmmFactor factor_of(std::string_view operation, const at::Tensor& gram, double damp, bool check_finite) {
  const at::Tensor whole = gram.detach().to(at::kFloat);
  if (whole.numel() == 0) {
    return {.norm = at::empty({0}, whole.options()), .inverse = at::empty({0, 0}, whole.options())};
  }
  if (check_finite) {
    arguments::check_gram_values(operation, gram);
  }
  at::Tensor length = whole.diagonal().sqrt();
  at::Tensor largest = length.amax();
  largest = at::where(largest > 0, largest, at::ones_like(largest));
  length = at::maximum(length, largest * kLeastNorm);

  at::Tensor system = whole.div(length).div_(length.unsqueeze(1));
  at::Tensor diagonal = system.diagonal();
  diagonal.add_(diagonal.mean().mul_(damp).add_(1));
  const auto [factor, info] = at::linalg_cholesky_ex(system);
  if (info.item<int64_t>() != 0) {
    throw NumericalError(fmt::format("{}: gram with damp = {} is not positive definite", operation, damp));
  }
  return {.norm = length.div(largest), .inverse = at::cholesky_inverse(factor)};
}

// At `share` of the severity, 0 … 1.
void choose(const at::Tensor& value, const Severity& severity, Scope scope, double share, at::Tensor& mask) {
  const auto part = [share](int64_t count) { return static_cast<int64_t>(share * static_cast<double>(count)); };
  const auto& [n, m] = severity.groups;
  if (m == 0) {
    kernels::mask_smallest(value, std::nullopt, part(severity.removed), scope, /*absolute=*/true, mask);
    return;
  }
  kernels::mask_pattern(value, std::nullopt, n, m, /*absolute=*/true, mask);
  if (share < 1) {
    const at::Tensor magnitude = value.abs().masked_fill_(mask, std::numeric_limits<float>::infinity());
    kernels::mask_smallest(magnitude, std::nullopt, part(value.numel() / m * (m - n)), Scope::tensor,
                           /*absolute=*/false, mask);
  }
}

// float32 [out_features, 1]: √(f / mean f), at least 1e-2.
at::Tensor row_scale(const at::Tensor& row_weight) {
  const at::Tensor wide = row_weight.to(at::kDouble), mean = wide.mean();
  const at::Tensor share = at::where(mean > 0, wide / mean, at::ones_like(wide));
  return share.clamp_min_(kLeastRowWeight).sqrt_().to(at::kFloat).unsqueeze(1);
}

void check_row_weight(std::string_view operation, const at::Tensor& weight, const AdmmOptions& options) {
  if (!options.row_weight) {
    return;
  }
  const at::Tensor& given = *options.row_weight;
  if (given.dim() != 1 || given.size(0) != weight.size(0)) {
    throw ValueError(fmt::format("{}: row_weight has {} entries, but weight has {} output features", operation,
                                 given.numel(), weight.size(0)));
  }
  if (!at::isFloatingType(given.scalar_type())) {
    throw TypeError(
        fmt::format("{}: row_weight is {}, but takes a floating dtype", operation, c10::toString(given.scalar_type())));
  }
  arguments::check_device(operation, "row_weight", given, "weight", weight);
  if (options.check_finite && given.numel() > 0 &&
      !(given.min().item<double>() >= 0 && std::isfinite(given.max().item<double>()))) {
    throw ValueError(fmt::format("{}: row_weight has NaN, infinite or negative entries", operation));
  }
}

Pruned adjusted(const at::Tensor& weight, const AdmmFactor& factor, const Severity& severity,
                const AdmmOptions& options) {
  at::Tensor mask = at::empty(weight.sizes(), weight.options().dtype(at::kBool));
  const auto& [n, m] = severity.groups;
  if (weight.numel() == 0 || (m == 0 ? severity.removed == 0 : n == m)) {
    return {.weight = weight.detach().clone(at::MemoryFormat::Contiguous), .mask = mask.fill_(true)};
  }
  const double unit = arguments::unit_factor(weight);
  at::Tensor target = weight.detach().to(at::kFloat).mul(unit).mul_(factor.norm).contiguous();
  const at::Tensor rows = options.row_weight ? row_scale(*options.row_weight) : at::Tensor();
  if (rows.defined()) {
    target.mul_(rows);
  }
  const int64_t choosing = options.iterations * 3 / 4, falling = std::max<int64_t>(1, options.iterations / 4);
  if (choosing == 0) {
    choose(target, severity, options.scope, 1, mask);
  }
  // With S = 2 · mask − 1, so that Z − U = S ∘ V, an iteration is V ← (1 − α/2)·V + α·(S ∘ V − Ŵ)·(P − I/2) + α/2·Ŵ.
  at::Tensor product = factor.inverse.clone();
  product.diagonal().sub_(0.5);
  at::Tensor value = target.clone(), step = at::empty_like(target), sign = at::empty_like(target);
  const at::Tensor below = target.neg();
  for (int64_t iteration = 0; iteration < options.iterations; ++iteration) {
    if (iteration < choosing) {
      const double left = std::max(0.0, 1.0 - static_cast<double>(iteration + 1) / static_cast<double>(falling));
      choose(value, severity, options.scope, 1.0 - left * left * left, mask);
    }
    if (iteration == 0 || iteration < choosing) {
      sign.copy_(mask).mul_(2).sub_(1);
    }
    at::addcmul_out(step, below, value, sign);
    value.addmm_(step, product, /*beta=*/1 - kRelaxation / 2, /*alpha=*/kRelaxation).add_(target, kRelaxation / 2);
  }
  value = value.div(factor.norm).div_(unit).masked_fill_(mask.logical_not(), 0);
  if (rows.defined()) {
    value.div_(rows);
  }
  value = value.to(weight.scalar_type());
  if (options.check_finite) {
    arguments::check_result("hemostat.prune.admm", "weight", value);
  }
  return {.weight = value, .mask = mask};
}

}  // namespace

AdmmFactor admm_factor(const at::Tensor& gram, double damp, bool check_finite) {
  constexpr std::string_view kOperation = "hemostat.prune.admm_factor";
  arguments::check_gram(kOperation, gram);
  check_range(kOperation, "damp", damp, at_least(0));
  return factor_of(kOperation, gram, damp, check_finite);
}

Pruned admm(const at::Tensor& weight, const at::Tensor& gram, const AdmmOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.admm";
  arguments::check_matrix(kOperation, "weight", weight);
  arguments::check_gram(kOperation, gram, "weight", weight);
  const Severity severity =
      checked_severity(kOperation, "weight", weight.sizes(), options.sparsity, options.pattern, options.scope);
  check_options(kOperation, options);
  check_row_weight(kOperation, weight, options);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "weight", weight);
  }
  return adjusted(weight, factor_of(kOperation, gram, options.damp, options.check_finite), severity, options);
}

Pruned admm(const at::Tensor& weight, const AdmmFactor& factor, const AdmmOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.admm";
  arguments::check_matrix(kOperation, "weight", weight);
  if (factor.norm.dim() != 1 || factor.norm.size(0) != weight.size(1)) {
    throw ValueError(fmt::format("{}: factor is of {} features, but weight has {} input features", kOperation,
                                 factor.norm.numel(), weight.size(1)));
  }
  arguments::check_device(kOperation, "factor", factor.inverse, "weight", weight);
  const Severity severity =
      checked_severity(kOperation, "weight", weight.sizes(), options.sparsity, options.pattern, options.scope);
  check_options(kOperation, options);
  check_row_weight(kOperation, weight, options);
  if (options.check_finite) {
    arguments::check_finite(kOperation, "weight", weight);
  }
  return adjusted(weight, factor, severity, options);
}

}  // namespace hemostat::prune
