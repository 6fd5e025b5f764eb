// Registration of the CUDA kernels of `gguf`. See kernels/cuda.h.
#include <cstdint>
#include <optional>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "kernels/cuda.h"
#include "kernels/gguf/arguments.h"
#include "kernels/gguf/gguf.h"

namespace hemostat::kernels::cuda {
namespace {

// Blocks as bytes, and what cannot be stored.
std::tuple<at::Tensor, at::Tensor> encode(const Call& call, const at::Tensor& weight, const BlockLayout& layout,
                                          const std::optional<at::Tensor>& importance) {
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
                                                      const std::optional<at::Tensor>& importance) {
  const BlockLayout& layout = check_gguf_quantize(weight, type, importance);
  return encode(Call("gguf_quantize", weight), weight, layout, importance);
}

at::Tensor gguf_fake_quantize_cuda(const at::Tensor& weight, int64_t type, const std::optional<at::Tensor>& importance,
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

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  m.impl("gguf_quantize", hemostat::kernels::cuda::gguf_quantize_cuda);
  m.impl("gguf_fake_quantize", hemostat::kernels::cuda::gguf_fake_quantize_cuda);
  m.impl("gguf_dequantize", hemostat::kernels::cuda::gguf_dequantize_cuda);
}
