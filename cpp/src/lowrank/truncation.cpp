#include "truncation.h"

#include <algorithm>
#include <utility>

#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "common/arguments.h"
#include "common/integer_part.h"

namespace hemostat::lowrank {

int64_t checked_rank(std::string_view operation, double removed, int64_t out_features, int64_t in_features) {
  check_range(operation, "removed", removed, between(0, 1));
  check_range(operation, "out_features", out_features, at_least(0));
  check_range(operation, "in_features", in_features, at_least(0));
  const auto rows = static_cast<double>(out_features);
  const auto columns = static_cast<double>(in_features);
  if (removed == 1.0 || out_features == 0 || in_features == 0) {
    return 0;
  }
  return std::max<int64_t>(1, integer_part(1.0 - removed, rows * columns / (rows + columns)));
}

Factors leading(std::string_view operation, const Decomposition& decomposition, int64_t rank) {
  // Copies, even where every column is kept: a factor must not share memory with what other severities come from.
  const auto factor = [&](const at::Tensor& part) {
    return part.to(decomposition.dtype, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
  };
  Factors factors{.a = factor(decomposition.us.narrow(1, 0, rank)), .b = factor(decomposition.vh.narrow(0, 0, rank))};
  arguments::check_result(operation, "weight", factors.a);
  arguments::check_result(operation, "weight", factors.b);
  return factors;
}

Decomposition of_nothing(const at::Tensor& weight) {
  const auto options = weight.options().dtype(at::kFloat).requires_grad(false);
  return {.us = at::zeros({weight.size(0), 0}, options),
          .vh = at::zeros({0, weight.size(1)}, options),
          .dtype = weight.scalar_type()};
}

at::Tensor Factors::weight() const { return at::matmul(a.to(at::kFloat), b.to(at::kFloat)).to(a.scalar_type()); }

int64_t rank_for(double removed, int64_t out_features, int64_t in_features) {
  return checked_rank("hemostat.lowrank.rank_for", removed, out_features, in_features);
}

Factors Decomposition::at(double removed) const {
  constexpr std::string_view kOperation = "hemostat.lowrank.Decomposition.at";
  return leading(kOperation, *this, checked_rank(kOperation, removed, us.size(0), vh.size(1)));
}

}  // namespace hemostat::lowrank
