#include "pruning_axis.h"

#include <fmt/format.h>

#include <hemostat/error.h>

#include "axes.h"

namespace hemostat {

OptionSpec pattern_length() {
  return {"m", int64_t{0}, "n:m pruning on an axis of n kept of every m; 0: unstructured", {}};
}

Axis pruning_axis(const Model&, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  if (m != 0 && (m < 2 || m > 1024)) {
    throw ValueError(fmt::format("hemostat.prepare: option m must be 0 or in 2 … 1024, got {}", m));
  }
  return m == 0 ? axes::sparsity() : axes::kept_of(m);
}

void check_pattern(const std::string& method, const Model& model, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  for (const NamedLinear& named : linears(model, filter_of(options))) {
    if (m > 0 && named.linear->in_features() % m != 0) {
      throw ValueError(fmt::format("hemostat.prepare({}): m = {} does not divide the {} input features of '{}'", method,
                                   m, named.linear->in_features(), named.name));
    }
  }
}

}  // namespace hemostat
