// Block formats: schemas, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/block_float/block_float.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <tuple>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/block_float/arguments.h"
#include "kernels/library.h"
#include "kernels/scratch.h"

namespace hemostat::kernels {
namespace {

// In the order of BlockElement and of BlockFormat.
constexpr std::array<std::string_view, 7> kNames = {"nf4", "fp4", "fp8_e4m3", "fp8_e5m2", "mxfp4", "nvfp4", "ternary"};

using Encoded = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

}  // namespace

BlockElement check_block_float(std::string_view op, const at::Tensor& weight, std::string_view format,
                               const c10::SymInt& block_size) {
  check_matrix(op, "weight", weight);
  const auto found = std::find(kNames.begin(), kNames.end(), format);
  if (found == kNames.end()) {
    value_error(op, fmt::format("format is '{}', but takes {}", format, fmt::join(kNames, ", ")));
  }
  if (block_size < 0) {
    value_error(op, fmt::format("block_size must be positive, or 0 for one block, got {}", c10::str(block_size)));
  }
  if (block_size > 0 && weight.sym_size(1) % block_size != 0) {
    value_error(op, fmt::format("weight has {} columns, which block_size = {} does not divide",
                                c10::str(weight.sym_size(1)), c10::str(block_size)));
  }
  return static_cast<BlockElement>(found - kNames.begin());
}

void check_block_float_out(const at::Tensor& weight, const at::Tensor& out) {
  constexpr std::string_view op = "block_float";
  if (out.scalar_type() != weight.scalar_type()) {
    type_error(op, fmt::format("out is {}, but weight is {}", c10::toString(out.scalar_type()),
                               c10::toString(weight.scalar_type())));
  }
  check_out(op, weight, "weight", out, /*in_place=*/true);
}

namespace {

const BlockFloatLoops& loops() {
  static const BlockFloatLoops& chosen = HEMOSTAT_PICK(block_float_loops);
  return chosen;
}

at::Tensor count_tensor(int64_t count) { return at::scalar_tensor(count, at::dtype(at::kLong)); }

bool scale_is_a_byte(BlockElement element) { return element == BlockElement::mxfp4 || element == BlockElement::nvfp4; }

// visit(begin, end) for ranges of rows so long that a task is worth waking a thread for, in parallel.
template <class Visit>
void for_each_rows(const Matrix& weight, const Visit& visit) {
  at::parallel_for(0, weight.rows, std::max<int64_t>(1, (int64_t{1} << 14) / weight.columns), visit);
}

// Merged row by row: the same for any division into tasks.
BlockStatistic statistic_of(const Matrix& weight, bool sum) {
  std::vector<BlockStatistic> rows(static_cast<size_t>(weight.rows));
  for_each_rows(weight, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(kBlockTile);
    loops().measure_rows(weight, begin, end, sum, rows.data(), buffer.get());
  });
  BlockStatistic total{0, 0, 0};
  for (const BlockStatistic& row : rows) {
    total.largest = std::max(total.largest, row.largest);
    total.sum += row.sum;
    total.invalid += row.invalid;
  }
  return total;
}

// What has to be known of the whole tensor before its blocks are rounded.
struct Whole {
  Whole(const Matrix& weight, BlockElement element, int64_t block_size)
      : grid{element, block_size == 0 ? kBlockTile : block_size, 1, nullptr} {
    if (block_size > 0 && element != BlockElement::nvfp4) return;
    const BlockStatistic all = statistic_of(weight, element == BlockElement::ternary);
    invalid = all.invalid;
    if (element == BlockElement::nvfp4)
      grid.tensor_scale = block_elements::tensor_scale_of(block_elements::float_of(all.largest));
    if (block_size == 0) {
      scale = loops().scale(element, all, weight.rows * weight.columns, grid.tensor_scale);
      grid.fixed = &scale;
    }
  }
  Whole(const Whole&) = delete;
  Whole& operator=(const Whole&) = delete;

  BlockGrid grid;
  BlockScale scale{1, 1, 0};
  int64_t invalid = 0;
};

at::Tensor block_float_cpu(const at::Tensor& weight, std::string_view format, int64_t block_size, at::Tensor& out) {
  const BlockElement element = check_block_float("block_float", weight, format, block_size);
  check_block_float_out(weight, out);
  if (weight.numel() == 0) return count_tensor(0);
  const Matrix matrix = matrix_of(weight);
  const Whole whole(matrix, element, block_size);
  if (whole.invalid > 0) return count_tensor(whole.invalid);
  void* to = out.mutable_data_ptr();
  std::atomic<int64_t> invalid{0};
  for_each_rows(matrix, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(whole.grid.block_size);
    invalid += loops().round_rows(matrix, begin, end, whole.grid, to, buffer.get());
  });
  return count_tensor(invalid);
}

Encoded block_float_encode_cpu(const at::Tensor& weight, std::string_view format, int64_t block_size) {
  const BlockElement element = check_block_float("block_float_encode", weight, format, block_size);
  const int64_t rows = weight.size(0), columns = weight.size(1), per_byte = codes_per_byte(element);
  const bool byte = scale_is_a_byte(element);
  at::Tensor codes = at::empty({rows, (columns + per_byte - 1) / per_byte}, at::dtype(at::kByte));
  at::Tensor scale = at::empty({block_size == 0 ? 1 : rows, block_size == 0 ? 1 : columns / block_size},
                               at::dtype(byte ? at::kByte : at::kFloat));
  if (weight.numel() == 0) {
    return {codes, scale.fill_(byte ? 0 : 1), at::scalar_tensor(1.0, at::dtype(at::kFloat)), count_tensor(0)};
  }
  const Matrix matrix = matrix_of(weight);
  const Whole whole(matrix, element, block_size);
  const at::Tensor tensor_scale = at::scalar_tensor(whole.grid.tensor_scale, at::dtype(at::kFloat));
  if (whole.invalid > 0) return {codes.zero_(), scale.zero_(), tensor_scale, count_tensor(whole.invalid)};
  if (whole.grid.fixed != nullptr) scale.fill_(byte ? static_cast<float>(whole.scale.code) : whole.scale.unit);
  auto* to = codes.mutable_data_ptr<uint8_t>();
  void* scales = scale.mutable_data_ptr();
  std::atomic<int64_t> invalid{0};
  for_each_rows(matrix, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(whole.grid.block_size);
    const Scratch<uint8_t> row_codes(columns);
    invalid += loops().encode_rows(matrix, begin, end, whole.grid, to, scales, row_codes.get(), buffer.get());
  });
  return {codes, scale, tensor_scale, count_tensor(invalid)};
}

at::Tensor count_meta(const at::Tensor& weight) { return at::empty({}, weight.options().dtype(at::kLong)); }

at::Tensor block_float_meta(const at::Tensor& weight, std::string_view format, c10::SymInt block_size,
                            at::Tensor& out) {
  check_block_float("block_float", weight, format, block_size);
  check_block_float_out(weight, out);
  return count_meta(weight);
}

Encoded block_float_encode_meta(const at::Tensor& weight, std::string_view format, c10::SymInt block_size) {
  const BlockElement element = check_block_float("block_float_encode", weight, format, block_size);
  const c10::SymInt rows = weight.sym_size(0), columns = weight.sym_size(1), per_byte = codes_per_byte(element);
  const bool one_block = block_size == 0;
  const c10::SymInt scale_rows = one_block ? c10::SymInt(1) : rows;
  const c10::SymInt blocks = one_block ? c10::SymInt(1) : columns / block_size;
  return {
      at::empty_symint({rows, (columns + per_byte - 1) / per_byte}, weight.options().dtype(at::kByte)),
      at::empty_symint({scale_rows, blocks}, weight.options().dtype(scale_is_a_byte(element) ? at::kByte : at::kFloat)),
      at::empty({}, weight.options().dtype(at::kFloat)), count_meta(weight)};
}

std::string_view name_of(BlockFormat format) { return kNames.at(static_cast<size_t>(format)); }

}  // namespace

at::Tensor block_float(const at::Tensor& weight, BlockFormat format, int64_t block_size, at::Tensor& out) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::block_float", "")
                             .typed<at::Tensor(const at::Tensor&, std::string_view, c10::SymInt, at::Tensor&)>();
  return op.call(weight, name_of(format), block_size, out);
}

BlockFloat block_float_encode(const at::Tensor& weight, BlockFormat format, int64_t block_size) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::block_float_encode", "")
                             .typed<Encoded(const at::Tensor&, std::string_view, c10::SymInt)>();
  auto [codes, scale, tensor_scale, invalid] = op.call(weight, name_of(format), block_size);
  return {.codes = codes, .scale = scale, .tensor_scale = tensor_scale, .invalid = invalid};
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(m,
                            "block_float(Tensor weight, str format, SymInt block_size, *, Tensor(a!) out) -> Tensor");
  hemostat::kernels::define(m,
                            "block_float_encode(Tensor weight, str format, SymInt block_size) -> "
                            "(Tensor codes, Tensor scale, Tensor tensor_scale, Tensor invalid)");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) {
  m.impl("block_float", hemostat::kernels::block_float_cpu);
  m.impl("block_float_encode", hemostat::kernels::block_float_encode_cpu);
}

TORCH_LIBRARY_IMPL(hemostat, Meta, m) {
  m.impl("block_float", hemostat::kernels::block_float_meta);
  m.impl("block_float_encode", hemostat::kernels::block_float_encode_meta);
}
