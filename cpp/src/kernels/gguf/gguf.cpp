// llama.cpp's block formats: schemas, checks, CPU and Meta implementations. See hemostat/kernels.h.
#include "kernels/gguf/gguf.h"

#include <algorithm>
#include <atomic>
#include <tuple>

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>
#include <fmt/format.h>
#include <torch/library.h>

#include "hemostat/kernels.h"
#include "kernels/gguf/arguments.h"
#include "kernels/library.h"
#include "kernels/scratch.h"

namespace hemostat::kernels {
namespace {

using Encoded = std::tuple<at::Tensor, at::Tensor>;
using Importance = std::optional<at::Tensor>;

const GgufLoops& loops() {
  static const GgufLoops& chosen = HEMOSTAT_PICK(gguf_loops);
  return chosen;
}

EncodeBlocks encode() {
  static const EncodeBlocks chosen = HEMOSTAT_PICK(gguf_encode);
  return chosen;
}

const BlockLayout& layout_of(std::string_view op, int64_t type) {
  const BlockLayout* layout = find_layout(type);
  if (layout == nullptr) value_error(op, fmt::format("type is {}, which is not ggml's number of a known type", type));
  return *layout;
}

// So many rows that a task is worth waking a thread for.
int64_t rows_per_task(int64_t columns) { return std::max<int64_t>(1, (int64_t{1} << 14) / columns); }

const BlockLayout& check_weight(std::string_view op, const at::Tensor& weight, int64_t type,
                                const Importance& importance) {
  const BlockLayout& layout = layout_of(op, type);
  check_matrix(op, "weight", weight);
  if (weight.sym_size(1) % layout.weights != 0) {
    value_error(op, fmt::format("weight has {} columns, which is not a multiple of {}'s {}",
                                c10::str(weight.sym_size(1)), layout.name, layout.weights));
  }
  if (!importance.has_value()) return layout;
  if (importance->dim() != 1 || importance->sym_size(0) != weight.sym_size(1)) {
    value_error(op, fmt::format("importance has shape {}, but weight has shape {} and takes one entry a column",
                                shape_of(*importance), shape_of(weight)));
  }
  if (importance->scalar_type() != at::kFloat) {
    type_error(op, fmt::format("importance is {}, but takes float32", c10::toString(importance->scalar_type())));
  }
  check_same_device(op, *importance, "importance", weight, "weight");
  return layout;
}

}  // namespace

const BlockLayout& check_gguf_quantize(const at::Tensor& weight, int64_t type,
                                       const std::optional<at::Tensor>& importance) {
  return check_weight("gguf_quantize", weight, type, importance);
}

const BlockLayout& check_gguf_fake_quantize(const at::Tensor& weight, int64_t type,
                                            const std::optional<at::Tensor>& importance, const at::Tensor& out) {
  constexpr std::string_view op = "gguf_fake_quantize";
  const BlockLayout& layout = check_weight(op, weight, type, importance);
  if (out.scalar_type() != weight.scalar_type()) {
    type_error(op, fmt::format("out is {}, but weight is {}", c10::toString(out.scalar_type()),
                               c10::toString(weight.scalar_type())));
  }
  check_out(op, weight, "weight", out, /*in_place=*/true);
  return layout;
}

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

at::Tensor count_tensor(int64_t count) { return at::scalar_tensor(count, at::dtype(at::kLong)); }

// Encodes row by row, in parallel, to `data`, or where that is null to memory that lasts until done(row, bytes) has
// seen it. Returns how much cannot be stored.
template <class Done>
int64_t encode_rows(const at::Tensor& weight, const BlockLayout& layout, const Importance& importance, uint8_t* data,
                    const Done& done) {
  const Matrix matrix = matrix_of(weight);
  const at::Tensor weights = importance.has_value() ? importance->contiguous() : at::Tensor();
  const float* errors_weigh = weights.defined() ? weights.const_data_ptr<float>() : nullptr;
  const int64_t blocks = matrix.columns / layout.weights, row_bytes = blocks * layout.bytes;
  std::atomic<int64_t> invalid{0};
  at::parallel_for(0, matrix.rows, rows_per_task(matrix.columns), [&](int64_t begin, int64_t end) {
    const Scratch<float> buffer(matrix.columns);
    const Scratch<uint8_t> aside(data != nullptr ? 0 : row_bytes);
    int64_t own = 0;
    for (int64_t row = begin; row < end; ++row) {
      uint8_t* bytes = data != nullptr ? data + row * row_bytes : aside.get();
      own += encode()(layout.type, loops().row(matrix, row, buffer.get()), errors_weigh, blocks, bytes);
      done(row, bytes);
    }
    invalid += own;
  });
  return invalid;
}

Encoded gguf_quantize_cpu(const at::Tensor& weight, int64_t type, const Importance& importance) {
  const BlockLayout& layout = check_gguf_quantize(weight, type, importance);
  const int64_t row_bytes = weight.size(1) / layout.weights * layout.bytes;
  at::Tensor data = at::empty({weight.size(0), row_bytes}, at::dtype(at::kByte));
  if (weight.numel() == 0) return {data, count_tensor(0)};
  const int64_t invalid =
      encode_rows(weight, layout, importance, data.mutable_data_ptr<uint8_t>(), [](int64_t, const uint8_t*) {});
  return {data, count_tensor(invalid)};
}

at::Tensor gguf_fake_quantize_cpu(const at::Tensor& weight, int64_t type, const Importance& importance,
                                  at::Tensor& out) {
  const BlockLayout& layout = check_gguf_fake_quantize(weight, type, importance, out);
  if (weight.numel() == 0) return count_tensor(0);
  const Element element = matrix_of(out).element;
  const int64_t columns = weight.size(1), bytes_of_row = columns * static_cast<int64_t>(out.element_size());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  return count_tensor(encode_rows(weight, layout, importance, nullptr, [&](int64_t row, const uint8_t* bytes) {
    loops().decode(layout.type, bytes, columns / layout.weights, element, to + row * bytes_of_row);
  }));
}

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

at::Tensor count_meta(const at::Tensor& weight) { return at::empty({}, weight.options().dtype(at::kLong)); }

Encoded gguf_quantize_meta(const at::Tensor& weight, int64_t type, const Importance& importance) {
  const BlockLayout& layout = check_gguf_quantize(weight, type, importance);
  return {at::empty_symint({weight.sym_size(0), weight.sym_size(1) / layout.weights * layout.bytes},
                           weight.options().dtype(at::kByte)),
          count_meta(weight)};
}

at::Tensor gguf_fake_quantize_meta(const at::Tensor& weight, int64_t type, const Importance& importance,
                                   at::Tensor& out) {
  check_gguf_fake_quantize(weight, type, importance, out);
  return count_meta(weight);
}

at::Tensor gguf_dequantize_meta(const at::Tensor& data, int64_t type, c10::SymInt columns, at::ScalarType dtype) {
  check_gguf_dequantize(data, type, columns, dtype);
  return at::empty_symint({data.sym_size(0), columns}, data.options().dtype(dtype));
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> gguf_quantize(const at::Tensor& weight, int64_t type,
                                                 const std::optional<at::Tensor>& importance) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::gguf_quantize", "")
                             .typed<Encoded(const at::Tensor&, int64_t, const std::optional<at::Tensor>&)>();
  return op.call(weight, type, importance);
}

at::Tensor gguf_fake_quantize(const at::Tensor& weight, int64_t type, const std::optional<at::Tensor>& importance,
                              at::Tensor& out) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("hemostat::gguf_fake_quantize", "")
          .typed<at::Tensor(const at::Tensor&, int64_t, const std::optional<at::Tensor>&, at::Tensor&)>();
  return op.call(weight, type, importance, out);
}

at::Tensor gguf_dequantize(const at::Tensor& data, int64_t type, int64_t columns, at::ScalarType dtype) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hemostat::gguf_dequantize", "")
                             .typed<at::Tensor(const at::Tensor&, int64_t, c10::SymInt, at::ScalarType)>();
  return op.call(data, type, columns, dtype);
}

}  // namespace hemostat::kernels

TORCH_LIBRARY_FRAGMENT(hemostat, m) {
  hemostat::kernels::define(
      m, "gguf_quantize(Tensor weight, int type, Tensor? importance) -> (Tensor data, Tensor invalid)");
  hemostat::kernels::define(
      m, "gguf_fake_quantize(Tensor weight, int type, Tensor? importance, *, Tensor(a!) out) -> Tensor");
  hemostat::kernels::define(m, "gguf_dequantize(Tensor data, int type, SymInt columns, ScalarType dtype) -> Tensor");
}

TORCH_LIBRARY_IMPL(hemostat, CPU, m) {
  m.impl("gguf_quantize", hemostat::kernels::gguf_quantize_cpu);
  m.impl("gguf_fake_quantize", hemostat::kernels::gguf_fake_quantize_cpu);
  m.impl("gguf_dequantize", hemostat::kernels::gguf_dequantize_cpu);
}

TORCH_LIBRARY_IMPL(hemostat, Meta, m) {
  m.impl("gguf_quantize", hemostat::kernels::gguf_quantize_meta);
  m.impl("gguf_fake_quantize", hemostat::kernels::gguf_fake_quantize_meta);
  m.impl("gguf_dequantize", hemostat::kernels::gguf_dequantize_meta);
}
