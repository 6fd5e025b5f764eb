// Group quantization: schemas, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/quantize/quantize.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <tuple>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/library.h"
#include "kernels/quantize/arguments.h"
#include "kernels/scratch.h"

namespace hemostat::kernels {
namespace {

using Quantized = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
using Searched = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

void check_grid(std::string_view op, const at::Tensor& weight, const c10::SymInt& levels, int64_t most_levels,
                const c10::SymInt& group_size) {
  check_matrix(op, "weight", weight);
  if (levels < 2 || levels > most_levels) {
    value_error(op, fmt::format("levels must be in 2 … {}, got {}", most_levels, c10::str(levels)));
  }
  if (group_size < 0) {
    value_error(op, fmt::format("group_size must be positive, or 0 for one group, got {}", c10::str(group_size)));
  }
  if (group_size > 0 && weight.sym_size(1) % group_size != 0) {
    value_error(op, fmt::format("weight has {} columns, which group_size = {} does not divide",
                                c10::str(weight.sym_size(1)), c10::str(group_size)));
  }
}

}  // namespace

void check_fake_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size,
                         const at::Tensor& out) {
  constexpr std::string_view op = "fake_quantize";
  check_grid(op, weight, levels, 65536, group_size);
  if (out.scalar_type() != weight.scalar_type()) {
    type_error(op, fmt::format("out is {}, but weight is {}", c10::toString(out.scalar_type()),
                               c10::toString(weight.scalar_type())));
  }
  check_out(op, weight, "weight", out, /*in_place=*/true);
}

void check_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size) {
  check_grid("quantize", weight, levels, 256, group_size);
}

void check_search_clip(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size) {
  check_grid("search_clip", weight, levels, 65536, group_size);
}

namespace {

const QuantizeLoops& loops() {
  static const QuantizeLoops& chosen = HEMOSTAT_PICK(quantize_loops);
  return chosen;
}

at::Tensor count_tensor(int64_t count) { return at::scalar_tensor(count, at::dtype(at::kLong)); }

// So many rows that a task is worth waking a thread for.
int64_t rows_per_task(int64_t columns) { return std::max<int64_t>(1, (int64_t{1} << 14) / columns); }

// visit(begin, end, buffer) for ranges of rows, in parallel.
template <class Visit>
void for_each_rows(const Matrix& weight, int64_t buffer_size, const Visit& visit) {
  at::parallel_for(0, weight.rows, rows_per_task(weight.columns), [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(buffer_size);
    visit(begin, end, buffer.get());
  });
}

// Maxima and a count: the same for any division into tasks.
Extent extent_of(const Matrix& weight) {
  Extent total{0, 0, 0};
  std::mutex mutex;
  for_each_rows(weight, kQuantizeTile, [&](int64_t begin, int64_t end, float* buffer) {
    Extent own{0, 0, 0};
    loops().extent(weight, begin, end, &own, buffer);
    const std::lock_guard lock(mutex);
    total.highest = std::max(total.highest, own.highest);
    total.lowest = std::max(total.lowest, own.lowest);
    total.invalid += own.invalid;
  });
  return total;
}

at::Tensor fake_quantize_cpu(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric,
                             at::Tensor& out) {
  check_fake_quantize(weight, levels, group_size, out);
  if (weight.numel() == 0) return count_tensor(0);
  const Matrix matrix = matrix_of(weight);
  const Grid grid{levels, group_size, symmetric, limit_of(matrix.element)};
  void* to = out.mutable_data_ptr();
  if (group_size == 0) {
    const Extent extent = extent_of(matrix);
    if (extent.invalid > 0) return count_tensor(extent.invalid);
    const GroupScale scale = loops().group_scale(extent, grid);
    if (loops().leaves(extent, scale, grid)) return count_tensor(1);
    for_each_rows(matrix, kQuantizeTile, [&](int64_t begin, int64_t end, float* buffer) {
      loops().fake_quantize_all(matrix, begin, end, scale, grid, to, buffer);
    });
    return count_tensor(0);
  }
  std::atomic<int64_t> invalid{0};
  for_each_rows(matrix, group_size, [&](int64_t begin, int64_t end, float* buffer) {
    invalid += loops().fake_quantize_rows(matrix, begin, end, grid, to, buffer);
  });
  return count_tensor(invalid);
}

Quantized quantize_cpu(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric) {
  check_quantize(weight, levels, group_size);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const int64_t groups = group_size == 0 ? 1 : columns / group_size;
  at::Tensor codes = at::empty({rows, columns}, at::dtype(at::kByte));
  at::Tensor scale = at::ones({group_size == 0 ? 1 : rows, groups}, at::dtype(at::kFloat));
  at::Tensor zero = at::zeros_like(scale);
  if (weight.numel() == 0) return {codes, scale, zero, count_tensor(0)};
  const Matrix matrix = matrix_of(weight);
  const Grid grid{levels, group_size, symmetric, limit_of(matrix.element)};
  auto* to = codes.mutable_data_ptr<uint8_t>();
  auto* scales = scale.mutable_data_ptr<float>();
  auto* zeros = zero.mutable_data_ptr<float>();
  if (group_size == 0) {
    const Extent extent = extent_of(matrix);
    if (extent.invalid > 0) return {codes.zero_(), scale, zero, count_tensor(extent.invalid)};
    const GroupScale of_all = loops().group_scale(extent, grid);
    if (loops().leaves(extent, of_all, grid)) return {codes.zero_(), scale, zero, count_tensor(1)};
    *scales = of_all.scale;
    *zeros = of_all.zero;
    for_each_rows(matrix, kQuantizeTile, [&](int64_t begin, int64_t end, float* buffer) {
      loops().quantize_all(matrix, begin, end, of_all, grid, to, buffer);
    });
    return {codes, scale, zero, count_tensor(0)};
  }
  std::atomic<int64_t> invalid{0};
  for_each_rows(matrix, group_size, [&](int64_t begin, int64_t end, float* buffer) {
    invalid += loops().quantize_rows(matrix, begin, end, grid, to, scales, zeros, buffer);
  });
  return {codes, scale, zero, count_tensor(invalid)};
}

// The range of least error for the whole tensor; errors are added row by row: the same for any division into tasks.
GroupScale search_all(const Matrix& weight, Extent extent, Grid grid) {
  std::vector<GroupScale> ranges;
  for (int64_t factor = 0; factor < kClipFactors; ++factor) {
    ranges.push_back(loops().clipped_scale(extent, grid, factor));
  }
  const Scratch<double> errors(weight.rows * kClipFactors);
  for_each_rows(weight, kQuantizeTile, [&](int64_t begin, int64_t end, float* buffer) {
    loops().clip_errors(weight, begin, end, grid, ranges.data(), errors.get(), buffer);
  });
  std::vector<double> total(kClipFactors, 0.0);
  for (int64_t i = 0; i < weight.rows * kClipFactors; ++i) total[static_cast<size_t>(i % kClipFactors)] += errors[i];
  return ranges[static_cast<size_t>(std::min_element(total.begin(), total.end()) - total.begin())];
}

Searched search_clip_cpu(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric) {
  check_search_clip(weight, levels, group_size);
  const int64_t rows = weight.size(0), groups = group_size == 0 ? 1 : weight.size(1) / group_size;
  at::Tensor scale = at::ones({group_size == 0 ? 1 : rows, groups}, at::dtype(at::kFloat));
  at::Tensor zero = at::zeros_like(scale);
  if (weight.numel() == 0) return {scale, zero, count_tensor(0)};
  const Matrix matrix = matrix_of(weight);
  const Grid grid{levels, group_size, symmetric, limit_of(matrix.element)};
  auto* scales = scale.mutable_data_ptr<float>();
  auto* zeros = zero.mutable_data_ptr<float>();
  if (group_size == 0) {
    const Extent extent = extent_of(matrix);
    if (extent.invalid > 0) return {scale, zero, count_tensor(extent.invalid)};
    const GroupScale found = search_all(matrix, extent, grid);
    *scales = found.scale;
    *zeros = found.zero;
    return {scale, zero, count_tensor(0)};
  }
  std::atomic<int64_t> invalid{0};
  for_each_rows(matrix, group_size, [&](int64_t begin, int64_t end, float* buffer) {
    invalid += loops().search_rows(matrix, begin, end, grid, scales, zeros, buffer);
  });
  return {scale, zero, count_tensor(invalid)};
}

at::Tensor count_meta(const at::Tensor& weight) { return at::empty({}, weight.options().dtype(at::kLong)); }

at::Tensor fake_quantize_meta(const at::Tensor& weight, c10::SymInt levels, c10::SymInt group_size, bool /*symmetric*/,
                              at::Tensor& out) {
  check_fake_quantize(weight, levels, group_size, out);
  return count_meta(weight);
}

Quantized quantize_meta(const at::Tensor& weight, c10::SymInt levels, c10::SymInt group_size, bool /*symmetric*/) {
  check_quantize(weight, levels, group_size);
  const c10::SymInt rows = weight.sym_size(0), columns = weight.sym_size(1);
  const bool one_group = group_size == 0;
  const c10::SymInt scale_rows = one_group ? c10::SymInt(1) : rows;
  const c10::SymInt groups = one_group ? c10::SymInt(1) : columns / group_size;
  const auto floats = weight.options().dtype(at::kFloat);
  return {at::empty_symint({rows, columns}, weight.options().dtype(at::kByte)),
          at::empty_symint({scale_rows, groups}, floats), at::empty_symint({scale_rows, groups}, floats),
          count_meta(weight)};
}

Searched search_clip_meta(const at::Tensor& weight, c10::SymInt levels, c10::SymInt group_size, bool /*symmetric*/) {
  check_search_clip(weight, levels, group_size);
  const bool one_group = group_size == 0;
  const c10::SymInt rows = one_group ? c10::SymInt(1) : weight.sym_size(0);
  const c10::SymInt groups = one_group ? c10::SymInt(1) : weight.sym_size(1) / group_size;
  const auto floats = weight.options().dtype(at::kFloat);
  return {at::empty_symint({rows, groups}, floats), at::empty_symint({rows, groups}, floats), count_meta(weight)};
}

}  // namespace

at::Tensor fake_quantize(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric,
                         at::Tensor& out) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::fake_quantize", "")
                             .typed<at::Tensor(const at::Tensor&, c10::SymInt, c10::SymInt, bool, at::Tensor&)>();
  return op.call(weight, levels, group_size, symmetric, out);
}

Quantized quantize(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::quantize", "")
                             .typed<Quantized(const at::Tensor&, c10::SymInt, c10::SymInt, bool)>();
  return op.call(weight, levels, group_size, symmetric);
}

Searched search_clip(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::search_clip", "")
                             .typed<Searched(const at::Tensor&, c10::SymInt, c10::SymInt, bool)>();
  return op.call(weight, levels, group_size, symmetric);
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m, "fake_quantize(Tensor weight, SymInt levels, SymInt group_size, bool symmetric, *, Tensor(a!) out) -> Tensor");
  hemostat::kernels::define(m,
                            "quantize(Tensor weight, SymInt levels, SymInt group_size, bool symmetric) -> "
                            "(Tensor codes, Tensor scale, Tensor zero, Tensor invalid)");
  hemostat::kernels::define(m,
                            "search_clip(Tensor weight, SymInt levels, SymInt group_size, bool symmetric) -> "
                            "(Tensor scale, Tensor zero, Tensor invalid)");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) {
  m.impl("fake_quantize", hemostat::kernels::fake_quantize_cpu);
  m.impl("quantize", hemostat::kernels::quantize_cpu);
  m.impl("search_clip", hemostat::kernels::search_clip_cpu);
}

TORCH_LIBRARY_IMPL(hemostat, Meta, m) {
  m.impl("fake_quantize", hemostat::kernels::fake_quantize_meta);
  m.impl("quantize", hemostat::kernels::quantize_meta);
  m.impl("search_clip", hemostat::kernels::search_clip_meta);
}
