#include <algorithm>
#include <cmath>
#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/lowrank.h>

#include "arguments.h"
#include "integer_part.h"

namespace hemostat::lowrank {

namespace {

constexpr std::string_view kOperation = "hemostat.lowrank.svd";

}  // namespace

at::Tensor Factors::weight() const {
  return at::matmul(a.to(at::kFloat), b.to(at::kFloat)).to(a.scalar_type());
}

int64_t rank_for(double removed, int64_t out_features, int64_t in_features) {
  if (!(removed >= 0.0 && removed <= 1.0)) {  // also NaN
    throw ValueError(fmt::format("{}: removed is {}, but must be from 0 to 1", kOperation, removed));
  }
  const auto rows = static_cast<double>(out_features);
  const auto columns = static_cast<double>(in_features);
  if (removed == 1.0 || out_features == 0 || in_features == 0) {
    return 0;
  }
  return std::max<int64_t>(1, integer_part((1.0 - removed) * rows * columns / (rows + columns)));
}

Factors Decomposition::at(double removed) const {
  const int64_t rank = rank_for(removed, us.size(0), vh.size(1));
  // Copies, even where every column is kept: a factor must not share memory with what other severities come from.
  return {.a = us.narrow(1, 0, rank).to(dtype, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous),
          .b = vh.narrow(0, 0, rank).to(dtype, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous)};
}

Decomposition decompose(const at::Tensor& weight, bool check_finite) {
  arguments::check_matrix(kOperation, "weight", weight);
  const at::Tensor matrix = weight.detach().to(at::kFloat);
  if (check_finite) {
    arguments::check_finite(kOperation, "weight", matrix);
  }
  const int64_t rank = rank_for(0.0, weight.size(0), weight.size(1));
  if (rank == 0) {
    return {.us = at::zeros({weight.size(0), 0}, matrix.options()),
            .vh = at::zeros({0, weight.size(1)}, matrix.options()),
            .dtype = weight.scalar_type()};
  }
  try {
    const auto [u, s, vh] = at::linalg_svd(matrix, /*full_matrices=*/false);
    return {.us = u.narrow(1, 0, rank).mul(s.narrow(0, 0, rank)),
            .vh = vh.narrow(0, 0, rank).clone(at::MemoryFormat::Contiguous),
            .dtype = weight.scalar_type()};
  } catch (const c10::LinAlgError& error) {
    throw NumericalError(fmt::format("{}: {}", kOperation, error.what_without_backtrace()));
  }
}

Factors svd(const at::Tensor& weight, const SvdOptions& options) {
  arguments::check_matrix(kOperation, "weight", weight);
  rank_for(options.removed, weight.size(0), weight.size(1));  // a bad severity is seen before the work
  return decompose(weight, options.check_finite).at(options.removed);
}

}  // namespace hemostat::lowrank
