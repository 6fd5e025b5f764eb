#include <memory>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <hemostat/quantize.h>
#include <hemostat/solve.h>

#include "groups.h"
#include "straight_through.h"

namespace hemostat::quantize {

namespace {

constexpr std::string_view kOperation = "hemostat.quantize.gptq";

solve::SolveOptions solve_options(const GptqOptions& options) {
  check_within_rows(kOperation, options.group_size);
  return {.rounding = solve::Rounding{.bits = options.bits,
                                      .group_size = options.group_size,
                                      .symmetric = options.symmetric,
                                      .static_groups = options.static_groups},
          .check_finite = options.check_finite};
}

solve::GramFactorOptions factor_options(const GptqOptions& options) {
  return {.damp = options.damp,
          .act_order = options.act_order,
          .block_size = options.block_size,
          .check_finite = options.check_finite};
}

// The codes of values that lie on their grids.
std::shared_ptr<GroupPacked> packed(const at::Tensor& weight, const solve::Solution& solution,
                                    const GptqOptions& options) {
  const at::Tensor& order = solution.order;
  const int64_t group_size = options.group_size == kPerRow ? weight.size(1) : options.group_size.weights;
  // Whole rows have one group, whatever the order.
  const bool ordered = order.defined() && group_size < weight.size(1);
  at::Tensor codes = at::empty(weight.sizes(), weight.options().dtype(at::kByte));
  if (weight.numel() > 0) {
    const at::Tensor values = ordered ? solution.weight.index_select(1, order) : solution.weight;
    codes = values.view({solution.scale.numel(), -1})
                .div(solution.scale.view({-1, 1}))
                .add_(solution.zero.view({-1, 1}))
                .round_()
                .to(at::kByte)
                .view(weight.sizes());
    if (ordered) {
      codes = codes.index_select(1, order.argsort());
    }
  }
  return std::make_shared<GroupPacked>(codes, solution.scale, solution.zero, group_size, options.bits,
                                       options.symmetric, weight.scalar_type(), ordered ? order : at::Tensor());
}

}  // namespace

at::Tensor gptq(const at::Tensor& weight, const at::Tensor& gram, const GptqOptions& options) {
  const solve::Solution solution =
      solve::columns(weight, gram, factor_options(options), solve_options(options), kOperation);
  return straight_through(weight, solution.weight.to(weight.scalar_type()));
}

at::Tensor gptq(const at::Tensor& weight, const solve::GramFactor& factor, const GptqOptions& options) {
  const solve::Solution solution = solve::columns(weight, factor, solve_options(options), kOperation);
  return straight_through(weight, solution.weight.to(weight.scalar_type()));
}

std::shared_ptr<GroupPacked> gptq_packed(const at::Tensor& weight, const at::Tensor& gram, const GptqOptions& options) {
  return packed(weight, solve::columns(weight, gram, factor_options(options), solve_options(options), kOperation),
                options);
}

std::shared_ptr<GroupPacked> gptq_packed(const at::Tensor& weight, const solve::GramFactor& factor,
                                         const GptqOptions& options) {
  return packed(weight, solve::columns(weight, factor, solve_options(options), kOperation), options);
}

}  // namespace hemostat::quantize
