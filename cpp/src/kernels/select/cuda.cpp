// Registration of the CUDA kernels of `select`. See kernels/cuda.h.
#include <cstdint>
#include <limits>
#include <optional>

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include "kernels/cuda.h"
#include "kernels/select/arguments.h"
#include "kernels/select/select.h"

namespace hemostat::kernels::cuda {
namespace {

// Scores as the kernels see them, and the memory that they point into.
struct Held {
  Held(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, bool absolute)
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

at::Tensor mask_smallest_cuda(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, int64_t removed,
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

at::Tensor mask_pattern_cuda(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, int64_t n,
                             int64_t m, bool absolute, at::Tensor& out) {
  check_mask_pattern(score, column_scale, n, m, out);
  const Call call("mask_pattern", score);
  const at::Tensor invalid = call.zero_count();
  if (score.numel() == 0) return invalid;
  const Held held(score, column_scale, absolute);
  call.check(
      mask_groups(held.scores, n, m, out.mutable_data_ptr<bool>(), invalid.mutable_data_ptr<int64_t>(), call.stream()));
  return invalid;
}

at::Tensor kept_until_cuda(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, bool per_row,
                           bool absolute, at::Tensor& out) {
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

}  // namespace
}  // namespace hemostat::kernels::cuda

TORCH_LIBRARY_IMPL(hemostat, CUDA, m) {
  m.impl("mask_smallest", hemostat::kernels::cuda::mask_smallest_cuda);
  m.impl("mask_pattern", hemostat::kernels::cuda::mask_pattern_cuda);
  m.impl("kept_until", hemostat::kernels::cuda::kept_until_cuda);
}
