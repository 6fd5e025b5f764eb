#include "score_arguments.h"

#include "common/arguments.h"

namespace hemostat::prune {

at::Tensor checked_norm(std::string_view operation, const at::Tensor& weight, const at::Tensor& activation_norm,
                        bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  at::Tensor norm = arguments::checked_features(operation, "activation_norm", activation_norm, weight);
  if (check_finite) {
    arguments::check_not_negative(operation, "activation_norm", norm);
  }
  return norm;
}

at::Tensor checked_score(std::string_view operation, std::string_view name, at::Tensor score) {
  arguments::check_result(operation, name, score);
  return score;
}

}  // namespace hemostat::prune
