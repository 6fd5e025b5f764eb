// Column solver: schema, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/solve_columns/solve_columns.h"

#include <optional>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/library.h"
#include "kernels/scratch.h"
#include "kernels/solve_columns/arguments.h"

namespace hemostat::kernels {
namespace {

constexpr std::string_view kOp = "solve_columns";

void check_rows(std::string_view name, const at::Tensor& tensor, const at::Tensor& like, at::ScalarType dtype) {
  if (tensor.scalar_type() != dtype) {
    type_error(
        kOp, fmt::format("{} is {}, but must be {}", name, c10::toString(tensor.scalar_type()), c10::toString(dtype)));
  }
  if (tensor.dim() != 2 || tensor.sym_size(0) != like.sym_size(0)) {
    value_error(kOp, fmt::format("{} has shape {}, but current has {}", name, shape_of(tensor), shape_of(like)));
  }
  if (tensor.sym_size(1) > 1 && tensor.sym_stride(1) != 1) {
    value_error(kOp, fmt::format("{} must have neighbouring columns side by side", name));
  }
  check_same_device(kOp, like, "current", tensor, name);
}

void check_like(std::string_view name, const at::Tensor& tensor, const at::Tensor& current, at::ScalarType dtype) {
  check_rows(name, tensor, current, dtype);
  if (tensor.sym_size(1) != current.sym_size(1)) {
    value_error(kOp, fmt::format("{} has shape {}, but current has {}", name, shape_of(tensor), shape_of(current)));
  }
}

template <class T>
Rows<T> rows_of(const std::optional<at::Tensor>& tensor) {
  if (!tensor) return {nullptr, 0};
  if constexpr (std::is_const_v<T>) {
    return {tensor->const_data_ptr<std::remove_const_t<T>>(), tensor->stride(0)};
  } else {
    return {tensor->mutable_data_ptr<T>(), tensor->stride(0)};
  }
}

}  // namespace

void check_solve_columns(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, const c10::SymInt& n, const c10::SymInt& m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         const c10::SymInt& group_size, const c10::SymInt& first, const c10::SymInt& levels,
                         const at::Tensor& solution, const at::Tensor& error) {
  check_like("current", current, current, at::kFloat);
  check_like("weight", weight, current, at::kFloat);
  check_like("solution", solution, current, at::kFloat);
  check_like("error", error, current, at::kFloat);
  const c10::SymInt columns = current.sym_size(1);
  if (inverse.scalar_type() != at::kFloat) {
    type_error(kOp, fmt::format("inverse is {}, but must be Float", c10::toString(inverse.scalar_type())));
  }
  if (inverse.dim() != 2 || inverse.sym_size(0) != columns || inverse.sym_size(1) != columns ||
      (columns > 1 && inverse.sym_stride(1) != 1)) {
    value_error(kOp, fmt::format("inverse has shape {}, but must be square, with dense rows, of current's {} columns",
                                 shape_of(inverse), c10::str(columns)));
  }
  check_same_device(kOp, current, "current", inverse, "inverse");
  if (mask) check_like("mask", *mask, current, at::kBool);
  if (m < 0 || n < 0 || n > m || (m > 0 && (columns % m != 0 || !mask))) {
    value_error(kOp, fmt::format("n:m is {}:{}, which needs 0 <= n <= m, a mask, and an m that divides {} columns",
                                 c10::str(n), c10::str(m), c10::str(columns)));
  }
  if (levels != 0) {
    if (levels < 2 || group_size < 1 || first < 0 || first >= group_size || !scale || !zero) {
      value_error(kOp, fmt::format("{} levels in groups of {} from {} on need at least 2 levels, a scale and a zero, "
                                   "and 0 <= first < group_size",
                                   c10::str(levels), c10::str(group_size), c10::str(first)));
    }
    const c10::SymInt groups = columns == 0 ? c10::SymInt(0) : (first + columns - 1) / group_size + 1;
    for (const auto& [name, tensor] : {std::pair{"scale", *scale}, std::pair{"zero", *zero}}) {
      check_rows(name, tensor, current, at::kFloat);
      if (tensor.sym_size(1) < groups) {
        value_error(kOp, fmt::format("{} has shape {}, but must have the {} groups of the columns", name,
                                     shape_of(tensor), c10::str(groups)));
      }
    }
  }
}

ColumnBlock column_block(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, int64_t n, int64_t m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         int64_t group_size, int64_t first, int64_t levels, at::Tensor& solution, at::Tensor& error) {
  return {.rows = current.size(0),
          .columns = current.size(1),
          .current = rows_of<const float>(current),
          .weight = rows_of<const float>(weight),
          .inverse = rows_of<const float>(inverse),
          .mask = rows_of<bool>(mask),
          .n = n,
          .m = m,
          .scale = rows_of<const float>(scale),
          .zero = rows_of<const float>(zero),
          .group_size = group_size,
          .first = first,
          .levels = levels,
          .solution = rows_of<float>(solution),
          .error = rows_of<float>(error)};
}

namespace {

void solve_columns_cpu(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                       const std::optional<at::Tensor>& mask, int64_t n, int64_t m,
                       const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                       int64_t group_size, int64_t first, int64_t levels, at::Tensor& solution, at::Tensor& error) {
  check_solve_columns(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error);
  if (current.numel() == 0) return;
  const ColumnBlock block =
      column_block(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error);
  static const SolveLoops& loops = HEMOSTAT_PICK(solve_loops);
  const int64_t tiles = (block.rows + kSolveLanes - 1) / kSolveLanes;
  at::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(solve_buffer(block.columns));
    const int64_t last = end * kSolveLanes;
    loops.solve_rows(block, begin * kSolveLanes, last < block.rows ? last : block.rows, buffer.get());
  });
}

void solve_columns_meta(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                        const std::optional<at::Tensor>& mask, c10::SymInt n, c10::SymInt m,
                        const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                        c10::SymInt group_size, c10::SymInt first, c10::SymInt levels, at::Tensor& solution,
                        at::Tensor& error) {
  check_solve_columns(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error);
}

}  // namespace

void solve_columns(const ColumnArguments& block, at::Tensor& solution, at::Tensor& error) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hemostat::solve_columns", "")
          .typed<void(const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                      c10::SymInt, c10::SymInt, const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
                      c10::SymInt, c10::SymInt, c10::SymInt, at::Tensor&, at::Tensor&)>();
  op.call(block.current, block.weight, block.inverse, block.mask, block.n, block.m, block.scale, block.zero,
          block.group_size, block.first, block.levels, solution, error);
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m,
      "solve_columns(Tensor current, Tensor weight, Tensor inverse, Tensor(a!)? mask, SymInt n, SymInt m, "
      "Tensor? scale, Tensor? zero, SymInt group_size, SymInt first, SymInt levels, *, Tensor(b!) solution, "
      "Tensor(c!) error) -> ()");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("solve_columns", hemostat::kernels::solve_columns_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("solve_columns", hemostat::kernels::solve_columns_meta); }
