// The axis of methods that remove single weights: a fraction of them or, with the option `m`, all but n of every m.
#pragma once

#include <cstdint>
#include <vector>

#include <fmt/format.h>

#include <hemostat/methods.h>
#include <hemostat/prune.h>

#include "declared.h"

namespace hemostat {

std::vector<OptionSpec> pattern_length();  // `m`

Axis pruning_axis(const Model& model, const Options& options);

// An operator's options at a severity of that axis. Each severity selects anew: a mask costs little more than reading
// the weight, less than keeping an order would.
template <typename PruneOptions>
PruneOptions pruned_at(const Options& options, double severity) {
  const int64_t m = option<int64_t>(options, "m");
  auto result = options_as<PruneOptions>(options);
  if (m == 0) {
    result.sparsity = severity;
  } else {
    result.pattern = fmt::format("{}:{}", static_cast<int64_t>(severity), m);
  }
  return result;
}

}  // namespace hemostat
