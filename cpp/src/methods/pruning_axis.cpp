#include "pruning_axis.h"

#include <fmt/format.h>

#include <hemostat/error.h>

#include "axes.h"

namespace hemostat {

std::vector<OptionSpec> pattern_length() {
  return {{.name = "m",
           .default_value = int64_t{0},
           .description = "n:m pruning on an axis of n kept of every m; 0: unstructured",
           .choices = {},
           .divides = true}};
}

Axis pruning_axis(const Model&, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  if (m != 0 && (m < 2 || m > 1024)) {
    throw ValueError(fmt::format("hemostat.prepare: option m must be 0 or in 2 … 1024, got {}", m));
  }
  return m == 0 ? axes::sparsity() : axes::kept_of(m);
}

}  // namespace hemostat
