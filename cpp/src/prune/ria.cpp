#include <algorithm>
#include <limits>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>

#include <hemostat/prune.h>

#include "arguments.h"
#include "score_arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

// Entries of the rows that are worked on together: they stay in cache between passes. Always the same number, so that
// sums of columns are too.
constexpr int64_t kPart = int64_t{1} << 18;

template <typename Function>
void for_each_part(const at::Tensor& weight, const Function& function) {
  const int64_t rows = weight.size(0), step = std::max<int64_t>(1, kPart / std::max<int64_t>(1, weight.size(1)));
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t count = std::min(step, rows - first);
    function(weight.narrow(0, first, count).to(at::kFloat).abs(), first, count);
  }
}

at::Tensor score(std::string_view operation, const at::Tensor& given, const at::Tensor& norm, double alpha,
                 bool check_finite) {
  const at::Tensor weight = given.detach();
  const auto floats = weight.options().dtype(at::kFloat);
  at::Tensor of_row = at::empty({weight.size(0), 1}, floats), of_column = at::zeros({weight.size(1)}, floats);
  for_each_part(weight, [&](const at::Tensor& magnitude, int64_t first, int64_t count) {
    of_row.narrow(0, first, count).copy_(magnitude.sum(1, /*keepdim=*/true));
    of_column.add_(magnitude.sum(0));
  });
  // Sums overflow where weights are finite too, which only takes weight from their importance.
  if (check_finite && !at::isfinite(of_row).all().item<bool>()) {
    arguments::check_finite(operation, "weight", weight);
  }
  of_row.masked_fill_(of_row.eq(0), 1);  // 0 / 1, where 0 / 0 would be no score
  of_column.masked_fill_(of_column.eq(0), 1);
  const at::Tensor of_activation = norm.pow(alpha).clamp_max(std::numeric_limits<float>::max());

  at::Tensor result = at::empty(weight.sizes(), floats);
  for_each_part(weight, [&](const at::Tensor& magnitude, int64_t first, int64_t count) {
    at::Tensor part = result.narrow(0, first, count);
    at::div_out(part, magnitude, of_row.narrow(0, first, count));
    part.addcdiv_(magnitude, of_column).mul_(of_activation);
  });
  return result;
}

}  // namespace

at::Tensor score_ria(const at::Tensor& weight, const at::Tensor& activation_norm, double alpha) {
  constexpr std::string_view kOperation = "hemostat.prune.score_ria";
  check_alpha(kOperation, alpha);
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, true);
  return score(kOperation, weight, norm, alpha, true);
}

at::Tensor ria(const at::Tensor& weight, const at::Tensor& activation_norm, const RiaOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.ria";
  check_alpha(kOperation, options.alpha);
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  return select(kOperation,
                {.score = score(kOperation, weight, norm, options.alpha, options.check_finite), .name = "weight"},
                options.sparsity, options.pattern, options.scope, options.out, options.check_finite);
}

}  // namespace hemostat::prune
