#include <cmath>

#include <ATen/core/Tensor.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/logical_not.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/metrics.h>

#include "common/arguments.h"

namespace hemostat::metrics {

TokenDivergence divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                           const at::Tensor& targets, double damaged_scale) {
  constexpr const char* kOperation = "hemostat.metrics.divergence";
  arguments::check_floating(kOperation, "baseline_logits", baseline_logits);
  arguments::check_floating(kOperation, "damaged_logits", damaged_logits);
  arguments::check_dense(kOperation, "targets", targets);
  if (targets.scalar_type() != at::kLong) {
    throw TypeError(
        fmt::format("{}: targets is {}, but takes int64", kOperation, arguments::dtype_name(targets.scalar_type())));
  }
  if (baseline_logits.dim() < 1 || baseline_logits.sizes() != damaged_logits.sizes()) {
    throw ValueError(fmt::format("{}: damaged_logits is {}, but baseline_logits is {}", kOperation,
                                 arguments::shape(damaged_logits.sizes()), arguments::shape(baseline_logits.sizes())));
  }
  const auto tokens_shape = baseline_logits.sizes().slice(0, baseline_logits.dim() - 1);
  if (targets.sizes() != tokens_shape) {
    throw ValueError(fmt::format("{}: targets is {}, but the logits {} are of tokens {}", kOperation,
                                 arguments::shape(targets.sizes()), arguments::shape(baseline_logits.sizes()),
                                 arguments::shape(tokens_shape)));
  }
  arguments::check_device(kOperation, "damaged_logits", damaged_logits, "baseline_logits", baseline_logits);
  arguments::check_device(kOperation, "targets", targets, "baseline_logits", baseline_logits);

  const int64_t vocab = baseline_logits.size(-1);
  if (vocab < 1) {
    throw ValueError(fmt::format("{}: baseline_logits is {}, but takes a vocabulary of at least 1", kOperation,
                                 arguments::shape(baseline_logits.sizes())));
  }
  const at::Tensor outside = targets.lt(0).logical_or_(targets.ge(vocab));
  if (outside.any().item<bool>()) {
    throw ValueError(fmt::format("{}: targets has {}, but the vocabulary has {} tokens", kOperation,
                                 targets.masked_select(outside)[0].item<int64_t>(), vocab));
  }
  if (!(damaged_scale > 0) || !std::isfinite(damaged_scale)) {
    throw ValueError(
        fmt::format("{}: damaged_scale is {}, but takes a positive finite number", kOperation, damaged_scale));
  }
  const bool one_dtype = baseline_logits.scalar_type() == damaged_logits.scalar_type();
  const auto rows = [&](const at::Tensor& logits) {
    const at::Tensor flat = logits.detach().reshape({targets.numel(), vocab});
    return one_dtype ? flat : flat.to(at::kFloat);
  };
  const kernels::Divergence d = kernels::divergence(rows(baseline_logits), rows(damaged_logits),
                                                    targets.reshape({targets.numel()}), damaged_scale);

  const auto shaped = [&](const at::Tensor& values) { return values.view(targets.sizes()); };
  TokenDivergence result{
      .nll_baseline = shaped(d.nll_baseline),
      .nll_damaged = shaped(d.nll_damaged),
      .kl = shaped(d.kl),
      .kl_reverse = shaped(d.kl_reverse),
      .acceptance = shaped(d.acceptance),
      .entropy_baseline = shaped(d.entropy_baseline),
      .entropy_damaged = shaped(d.entropy_damaged),
      .confidence_baseline = shaped(d.confidence_baseline),
      .confidence_damaged = shaped(d.confidence_damaged),
      .top5_overlap = shaped(d.top5_overlap),
      .top1_baseline = shaped(d.top1_baseline),
      .top1_damaged = shaped(d.top1_damaged),
      .agree = {},
      .right_baseline = {},
      .right_damaged = {},
  };
  const at::Tensor valid_baseline = result.confidence_baseline.isnan().logical_not_();
  const at::Tensor valid_damaged = result.confidence_damaged.isnan().logical_not_();
  result.right_baseline = result.top1_baseline.eq(targets).logical_and_(valid_baseline);
  result.right_damaged = result.top1_damaged.eq(targets).logical_and_(valid_damaged);
  result.agree = result.top1_baseline.eq(result.top1_damaged).logical_and_(valid_baseline).logical_and_(valid_damaged);
  return result;
}

}  // namespace hemostat::metrics
