#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cdist.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <hemostat/prune.h>

#include "common/arguments.h"
#include "linear_assignment.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

// order [groups, m]; values [columns, rows] → [groups, m, rows]
at::Tensor arranged(const at::Tensor& values, const at::Tensor& order) {
  return values.index_select(0, order.flatten()).view({order.size(0), order.size(1), values.size(1)});
}

double kept_sum(const at::Tensor& values, const at::Tensor& order, int64_t n) {
  return std::get<0>(at::topk(arranged(values, order), n, 1)).sum(at::kDouble).item<double>();
}

// Columns in the order of their sums go to the groups in turn, and back again in the next round: [groups, m].
at::Tensor dealt_out(const at::Tensor& values, int64_t m) {
  const at::Tensor sorted = std::get<1>(at::sort(values.sum(1), /*stable=*/true, 0, /*descending=*/false));
  const at::Tensor rounds = sorted.view({m, -1});
  at::Tensor order = at::empty_like(rounds);
  for (int64_t round = 0; round < m; ++round) {
    const at::Tensor columns = rounds.select(0, round);
    order.select(0, round).copy_(round % 2 == 0 ? columns : columns.flip(0));
  }
  return order.t().contiguous();
}

// Exchanges the columns at one place of their groups. Of a row, a group keeps the n − 1 largest of its other columns
// and the larger of the next of them, `next`, and the newcomer: (next + newcomer + |next − newcomer|) / 2. Only the
// last term depends on who meets whom, so the best exchange is the one that maximizes the sum of these distances.
void exchange(const at::Tensor& values, at::Tensor& order, int64_t place, int64_t n) {
  const int64_t groups = order.size(0), m = order.size(1);
  const at::Tensor columns = arranged(values, order);
  const at::Tensor others = at::cat({columns.narrow(1, 0, place), columns.narrow(1, place + 1, m - place - 1)}, 1);
  const at::Tensor next = std::get<0>(at::topk(others, n, 1)).select(1, n - 1).contiguous();
  const at::Tensor distances = at::cdist(next, columns.select(1, place).contiguous(), 1.0).cpu().contiguous();
  const std::vector<int64_t> chosen = largest_assignment(distances.const_data_ptr<float>(), groups);
  at::Tensor taken = order.select(1, place);
  taken.copy_(taken.index_select(0, at::tensor(chosen, at::kLong).to(order.device())));
}

}  // namespace

at::Tensor channel_permutation(const at::Tensor& score, const std::string& pattern) {
  constexpr std::string_view kOperation = "hemostat.prune.channel_permutation";
  arguments::check_matrix(kOperation, "score", score);
  const auto [n, m] = pattern_for(kOperation, pattern, score.sizes(), "score");
  arguments::check_finite(kOperation, "score", score);
  const at::Tensor own = at::arange(score.size(1), score.options().dtype(at::kLong).requires_grad(false));
  if (score.numel() == 0 || n == 0 || n == m) {
    return own;
  }
  const at::Tensor transposed = score.detach().to(at::kFloat).t().contiguous();
  const double largest = transposed.abs().max().item<double>();
  const at::Tensor values = largest > 0 ? transposed / largest : transposed;  // whose distances are finite too
  at::Tensor order = dealt_out(values, m);
  for (int64_t place = 0; place < m; ++place) {
    exchange(values, order, place, n);
  }
  return kept_sum(values, order, n) > kept_sum(values, own.view({-1, m}), n) ? order.flatten() : own;
}

}  // namespace hemostat::prune
