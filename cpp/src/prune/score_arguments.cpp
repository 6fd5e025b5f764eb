#include "score_arguments.h"

#include <cmath>

#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "arguments.h"

namespace hemostat::prune {

at::Tensor checked_norm(std::string_view operation, const at::Tensor& weight, const at::Tensor& activation_norm,
                        bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  arguments::check_floating(operation, "activation_norm", activation_norm);
  if (activation_norm.dim() != 1) {
    throw ValueError(fmt::format("{}: activation_norm has shape {}, but must be [in_features]", operation,
                                 arguments::shape(activation_norm.sizes())));
  }
  if (activation_norm.size(0) != weight.size(1)) {
    throw ValueError(fmt::format("{}: activation_norm has {} entries, but weight has {} input features", operation,
                                 activation_norm.size(0), weight.size(1)));
  }
  arguments::check_device(operation, "activation_norm", activation_norm, "weight", weight);
  at::Tensor norm = activation_norm.detach().to(at::kFloat).contiguous();
  if (check_finite) {
    const at::Tensor valid = at::logical_and(at::isfinite(norm), norm.ge(0));
    arguments::check_invalid(operation, "activation_norm", valid.logical_not().sum(), "NaN, infinite or negative");
  }
  return norm;
}

void check_alpha(std::string_view operation, double alpha) {
  if (!(alpha >= 0.0 && std::isfinite(alpha))) {
    throw ValueError(fmt::format("{}: alpha is {}, but must be finite and not negative", operation, alpha));
  }
}

}  // namespace hemostat::prune
