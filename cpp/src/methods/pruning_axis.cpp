#include "pruning_axis.h"

#include <fmt/format.h>

#include <hemostat/error.h>

#include "axes.h"

namespace hemostat {

OptionSpec pattern_length() {
  return {"m", int64_t{0}, "n:m pruning on an axis of n kept of every m; 0: unstructured", {}};
}

OptionSpec pruning_scope(const std::string& standard) {
  const std::string other = standard == "tensor" ? "row" : "tensor";
  return {"scope", standard, "what the fraction counts over", {standard, other}};
}

prune::Scope scope_of(const Options& options) {
  return option<std::string>(options, "scope") == "row" ? prune::Scope::row : prune::Scope::tensor;
}

Axis pruning_axis(const Model&, const Options& options) {
  const int64_t m = option<int64_t>(options, "m");
  if (m != 0 && (m < 2 || m > 1024)) {
    throw ValueError(fmt::format("hemostat.prepare: option m must be 0 or in 2 … 1024, got {}", m));
  }
  return m == 0 ? axes::sparsity() : axes::kept_of(m);
}

void check_pattern(const std::string& method, const Model& model, const Options& options) {
  check_divides(method, model, filter_of(options), "m", option<int64_t>(options, "m"));
}

FitCheck pattern_check(const std::string& method) {
  return [method](const Model& model, const Options& options) { check_pattern(method, model, options); };
}

}  // namespace hemostat
