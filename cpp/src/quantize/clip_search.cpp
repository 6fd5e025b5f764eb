#include <algorithm>
#include <cstdint>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/round.h>
#include <ATen/ops/where.h>

#include "groups.h"

namespace hemostat::quantize {

namespace {

// GPTQ's grid: factors 1, .99, … .21 of the range.
constexpr int64_t kGrid = 100;
constexpr int64_t kFactors = 80;

// Entries searched together: the passes of one factor then stay in cache.
constexpr int64_t kChunk = int64_t{1} << 14;

GroupRange search(const at::Tensor& groups, int64_t levels, bool symmetric) {
  const auto steps = static_cast<double>(levels - 1);
  at::Tensor high = groups.amax(1, true).clamp_min(0);
  at::Tensor low = groups.amin(1, true).clamp_max(0);
  if (symmetric) {
    high = at::maximum(high, -low);
    low = -high;
  }
  const at::Tensor middle = at::full_like(high, static_cast<double>(levels / 2));

  at::Tensor best;
  GroupRange found;
  for (int64_t factor = 0; factor < kFactors; ++factor) {
    const double shrink = 1.0 - static_cast<double>(factor) / kGrid;
    at::Tensor scale = (high * shrink).sub_(low * shrink).div_(steps);
    scale = at::where(at::isinf(scale), (high / steps - low / steps) * shrink, scale);  // where high − low overflowed
    // A group of zeros has no range; any divisor gives it its zero point.
    scale.masked_fill_(scale == 0, 1);
    const at::Tensor zero = symmetric ? middle : (low * -shrink).div_(scale).round_();
    at::Tensor error = at::div(groups, scale).round_().add_(zero).clamp_(0, steps);
    error.sub_(zero).mul_(scale).sub_(groups).square_();
    const at::Tensor total = error.sum(1, true);
    if (factor == 0) {
      found = {.scale = scale, .zero = zero};
      best = total;
      continue;
    }
    const at::Tensor better = total < best;
    best = at::where(better, total, best);
    found.scale = at::where(better, scale, found.scale);
    found.zero = at::where(better, zero, found.zero);
  }
  return found;
}

}  // namespace

GroupRange search_clip(const at::Tensor& groups, int64_t levels, bool symmetric) {
  const int64_t together = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, groups.size(1)));
  const int64_t chunks = (groups.size(0) + together - 1) / together;
  GroupRange found{.scale = at::empty({groups.size(0), 1}, groups.options().dtype(at::kFloat)),
                   .zero = at::empty({groups.size(0), 1}, groups.options().dtype(at::kFloat))};
  const auto search_chunks = [&](int64_t first, int64_t end) {
    for (int64_t chunk = first; chunk < end; ++chunk) {
      const int64_t row = chunk * together;
      const int64_t count = std::min(together, groups.size(0) - row);
      const auto range = search(groups.narrow(0, row, count).to(at::kFloat), levels, symmetric);
      found.scale.narrow(0, row, count).copy_(range.scale);
      found.zero.narrow(0, row, count).copy_(range.zero);
    }
  };
  // Other devices take their work from one thread, in the order of its stream.
  if (groups.is_cpu()) {
    at::parallel_for(0, chunks, 1, search_chunks);
  } else {
    search_chunks(0, chunks);
  }
  return found;
}

}  // namespace hemostat::quantize
