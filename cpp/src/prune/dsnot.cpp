#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <tuple>

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/min.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

#include "common/arguments.h"
#include "selection.h"

namespace hemostat::prune {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What every row ranks its swaps by, all [out_features, in_features] float32.
struct Ranks {
  at::Tensor contribution;  // to the mean output
  at::Tensor growth;        // |contribution| / variance
  at::Tensor score;         // |weight| · norm
};

// The best candidates of each row, in order: [out_features, cycles].
struct Candidates {
  at::Tensor index;
  at::Tensor valid;         // there may be fewer than cycles
  at::Tensor contribution;  // float64
};

Candidates best(const at::Tensor& rank, const at::Tensor& candidate, const at::Tensor& contribution, int64_t cycles) {
  const auto [value, index] = at::topk(rank.masked_fill(candidate.logical_not(), -kInfinity), cycles, 1);
  return {.index = index,
          .valid = candidate.gather(1, index),
          .contribution = contribution.gather(1, index).to(at::kDouble)};
}

// Sets mask at index to `kept` where `used`, and leaves it elsewhere.
void assign(at::Tensor& mask, const at::Tensor& index, const at::Tensor& used, bool kept) {
  at::Tensor entries = mask.gather(1, index);
  mask.scatter_(1, index, entries.masked_fill_(used, kept));
}

// One side's swaps: for e of that sign, in the order in which they are made.
struct Swaps {
  Candidates grown, dropped;
  at::Tensor valid, change;  // [out_features, cycles]
};

Swaps swaps(const Ranks& ranks, const at::Tensor& mask, const at::Tensor& regrowable, const at::Tensor& droppable,
            int64_t cycles) {
  Swaps result{.grown = best(ranks.growth, at::logical_and(mask.logical_not(), regrowable), ranks.contribution, cycles),
               .dropped = best(ranks.score.neg(), at::logical_and(mask, droppable), ranks.contribution, cycles),
               .valid = {},
               .change = {}};
  result.valid = at::logical_and(result.grown.valid, result.dropped.valid);
  result.change = result.dropped.contribution.sub(result.grown.contribution);
  return result;
}

at::Tensor refined(const Ranks& ranks, const at::Tensor& mask, int64_t cycles, double threshold) {
  const at::Tensor positive = ranks.contribution > 0, negative = ranks.contribution < 0;
  const Swaps falling = swaps(ranks, mask, positive, negative, cycles);  // where the error is positive
  const Swaps rising = swaps(ranks, mask, negative, positive, cycles);

  at::Tensor error = ranks.contribution.masked_fill(mask, 0).sum(1, /*keepdim=*/true, at::kDouble);
  at::Tensor active = at::ones_like(error, error.options().dtype(at::kBool));
  at::Tensor fallen = at::zeros_like(error, error.options().dtype(at::kLong)), risen = fallen.clone();
  for (int64_t cycle = 0; cycle < cycles; ++cycle) {
    const at::Tensor above = error > 0;
    const at::Tensor valid = at::where(above, falling.valid.gather(1, fallen), rising.valid.gather(1, risen));
    const at::Tensor change = at::where(above, falling.change.gather(1, fallen), rising.change.gather(1, risen));
    active = at::logical_and(active, at::logical_and(valid, error.abs() > threshold));
    if (!active.any().item<bool>()) {
      break;
    }
    error = error + change.masked_fill(active.logical_not(), 0);
    fallen = fallen + at::logical_and(active, above);
    risen = risen + at::logical_and(active, above.logical_not());
  }

  at::Tensor result = mask.clone();
  const at::Tensor place = at::arange(cycles, error.options().dtype(at::kLong)).unsqueeze(0);
  for (const auto& [side, count] : {std::tie(falling, fallen), std::tie(rising, risen)}) {
    const at::Tensor used = place < count;
    assign(result, side.grown.index, used, true);
    assign(result, side.dropped.index, used, false);
  }
  return result;
}

at::Tensor refined_in_groups(const Ranks& ranks, const at::Tensor& mask, int64_t m, int64_t cycles, double threshold) {
  at::Tensor error = ranks.contribution.masked_fill(mask, 0).sum(1, /*keepdim=*/true, at::kDouble);
  const at::Tensor sign = error.sign();
  const at::Tensor same_sign = ranks.contribution.sign() == sign;  // no error has the sign 0 that is above a threshold
  const Candidates grown =
      best(ranks.growth, at::logical_and(mask.logical_not(), same_sign), ranks.contribution, cycles);

  at::Tensor result = mask.clone();
  at::Tensor score = ranks.score.masked_fill(mask.logical_not(), kInfinity);
  at::Tensor active = at::ones_like(error, error.options().dtype(at::kBool));
  const at::Tensor within = at::arange(m, error.options().dtype(at::kLong)).unsqueeze(0);
  for (int64_t cycle = 0; cycle < cycles; ++cycle) {
    const at::Tensor regrown = grown.index.narrow(1, cycle, 1);
    const at::Tensor group = regrown.sub(regrown.remainder(m)).add(within);
    const auto [least, place] = at::min(score.gather(1, group), 1, /*keepdim=*/true);
    const at::Tensor dropped = group.gather(1, place);
    const at::Tensor after = error + ranks.contribution.gather(1, dropped) - grown.contribution.narrow(1, cycle, 1);
    const at::Tensor possible = at::logical_and(grown.valid.narrow(1, cycle, 1), at::isfinite(least));
    const at::Tensor wanted = at::logical_and(error.abs() > threshold, after.sign() == sign);
    active = at::logical_and(active, at::logical_and(possible, wanted));
    if (!active.any().item<bool>()) {
      break;
    }
    error = at::where(active, after, error);
    assign(result, regrown, active, true);
    assign(result, dropped, active, false);
    score.scatter_(1, dropped, kInfinity);
  }
  return result;
}

}  // namespace

at::Tensor dsnot(const at::Tensor& weight, const at::Tensor& mask, const at::Tensor& activation_mean,
                 const at::Tensor& activation_norm, const DsnotOptions& options) {
  constexpr std::string_view kOperation = "hemostat.prune.dsnot";
  arguments::check_matrix(kOperation, "weight", weight);
  check_mask(kOperation, mask, weight);
  const at::Tensor mean = arguments::checked_features(kOperation, "activation_mean", activation_mean, weight);
  const at::Tensor norm = arguments::checked_features(kOperation, "activation_norm", activation_norm, weight);
  check_options(kOperation, options);
  std::optional<Pattern> pattern;
  if (options.pattern) {
    pattern = checked_severity(kOperation, "weight", weight.sizes(), std::nullopt, options.pattern, Scope::row).groups;
    const at::Tensor kept = mask.reshape({weight.size(0), weight.size(1) / pattern->m, pattern->m}).sum(2);
    if (!kept.eq(pattern->n).all().item<bool>()) {
      throw ValueError(fmt::format("{}: mask does not keep {} of every {}, as pattern \"{}\" says", kOperation,
                                   pattern->n, pattern->m, *options.pattern));
    }
  }
  if (options.check_finite) {
    arguments::check_finite(kOperation, "weight", weight);
    arguments::check_finite(kOperation, "activation_mean", mean);
    arguments::check_not_negative(kOperation, "activation_norm", norm);
  }

  const int64_t cycles = std::min(options.max_cycles, weight.size(1));
  if (weight.numel() == 0 || cycles == 0) {
    return mask.clone(at::MemoryFormat::Contiguous);
  }
  const at::Tensor values = weight.detach().to(at::kFloat);
  const at::Tensor wide = norm.to(at::kDouble).square().sub(mean.to(at::kDouble).square());
  const at::Tensor variance = wide.clamp_min(std::numeric_limits<float>::min()).to(at::kFloat);
  const at::Tensor contribution = values.mul(mean);
  const Ranks ranks{
      .contribution = contribution, .growth = contribution.abs().div_(variance), .score = values.abs().mul_(norm)};
  if (options.check_finite) {
    arguments::check_result(kOperation, "weight times activation_mean", contribution);
    arguments::check_result(kOperation, "weight times activation_norm", ranks.score);
  }
  const at::Tensor start = mask.contiguous();
  return pattern ? refined_in_groups(ranks, start, pattern->m, cycles, options.threshold)
                 : refined(ranks, start, cycles, options.threshold);
}

}  // namespace hemostat::prune
