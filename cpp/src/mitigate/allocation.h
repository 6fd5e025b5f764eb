// How much of a mean severity each linear takes, so that the predicted damage of all is least.
#pragma once

#include <array>
#include <vector>

namespace hemostat::mitigate {

// Predicted damage of a linear against its sparsity: log e is a quadratic in logit s.
class DamageCurve {
 public:
  // Through three measured points; sparsities in (0, 1) ascending, damages not negative.
  DamageCurve(const std::array<double, 3>& sparsities, const std::array<double, 3>& damages);
  double at(double sparsity) const;

 private:
  std::array<double, 3> coefficients_;  // of 1, x, x²
};

// argmin Σ e_l(s_l) with Σ n_l s_l = sparsity · Σ n_l and |s_l − sparsity| ≤ width: by bisection on the price of a
// weight.
std::vector<double> allocate(const std::vector<DamageCurve>& curves, const std::vector<double>& weights,
                             double sparsity, double width);

}  // namespace hemostat::mitigate
