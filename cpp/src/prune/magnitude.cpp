#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>

#include <hemostat/prune.h>

#include "common/arguments.h"
#include "selection.h"

namespace hemostat::prune {

at::Tensor score_magnitude(const at::Tensor& weight) {
  constexpr std::string_view kOperation = "hemostat.prune.score_magnitude";
  arguments::check_matrix(kOperation, "weight", weight);
  arguments::check_finite(kOperation, "weight", weight.detach());
  return weight.detach().to(at::kFloat).abs().contiguous();
}

at::Tensor magnitude(const at::Tensor& weight, const MagnitudeOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.magnitude";
  arguments::check_matrix(kOperation, "weight", weight);
  return select(kOperation, {.score = weight, .absolute = true, .name = "weight"}, options.sparsity, options.pattern,
                options.scope, options.out, options.check_finite);
}

}  // namespace hemostat::prune
