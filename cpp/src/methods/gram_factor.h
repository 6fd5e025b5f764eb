// Methods that hold a factor of each input's Gram matrix.
#pragma once

#include <hemostat/methods.h>
#include <hemostat/solve.h>

#include "on_linears.h"

namespace hemostat {

// The factor of the Gram matrix of the sites' input, in the budget: take it to the weight's device.
inline solve::GramFactor gram_factor(const SharedInput& sites, const solve::GramFactorOptions& options,
                                     MemoryBudget& budget) {
  const c10::Device device = sites.front().linear->dense().device();
  const solve::GramFactor factor(sites.front().input->gram().to(device), options);
  return factor.with_matrix(budget.hold(factor.matrix()));
}

template <typename Hold, typename Change>
OnLinears on_gram_factors(Hold hold, Change change) {
  OnLinears result = on_inputs(hold, change);
  result.holds = matrix_of_input;
  result.costs = products_with_input;
  return result;
}

}  // namespace hemostat
