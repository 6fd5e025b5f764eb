#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/mul.h>

#include <hemostat/prune.h>

#include "arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

// Checks both arguments; → activation_norm as the kernels take it.
at::Tensor checked_norm(std::string_view operation, const at::Tensor& weight, const at::Tensor& activation_norm,
                        bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  at::Tensor norm = arguments::checked_features(operation, "activation_norm", activation_norm, weight);
  if (check_finite) {
    const at::Tensor valid = at::logical_and(at::isfinite(norm), norm.ge(0));
    arguments::check_invalid(operation, "activation_norm", valid.logical_not().sum(), "NaN, infinite or negative");
  }
  return norm;
}

}  // namespace

at::Tensor score_wanda(const at::Tensor& weight, const at::Tensor& activation_norm) {
  const at::Tensor norm = checked_norm("hemostat.prune.score_wanda", weight, activation_norm, true);
  return weight.detach().to(at::kFloat).abs().mul(norm).contiguous();
}

at::Tensor wanda(const at::Tensor& weight, const at::Tensor& activation_norm, const WandaOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.wanda";
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  return select(kOperation, {.score = weight, .column_scale = norm, .absolute = true, .name = "weight"},
                options.sparsity, options.pattern, Scope::row, options.out, options.check_finite);
}

}  // namespace hemostat::prune
