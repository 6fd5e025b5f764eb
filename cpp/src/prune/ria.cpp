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

#include "common/arguments.h"
#include "score_arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

// Entries of the rows that are worked on together: they stay in cache between passes. Always the same number, so that
// sums of columns are too.
constexpr int64_t kPart = int64_t{1} << 18;

// Calls function(first, count) for rows that are worked on together.
template <typename Function>
void for_each_part(const at::Tensor& weight, const Function& function) {
  const int64_t rows = weight.size(0), step = std::max<int64_t>(1, kPart / std::max<int64_t>(1, weight.size(1)));
  for (int64_t first = 0; first < rows; first += step) {
    function(first, std::min(step, rows - first));
  }
}

at::Tensor magnitude_of(const at::Tensor& weight, int64_t first, int64_t count) {
  return weight.narrow(0, first, count).to(at::kFloat).abs().contiguous();  // one order of loops for every layout
}

// Importance relative to the sums of rows and columns, which are taken once.
class RelativeImportance {
 public:
  RelativeImportance(std::string_view operation, const at::Tensor& weight, const at::Tensor& norm, double alpha,
                     bool check_finite)
      : weight_(weight.detach()),
        of_row_(at::empty({weight.size(0), 1}, weight_.options().dtype(at::kFloat))),
        of_column_(at::zeros({weight.size(1)}, of_row_.options())),
        of_activation_(norm.pow(alpha).clamp_max(std::numeric_limits<float>::max())) {
    for_each_part(weight_, [&](int64_t first, int64_t count) {
      const at::Tensor magnitude = magnitude_of(weight_, first, count);
      of_row_.narrow(0, first, count).copy_(magnitude.sum(1, /*keepdim=*/true));
      of_column_.add_(magnitude.sum(0));
    });
    // Sums overflow where weights are finite too, which only takes weight from their importance.
    if (check_finite && !at::isfinite(of_row_).all().item<bool>()) {
      arguments::check_finite(operation, "weight", weight);
    }
    of_row_.masked_fill_(of_row_.eq(0), 1);  // 0 / 1, where 0 / 0 would be no score
    of_column_.masked_fill_(of_column_.eq(0), 1);
  }

  // The scores of these rows, written to `score`.
  at::Tensor rows(int64_t first, int64_t count, at::Tensor score) const {
    const at::Tensor magnitude = magnitude_of(weight_, first, count);
    at::div_out(score, magnitude, of_row_.narrow(0, first, count));
    return score.addcdiv_(magnitude, of_column_).mul_(of_activation_);
  }

  at::Tensor rows(int64_t first, int64_t count) const {
    return rows(first, count, at::empty({count, weight_.size(1)}, of_row_.options()));
  }

  at::Tensor all() const {
    at::Tensor score = at::empty(weight_.sizes(), of_row_.options());
    for_each_part(weight_, [&](int64_t first, int64_t count) { rows(first, count, score.narrow(0, first, count)); });
    return score;
  }

 private:
  at::Tensor weight_, of_row_, of_column_, of_activation_;
};

}  // namespace

at::Tensor score_ria(const at::Tensor& weight, const at::Tensor& activation_norm, double alpha) {
  constexpr std::string_view kOperation = "hemostat.prune.score_ria";
  check_range(kOperation, "alpha", alpha, at_least(0));
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, true);
  return checked_score(kOperation, "weight times activation_norm",
                       RelativeImportance(kOperation, weight, norm, alpha, true).all());
}

at::Tensor ria(const at::Tensor& weight, const at::Tensor& activation_norm, const RiaOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.ria";
  check_options(kOperation, options);
  const at::Tensor norm = checked_norm(kOperation, weight, activation_norm, options.check_finite);
  checked_choice(kOperation, weight, "weight", options.sparsity, options.pattern, options.scope, options.out);
  const RelativeImportance importance(kOperation, weight, norm, options.alpha, options.check_finite);
  // The sums have told whether all entries are finite, and then so are the scores.
  const auto choose = [&](const at::Tensor& score, const std::optional<at::Tensor>& out) {
    return select(kOperation, {.score = score, .name = "weight"}, options.sparsity, options.pattern, options.scope, out,
                  /*check_finite=*/false);
  };
  if (options.scope == Scope::tensor && !options.pattern) {
    return choose(importance.all(), options.out);
  }
  // Rows are chosen from while their scores are in cache.
  at::Tensor mask = options.out ? *options.out : at::empty(weight.sizes(), weight.options().dtype(at::kBool));
  for_each_part(weight, [&](int64_t first, int64_t count) {
    choose(importance.rows(first, count), mask.narrow(0, first, count));
  });
  return mask;
}

}  // namespace hemostat::prune
