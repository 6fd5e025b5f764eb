#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/mul.h>

#include <hemostat/prune.h>

#include "common/arguments.h"
#include "score_arguments.h"
#include "selection.h"

namespace hemostat::prune {

at::Tensor score_wanda(const at::Tensor& weight, const at::Tensor& activation_norm) {
  constexpr std::string_view kOperation = "hemostat.prune.score_wanda";
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, true);
  arguments::check_finite(kOperation, "weight", weight.detach());
  return checked_score(kOperation, "weight times activation_norm",
                       weight.detach().to(at::kFloat).abs().mul(norm).contiguous());
}

at::Tensor wanda(const at::Tensor& weight, const at::Tensor& activation_norm, const WandaOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.wanda";
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  return select(kOperation, {.score = weight, .column_scale = norm, .absolute = true, .name = "weight"},
                options.sparsity, options.pattern, Scope::row, options.out, options.check_finite);
}

}  // namespace hemostat::prune
