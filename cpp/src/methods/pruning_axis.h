// The axis of methods that remove single weights: a fraction of them or, with the option `m`, all but n of every m.
#pragma once

#include <cstdint>
#include <string>

#include <fmt/format.h>

#include <hemostat/methods.h>
#include <hemostat/prune.h>

#include "on_linears.h"

namespace hemostat {

OptionSpec pattern_length();  // `m`

OptionSpec pruning_scope(const std::string& standard);  // `scope`: "tensor" or "row"
prune::Scope scope_of(const Options& options);

Axis pruning_axis(const Model& model, const Options& options);

// ValueError naming the first chosen linear whose input features m does not divide.
void check_pattern(const std::string& method, const Model& model, const Options& options);

// The same, as a row of the catalogue holds it.
FitCheck pattern_check(const std::string& method);

// An operator's options at a severity of that axis. Each severity selects anew: a mask costs little more than reading
// the weight, less than keeping an order would.
template <typename PruneOptions>
PruneOptions pruned_at(const Options& options, double severity) {
  const int64_t m = option<int64_t>(options, "m");
  PruneOptions result;
  if (m == 0) {
    result.sparsity = severity;
  } else {
    result.pattern = fmt::format("{}:{}", static_cast<int64_t>(severity), m);
  }
  return result;
}

}  // namespace hemostat
