#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/linalg_svd.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/lowrank.h>

#include "common/arguments.h"
#include "truncation.h"

namespace hemostat::lowrank {

namespace {

Decomposition checked_decomposition(std::string_view operation, const at::Tensor& weight, bool check_finite) {
  arguments::check_matrix(operation, "weight", weight);
  const at::Tensor matrix = weight.detach().to(at::kFloat);
  if (check_finite) {
    arguments::check_finite(operation, "weight", matrix);
  }
  const int64_t rank = checked_rank(operation, 0.0, weight.size(0), weight.size(1));
  if (rank == 0) {
    return of_nothing(weight);
  }
  try {
    const double unit = arguments::unit_factor(matrix);  // the sums of squares of large entries are infinite
    const auto [u, s, vh] = at::linalg_svd(matrix.mul(unit), /*full_matrices=*/false);
    const at::Tensor us = u.narrow(1, 0, rank).mul(s.narrow(0, 0, rank)).div_(unit);
    arguments::check_result(operation, "weight", us);
    return {.us = us, .vh = vh.narrow(0, 0, rank).clone(at::MemoryFormat::Contiguous), .dtype = weight.scalar_type()};
  } catch (const c10::LinAlgError& error) {
    throw NumericalError(fmt::format("{}: {}", operation, error.what_without_backtrace()));
  }
}

}  // namespace

Decomposition decompose(const at::Tensor& weight, bool check_finite) {
  return checked_decomposition("hemostat.lowrank.decompose", weight, check_finite);
}

Factors svd(const at::Tensor& weight, const SvdOptions& options) {
  constexpr std::string_view kOperation = "hemostat.lowrank.svd";
  arguments::check_matrix(kOperation, "weight", weight);
  const int64_t rank = checked_rank(kOperation, options.removed, weight.size(0), weight.size(1));
  return leading(kOperation, checked_decomposition(kOperation, weight, options.check_finite), rank);
}

}  // namespace hemostat::lowrank
