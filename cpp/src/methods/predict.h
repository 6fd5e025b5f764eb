// What predict, localize_predicted and the treatments share.
#pragma once

#include <map>
#include <string>

#include <hemostat/methods.h>

namespace hemostat {

// Nats per token of one linear's change, and of isotropic noise of the same norm.
struct PredictedChange {
  double delta_nll = 0, noise_delta_nll = 0;
};

// ½ Σ_r f_r ΔW_r G ΔW_rᵀ.
//   change      float32 [rows, in_features]
//   gram        float32 [in_features, in_features]
//   row_fisher  float64 [rows]
double quadratic_damage(const at::Tensor& change, const at::Tensor& gram, const at::Tensor& row_fisher);

// Of each linear that `changed` has changed, by name; errors as predicted_damage has them, in the operation's name.
std::map<std::string, PredictedChange> predicted_changes(const Model& model, const Model& changed,
                                                         const Statistics& statistics, const char* operation);

// ValueError for methods that change other things than weights.
void check_predictable(const Method& method, const char* operation);

// ValueError for statistics to predict by that lack something throughout.
void check_judge(const Statistics& statistics, const char* operation);

}  // namespace hemostat
