#include "kernels/arguments.h"

#include <ATen/MemoryOverlap.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

namespace hemostat::kernels {

// c10's errors, because torch.ops turns no others into Python's ValueError and TypeError.
void value_error(std::string_view op, const std::string& what) {
  C10_THROW_ERROR(ValueError, fmt::format("hemostat.kernels.{}: {}", op, what));
}

void type_error(std::string_view op, const std::string& what) {
  C10_THROW_ERROR(TypeError, fmt::format("hemostat.kernels.{}: {}", op, what));
}

std::string shape_of(const at::Tensor& tensor) { return c10::str(tensor.sym_sizes()); }

void check_matrix(std::string_view op, std::string_view name, const at::Tensor& tensor) {
  if (tensor.dim() != 2) {
    value_error(op, fmt::format("{} has shape {}, but takes [rows, columns]", name, shape_of(tensor)));
  }
  const auto dtype = tensor.scalar_type();
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    type_error(op, fmt::format("{} is {}, but takes float32, bfloat16 or float16", name, c10::toString(dtype)));
  }
  if (tensor.layout() != at::kStrided) type_error(op, fmt::format("{} is sparse, but takes a dense tensor", name));
}

void check_same_device(std::string_view op, const at::Tensor& first, std::string_view first_name,
                       const at::Tensor& second, std::string_view second_name) {
  if (first.device() != second.device()) {
    value_error(op, fmt::format("{} is on {}, but {} is on {}", first_name, first.device().str(), second_name,
                                second.device().str()));
  }
}

void check_column_scale(std::string_view op, const at::Tensor& score, const std::optional<at::Tensor>& column_scale) {
  if (!column_scale.has_value()) return;
  if (column_scale->dim() != 1 || column_scale->sym_size(0) != score.sym_size(1)) {
    value_error(op, fmt::format("column_scale has shape {}, but score has shape {} and takes one entry a column",
                                shape_of(*column_scale), shape_of(score)));
  }
  if (column_scale->scalar_type() != at::kFloat) {
    type_error(op, fmt::format("column_scale is {}, but takes float32", c10::toString(column_scale->scalar_type())));
  }
  check_same_device(op, *column_scale, "column_scale", score, "score");
}

void check_out(std::string_view op, const at::Tensor& like, std::string_view like_name, const at::Tensor& out,
               bool in_place) {
  if (out.sym_sizes() != like.sym_sizes()) {
    value_error(op, fmt::format("out has shape {}, but {} has shape {}", shape_of(out), like_name, shape_of(like)));
  }
  if (!out.is_contiguous()) value_error(op, "out is not contiguous");
  check_same_device(op, out, "out", like, like_name);
  // Tensors that are being traced have no memory to overlap in.
  if (like.is_meta() || !like.has_storage() || out.sym_numel() == 0) return;
  const auto overlap = at::get_overlap_status(like, out);
  if (overlap == at::MemOverlapStatus::No || (overlap == at::MemOverlapStatus::Full && in_place)) return;
  if (overlap == at::MemOverlapStatus::TooHard && !out.is_alias_of(like)) return;
  value_error(op, fmt::format("out overlaps {} in memory", like_name));
}

Matrix matrix_of(const at::Tensor& tensor) {
  const auto dtype = tensor.scalar_type();
  const Element element = dtype == at::kFloat      ? Element::float32
                          : dtype == at::kBFloat16 ? Element::bfloat16
                                                   : Element::float16;
  return {tensor.const_data_ptr(), element, tensor.size(0), tensor.size(1), tensor.stride(0), tensor.stride(1)};
}

}  // namespace hemostat::kernels
