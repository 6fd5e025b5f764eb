// Registration of the CUDA kernels of `block_float`. See kernels/cuda.h.
#include <cstdint>
#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <torch/library.h>

#include "kernels/block_float/arguments.h"
#include "kernels/block_float/block_float.h"
#include "kernels/cuda.h"

namespace hemostat::kernels::cuda {
namespace {

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

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  m.impl("block_float", hemostat::kernels::cuda::block_float_cuda);
  m.impl("block_float_encode", hemostat::kernels::cuda::block_float_encode_cuda);
}
