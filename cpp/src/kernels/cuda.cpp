// Registration of the CUDA kernels: checks, memory, the current stream, and a call of a launcher. Nothing here needs
// the CUDA runtime: the device is guarded, and its stream and memory are found, through c10.
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include "kernels/arguments.h"
#include "kernels/launchers.h"

namespace hemostat::kernels::cuda {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// The device of a call's tensors made current, its current stream, and the count of invalid entries.
class Call {
 public:
  Call(const char* op, const at::Tensor& tensor)
      : op_(op),
        guard_(tensor.device()),
        stream_(c10::impl::VirtualGuardImpl(tensor.device().type()).getStream(tensor.device()).native_handle()),
        options_(tensor.options()) {}

  void* stream() const { return stream_; }

  at::Tensor zero_count() const { return at::zeros({}, options_.dtype(at::kLong)); }
  at::Tensor bytes(int64_t count) const { return at::empty({count}, options_.dtype(at::kByte)); }

  void check(Error error) const { TORCH_CHECK(error == nullptr, "hemostat::", op_, ": ", error); }

 private:
  const char* op_;
  c10::DeviceGuard guard_;
  void* stream_;
  at::TensorOptions options_;
};

// The kernels read rows without gaps; PyTorch's own copy transposes faster than reading across rows would be.
at::Tensor with_dense_rows(const at::Tensor& matrix) {
  return matrix.stride(1) == 1 || matrix.size(1) == 1 ? matrix : matrix.contiguous();
}

// Scores as the kernels see them, and the memory that they point into.
struct Held {
  Held(const at::Tensor& score, const OptionalTensor& column_scale, bool absolute)
      : dense(with_dense_rows(score)),
        scale(column_scale.has_value() ? column_scale->contiguous() : at::Tensor()),
        scores{matrix_of(dense), scale.defined() ? scale.const_data_ptr<float>() : nullptr, absolute} {}
  at::Tensor dense, scale;
  Scores scores;
};

Scores row_of(Scores scores, int64_t row, int64_t element_size) {
  scores.matrix.data = static_cast<const char*>(scores.matrix.data) + row * scores.matrix.row_stride * element_size;
  scores.matrix.rows = 1;
  return scores;
}

at::Tensor mask_smallest_cuda(const at::Tensor& score, const OptionalTensor& column_scale, int64_t removed,
                              bool per_row, bool absolute, at::Tensor& out) {
  check_mask_smallest(score, column_scale, removed, per_row, out);
  const Call call("mask_smallest", score);
  const at::Tensor invalid = call.zero_count();
  if (score.numel() == 0) return invalid;
  const Held held(score, column_scale, absolute);
  const int64_t rows = score.size(0), columns = score.size(1);
  bool* kept = out.mutable_data_ptr<bool>();
  auto* count = invalid.mutable_data_ptr<int64_t>();
  // A row of its own is better spread over all blocks, and a longer one than int32 counts has to be.
  if (per_row && rows > 1 && columns <= std::numeric_limits<int32_t>::max()) {
    call.check(mask_rows(held.scores, removed, kept, count, call.stream()));
    return invalid;
  }
  const at::Tensor scratch = call.bytes(mask_tensor_scratch(per_row ? columns : rows * columns));
  if (!per_row) {
    call.check(mask_tensor(held.scores, removed, kept, scratch.mutable_data_ptr(), count, call.stream()));
    return invalid;
  }
  for (int64_t row = 0; row < rows; ++row) {
    call.check(mask_tensor(row_of(held.scores, row, score.element_size()), removed, kept + row * columns,
                           scratch.mutable_data_ptr(), count, call.stream()));
  }
  return invalid;
}

at::Tensor mask_pattern_cuda(const at::Tensor& score, const OptionalTensor& column_scale, int64_t n, int64_t m,
                             bool absolute, at::Tensor& out) {
  check_mask_pattern(score, column_scale, n, m, out);
  const Call call("mask_pattern", score);
  const at::Tensor invalid = call.zero_count();
  if (score.numel() == 0) return invalid;
  const Held held(score, column_scale, absolute);
  call.check(
      mask_groups(held.scores, n, m, out.mutable_data_ptr<bool>(), invalid.mutable_data_ptr<int64_t>(), call.stream()));
  return invalid;
}

at::Tensor kept_until_cuda(const at::Tensor& score, const OptionalTensor& column_scale, bool per_row, bool absolute,
                           at::Tensor& out) {
  check_kept_until(score, column_scale, per_row, out);
  const Call call("kept_until", score);
  const at::Tensor invalid = call.zero_count();
  if (score.numel() == 0) return invalid;
  const Held held(score, column_scale, absolute);
  const at::Tensor scratch = call.bytes(kept_until_scratch(score.size(0), score.size(1), per_row));
  call.check(kept_until(held.scores, per_row, out.scalar_type() == at::kDouble, out.mutable_data_ptr(),
                        scratch.mutable_data_ptr(), invalid.mutable_data_ptr<int64_t>(), call.stream()));
  return invalid;
}

// Groups, or one group for the whole tensor.
at::Tensor launch_rounding(const Call& call, const at::Tensor& weight, Grid grid, Rounded out) {
  const at::Tensor invalid = call.zero_count();
  if (weight.numel() == 0) return invalid;
  const at::Tensor dense = with_dense_rows(weight);
  auto* count = invalid.mutable_data_ptr<int64_t>();
  grid.limit = limit_of(matrix_of(dense).element);
  if (grid.group_size > 0 && grid.group_size < weight.numel()) {
    call.check(round_groups(matrix_of(dense), grid, out, count, call.stream()));
    return invalid;
  }
  const at::Tensor scratch = call.bytes(kRoundAllScratch);
  call.check(round_all(matrix_of(dense), grid, out, scratch.mutable_data_ptr(), count, call.stream()));
  return invalid;
}

at::Tensor fake_quantize_cuda(const at::Tensor& weight, int64_t levels, int64_t group_size, bool symmetric,
                              at::Tensor& out) {
  check_fake_quantize(weight, levels, group_size, out);
  const Call call("fake_quantize", weight);
  return launch_rounding(call, weight, {levels, group_size, symmetric},
                         {out.mutable_data_ptr(), nullptr, nullptr, nullptr});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> quantize_cuda(const at::Tensor& weight, int64_t levels,
                                                                         int64_t group_size, bool symmetric) {
  check_quantize(weight, levels, group_size);
  const Call call("quantize", weight);
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const bool one_group = group_size == 0;
  const at::Tensor codes = at::empty({rows, columns}, weight.options().dtype(at::kByte));
  const at::Tensor scale =
      at::ones({one_group ? 1 : rows, one_group ? 1 : columns / group_size}, weight.options().dtype(at::kFloat));
  const at::Tensor zero = at::zeros_like(scale);
  const at::Tensor invalid = launch_rounding(
      call, weight, {levels, group_size, symmetric},
      {nullptr, codes.mutable_data_ptr<uint8_t>(), scale.mutable_data_ptr<float>(), zero.mutable_data_ptr<float>()});
  return {codes, scale, zero, invalid};
}

void solve_columns_cuda(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                        const OptionalTensor& mask, int64_t n, int64_t m, const OptionalTensor& scale,
                        const OptionalTensor& zero, int64_t group_size, int64_t first, int64_t levels,
                        at::Tensor& solution, at::Tensor& error) {
  check_solve_columns(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error);
  if (current.numel() == 0) return;
  const Call call("solve_columns", current);
  call.check(solve_columns(
      column_block(current, weight, inverse, mask, n, m, scale, zero, group_size, first, levels, solution, error),
      call.stream()));
}

// Blocks as bytes, and what cannot be stored.
std::tuple<at::Tensor, at::Tensor> encode(const Call& call, const at::Tensor& weight, const BlockLayout& layout,
                                          const OptionalTensor& importance) {
  const int64_t rows = weight.size(0), columns = weight.size(1);
  const at::Tensor data = at::empty({rows, columns / layout.weights * layout.bytes}, weight.options().dtype(at::kByte));
  const at::Tensor invalid = call.zero_count();
  if (weight.numel() == 0) return {data, invalid};
  const at::Tensor values = weight.to(at::kFloat).contiguous();
  const at::Tensor weights = importance.has_value() ? importance->contiguous() : at::Tensor();
  call.check(gguf_quantize(values.const_data_ptr<float>(),
                           weights.defined() ? weights.const_data_ptr<float>() : nullptr, layout.type, rows, columns,
                           data.mutable_data_ptr<uint8_t>(), invalid.mutable_data_ptr<int64_t>(), call.stream()));
  return {data, invalid};
}

std::tuple<at::Tensor, at::Tensor> gguf_quantize_cuda(const at::Tensor& weight, int64_t type,
                                                      const OptionalTensor& importance) {
  const BlockLayout& layout = check_gguf_quantize(weight, type, importance);
  return encode(Call("gguf_quantize", weight), weight, layout, importance);
}

at::Tensor gguf_fake_quantize_cuda(const at::Tensor& weight, int64_t type, const OptionalTensor& importance,
                                   at::Tensor& out) {
  const BlockLayout& layout = check_gguf_fake_quantize(weight, type, importance, out);
  const Call call("gguf_fake_quantize", weight);
  const auto [data, invalid] = encode(call, weight, layout, importance);
  if (weight.numel() > 0) {
    call.check(gguf_dequantize(data.const_data_ptr<uint8_t>(), layout.type, out.numel() / layout.weights,
                               matrix_of(out).element, out.mutable_data_ptr(), call.stream()));
  }
  return invalid;
}

at::Tensor gguf_dequantize_cuda(const at::Tensor& data, int64_t type, int64_t columns, at::ScalarType dtype) {
  const BlockLayout& layout = check_gguf_dequantize(data, type, columns, dtype);
  const Call call("gguf_dequantize", data);
  const at::Tensor out = at::empty({data.size(0), columns}, data.options().dtype(dtype));
  if (out.numel() == 0) return out;
  const at::Tensor dense = data.contiguous();
  call.check(gguf_dequantize(dense.const_data_ptr<uint8_t>(), layout.type, out.numel() / layout.weights,
                             matrix_of(out).element, out.mutable_data_ptr(), call.stream()));
  return out;
}

MomentTensors column_moments_cuda(const at::Tensor& x) {
  check_column_moments(x);
  const Call call("column_moments", x);
  const at::Tensor dense = with_dense_rows(x);
  const MomentTensors parts = empty_moments(dense);
  const auto& [squares, magnitudes, largest] = parts;
  if (x.numel() > 0) {
    call.check(column_moments(
        matrix_of(dense),
        {squares.mutable_data_ptr<double>(), magnitudes.mutable_data_ptr<double>(), largest.mutable_data_ptr<float>()},
        call.stream()));
  }
  return merged(parts);
}

void bit_faults_cuda(at::Tensor& values, double rate, int64_t seed, int64_t first_bit, int64_t bits, int64_t fault) {
  check_bit_faults(values, rate, first_bit, bits, fault);
  if (values.numel() == 0 || rate == 0.0) return;
  const Call call("bit_faults_", values);
  call.check(bit_faults(values.mutable_data_ptr(), static_cast<int64_t>(values.nbytes()),
                        fault_kind(values, first_bit, bits, fault), fault_rate(rate, seed), call.stream()));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> search_clip_cuda(const at::Tensor& weight, int64_t levels,
                                                                int64_t group_size, bool symmetric) {
  check_search_clip(weight, levels, group_size);
  const Call call("search_clip", weight);
  const bool one_group = group_size == 0;
  const at::Tensor scale = at::ones({one_group ? 1 : weight.size(0), one_group ? 1 : weight.size(1) / group_size},
                                    weight.options().dtype(at::kFloat));
  const at::Tensor zero = at::zeros_like(scale), invalid = call.zero_count();
  if (weight.numel() == 0) return {scale, zero, invalid};
  const at::Tensor dense = with_dense_rows(weight);
  const Grid grid{levels, group_size, symmetric};
  auto *scales = scale.mutable_data_ptr<float>(), *zeros = zero.mutable_data_ptr<float>();
  auto* count = invalid.mutable_data_ptr<int64_t>();
  if (!one_group) {
    call.check(search_groups(matrix_of(dense), grid, scales, zeros, count, call.stream()));
    return {scale, zero, invalid};
  }
  const at::Tensor scratch = call.bytes(kSearchAllScratch);
  call.check(search_all(matrix_of(dense), grid, scales, zeros, scratch.mutable_data_ptr(), count, call.stream()));
  return {scale, zero, invalid};
}

at::Tensor launch_block_float(const Call& call, const at::Tensor& weight, BlockElement element, int64_t block_size,
                              BlockRounded out) {
  const at::Tensor invalid = call.zero_count();
  const at::Tensor dense = with_dense_rows(weight);
  const at::Tensor scratch = call.bytes(block_float_scratch(weight.size(0)));
  call.check(block_float(matrix_of(dense), element, block_size, out, scratch.mutable_data_ptr(),
                         invalid.mutable_data_ptr<int64_t>(), call.stream()));
  return invalid;
}

at::Tensor block_float_cuda(const at::Tensor& weight, std::string_view format, int64_t block_size, at::Tensor& out) {
  const BlockElement element = check_block_float("block_float", weight, format, block_size);
  check_block_float_out(weight, out);
  const Call call("block_float", weight);
  if (weight.numel() == 0) return call.zero_count();
  return launch_block_float(call, weight, element, block_size,
                            {out.mutable_data_ptr(), nullptr, nullptr, nullptr, nullptr});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> block_float_encode_cuda(const at::Tensor& weight,
                                                                                   std::string_view format,
                                                                                   int64_t block_size) {
  const BlockElement element = check_block_float("block_float_encode", weight, format, block_size);
  const Call call("block_float_encode", weight);
  const int64_t rows = weight.size(0), columns = weight.size(1), per_byte = codes_per_byte(element);
  const bool byte = element == BlockElement::mxfp4 || element == BlockElement::nvfp4, one_block = block_size == 0;
  const at::Tensor codes = at::empty({rows, (columns + per_byte - 1) / per_byte}, weight.options().dtype(at::kByte));
  const at::Tensor scale = at::empty({one_block ? 1 : rows, one_block ? 1 : columns / block_size},
                                     weight.options().dtype(byte ? at::kByte : at::kFloat));
  const at::Tensor tensor_scale = at::ones({}, weight.options().dtype(at::kFloat));
  if (weight.numel() == 0) return {codes, scale.fill_(byte ? 0 : 1), tensor_scale, call.zero_count()};
  const at::Tensor unpacked = call.bytes(rows * columns);
  const at::Tensor invalid =
      launch_block_float(call, weight, element, block_size,
                         {nullptr, unpacked.mutable_data_ptr<uint8_t>(), codes.mutable_data_ptr<uint8_t>(),
                          scale.mutable_data_ptr(), tensor_scale.mutable_data_ptr<float>()});
  return {codes, scale, tensor_scale, invalid};
}

DivergenceTensors divergence_cuda(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits,
                                  const at::Tensor& targets, double damaged_scale) {
  check_divergence(baseline_logits, damaged_logits, targets, damaged_scale);
  const Call call("divergence", baseline_logits);
  DivergenceTensors result = empty_divergence(baseline_logits);
  if (baseline_logits.size(0) == 0) return result;
  const at::Tensor baseline = with_dense_rows(baseline_logits), damaged = with_dense_rows(damaged_logits);
  const at::Tensor target = targets.contiguous();
  call.check(divergence(matrix_of(baseline), matrix_of(damaged), target.const_data_ptr<int64_t>(),
                        static_cast<float>(damaged_scale), divergence_out(result), call.stream()));
  return result;
}

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  m.impl("mask_smallest", hemostat::kernels::cuda::mask_smallest_cuda);
  m.impl("mask_pattern", hemostat::kernels::cuda::mask_pattern_cuda);
  m.impl("kept_until", hemostat::kernels::cuda::kept_until_cuda);
  m.impl("fake_quantize", hemostat::kernels::cuda::fake_quantize_cuda);
  m.impl("quantize", hemostat::kernels::cuda::quantize_cuda);
  m.impl("solve_columns", hemostat::kernels::cuda::solve_columns_cuda);
  m.impl("gguf_quantize", hemostat::kernels::cuda::gguf_quantize_cuda);
  m.impl("gguf_fake_quantize", hemostat::kernels::cuda::gguf_fake_quantize_cuda);
  m.impl("gguf_dequantize", hemostat::kernels::cuda::gguf_dequantize_cuda);
  m.impl("column_moments", hemostat::kernels::cuda::column_moments_cuda);
  m.impl("bit_faults_", hemostat::kernels::cuda::bit_faults_cuda);
  m.impl("search_clip", hemostat::kernels::cuda::search_clip_cuda);
  m.impl("block_float", hemostat::kernels::cuda::block_float_cuda);
  m.impl("block_float_encode", hemostat::kernels::cuda::block_float_encode_cuda);
  m.impl("divergence", hemostat::kernels::cuda::divergence_cuda);
}
