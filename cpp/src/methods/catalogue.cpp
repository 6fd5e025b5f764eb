#include "catalogue.h"

#include <iterator>

namespace hemostat {

std::vector<Method> catalogue() {
  std::vector<Method> all;
  for (auto room : {prune_methods, prune_solver_methods, prune_allocation_methods, quantize_methods,
                    block_float_methods, lowrank_methods, noise_methods, ablate_methods, structured_methods,
                    normalize_methods, extend_methods, context_methods, decode_methods, mitigation_methods}) {
    std::vector<Method> rows = room();
    std::move(rows.begin(), rows.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace hemostat
