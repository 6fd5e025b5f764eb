// llama.cpp's block formats: schemas, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/gguf.h"

#include <algorithm>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/arguments.h"

namespace hemostat::kernels {
namespace {

const GgufLoops& loops() {
  static const GgufLoops& chosen = HEMOSTAT_PICK(gguf_loops);
  return chosen;
}

const BlockLayout& layout_of(std::string_view op, int64_t type) {
  const BlockLayout* layout = find_layout(type);
  if (layout == nullptr) value_error(op, fmt::format("type is {}, which is not ggml's number of a known type", type));
  return *layout;
}

// So many rows that a task is worth waking a thread for.
int64_t rows_per_task(int64_t columns) { return std::max<int64_t>(1, (int64_t{1} << 14) / columns); }

}  // namespace

const BlockLayout& check_gguf_dequantize(const at::Tensor& data, int64_t type, const c10::SymInt& columns,
                                         at::ScalarType dtype) {
  constexpr std::string_view op = "gguf_dequantize";
  const BlockLayout& layout = layout_of(op, type);
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    type_error(op, fmt::format("dtype is {}, but takes float32, bfloat16 or float16", c10::toString(dtype)));
  }
  if (data.scalar_type() != at::kByte) {
    type_error(op, fmt::format("data is {}, but takes uint8", c10::toString(data.scalar_type())));
  }
  if (data.layout() != at::kStrided) type_error(op, "data is sparse, but takes a dense tensor");
  if (data.dim() != 2) value_error(op, fmt::format("data has shape {}, but takes [rows, bytes]", shape_of(data)));
  if (columns < 0 || columns % layout.weights != 0) {
    value_error(
        op, fmt::format("columns = {} is not a multiple of {}'s {}", c10::str(columns), layout.name, layout.weights));
  }
  if (data.sym_size(1) != columns / layout.weights * layout.bytes) {
    value_error(op, fmt::format("data has {} bytes a row, but {} columns of {} take {}", c10::str(data.sym_size(1)),
                                c10::str(columns), layout.name, c10::str(columns / layout.weights * layout.bytes)));
  }
  return layout;
}

namespace {

at::Tensor gguf_dequantize_cpu(const at::Tensor& data, int64_t type, int64_t columns, at::ScalarType dtype) {
  const BlockLayout& layout = check_gguf_dequantize(data, type, columns, dtype);
  const int64_t rows = data.size(0), blocks = columns / layout.weights;
  const at::Tensor out = at::empty({rows, columns}, data.options().dtype(dtype));
  if (out.numel() == 0) return out;
  const at::Tensor dense = data.contiguous();
  const auto* from = dense.const_data_ptr<uint8_t>();
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  const Element element = matrix_of(out).element;
  const int64_t row_bytes = columns * static_cast<int64_t>(out.element_size());
  at::parallel_for(0, rows, rows_per_task(columns), [&](int64_t begin, int64_t end) {
    loops().decode(layout.type, from + begin * blocks * layout.bytes, (end - begin) * blocks, element,
                   to + begin * row_bytes);
  });
  return out;
}

at::Tensor gguf_dequantize_meta(const at::Tensor& data, int64_t type, c10::SymInt columns, at::ScalarType dtype) {
  check_gguf_dequantize(data, type, columns, dtype);
  return at::empty_symint({data.sym_size(0), columns}, data.options().dtype(dtype));
}

}  // namespace

at::Tensor gguf_dequantize(const at::Tensor& data, int64_t type, int64_t columns, at::ScalarType dtype) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::gguf_dequantize", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, c10::SymInt, at::ScalarType)>();
  return op.call(data, type, columns, dtype);
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  m.def("gguf_dequantize(Tensor data, int type, SymInt columns, ScalarType dtype) -> Tensor",
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) { m.impl("gguf_dequantize", hemostat::kernels::gguf_dequantize_cpu); }

TORCH_LIBRARY_IMPL(hemostat, Meta, m) { m.impl("gguf_dequantize", hemostat::kernels::gguf_dequantize_meta); }

// Not differentiable: results carry no gradient.
TORCH_LIBRARY_IMPL(hemostat, Autograd, m) { m.impl("gguf_dequantize", torch::CppFunction::makeFallthrough()); }
