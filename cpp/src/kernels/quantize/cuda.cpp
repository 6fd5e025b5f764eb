// Registration of the CUDA kernels of `quantize`. See kernels/cuda.h.
#include <cstdint>
#include <tuple>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include "kernels/cuda.h"
#include "kernels/quantize/arguments.h"
#include "kernels/quantize/quantize.h"

namespace hemostat::kernels::cuda {
namespace {

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

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  m.impl("fake_quantize", hemostat::kernels::cuda::fake_quantize_cuda);
  m.impl("quantize", hemostat::kernels::cuda::quantize_cuda);
  m.impl("search_clip", hemostat::kernels::cuda::search_clip_cuda);
}
