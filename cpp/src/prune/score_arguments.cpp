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
  at::Tensor norm = arguments::checked_features(operation, "activation_norm", activation_norm, weight);
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
