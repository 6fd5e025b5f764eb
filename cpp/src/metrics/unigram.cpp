#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/metrics.h>

#include "common/arguments.h"

namespace hemostat::metrics {

double unigram_nll(const at::Tensor& counts, const at::Tensor& targets) {
  constexpr const char* kOperation = "hemostat.metrics.unigram_nll";
  arguments::check_dense(kOperation, "counts", counts);
  arguments::check_dense(kOperation, "targets", targets);
  if (!at::isIntegralType(counts.scalar_type(), false) || !at::isIntegralType(targets.scalar_type(), false)) {
    throw TypeError(fmt::format("{}: counts and targets are {} and {}, but take int64", kOperation,
                                arguments::dtype_name(counts.scalar_type()),
                                arguments::dtype_name(targets.scalar_type())));
  }
  if (counts.dim() != 1 || counts.numel() == 0 || counts.min().item<int64_t>() < 0) {
    throw ValueError(
        fmt::format("{}: counts takes one number, 0 or more, for each token of the vocabulary", kOperation));
  }
  if (targets.numel() == 0) {
    throw ValueError(fmt::format("{}: targets is empty", kOperation));
  }
  const at::Tensor ids = targets.to(counts.device(), at::kLong).reshape({-1});
  const int64_t lowest = ids.min().item<int64_t>();
  const int64_t highest = ids.max().item<int64_t>();
  if (lowest < 0 || highest >= counts.numel()) {
    throw ValueError(fmt::format("{}: targets has {}, but counts is of {} tokens", kOperation,
                                 lowest < 0 ? lowest : highest, counts.numel()));
  }
  const at::Tensor smoothed = counts.to(at::kDouble) + 1;
  return smoothed.sum().log().item<double>() - smoothed.log().index_select(0, ids).mean().item<double>();
}

}  // namespace hemostat::metrics
