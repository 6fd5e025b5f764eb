#include <algorithm>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>
#include <hemostat/solve.h>

#include "common/arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

constexpr std::string_view kOperation = "hemostat.prune.sparsegpt";

solve::Pruning pruning_of(const SparseGptOptions& options) {
  check_choice(kOperation, options.sparsity, options.pattern);
  if (options.sparsity) {
    return {.sparsity = *options.sparsity};
  }
  const auto [n, m] = checked_pattern(kOperation, *options.pattern);
  return {.n = n, .m = m};
}

}  // namespace

int64_t pattern_block_size(int64_t block_size, int64_t m) { return std::max<int64_t>(1, block_size / m) * m; }

Pruned sparsegpt(const at::Tensor& weight, const solve::GramFactor& factor, const SparseGptOptions& options) {
  const auto solution = solve::columns(
      weight, factor,
      {.pruning = pruning_of(options), .rounding = options.rounding, .check_finite = options.check_finite}, kOperation);
  return {.weight = solution.weight.to(weight.scalar_type()), .mask = solution.mask};
}

Pruned sparsegpt(const at::Tensor& weight, const at::Tensor& gram, const SparseGptOptions& options) {
  const auto pruning = pruning_of(options);
  const solve::SolveOptions solve{
      .pruning = pruning, .rounding = options.rounding, .check_finite = options.check_finite};
  const solve::GramFactorOptions factor{
      .damp = options.damp,
      .block_size = pruning.m > 0 ? pattern_block_size(options.block_size, pruning.m) : options.block_size,
      .check_finite = options.check_finite};
  const auto solution = solve::columns(weight, gram, factor, solve, kOperation);
  return {.weight = solution.weight.to(weight.scalar_type()), .mask = solution.mask};
}

}  // namespace hemostat::prune
