// Arguments of the registered kernels: the checks that the CPU, CUDA and Meta implementations of an operator share
// (shapes, dtypes, devices, scalars; nothing that reads data), and tensors as the Torch-free loops see them. Those of
// one kernel are in its folder: a check_<operator> for each, defined beside its schema.
// Sizes are SymInt, so that torch.compile may trace with sizes that it leaves open.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "kernels/matrix.h"

namespace hemostat::kernels {

// "hemostat.kernels.mask_smallest: score …": throws ValueError, TypeError.
void check_matrix(std::string_view op, std::string_view name, const at::Tensor& tensor);
void check_column_scale(std::string_view op, const at::Tensor& score, const std::optional<at::Tensor>& column_scale);
// `out` is contiguous, has the shape and device of `like`, and overlaps it either not at all or, where `in_place` is
// allowed, entirely.
void check_out(std::string_view op, const at::Tensor& like, std::string_view like_name, const at::Tensor& out,
               bool in_place);
void check_same_device(std::string_view op, const at::Tensor& first, std::string_view first_name,
                       const at::Tensor& second, std::string_view second_name);

[[noreturn]] void value_error(std::string_view op, const std::string& what);
[[noreturn]] void type_error(std::string_view op, const std::string& what);
std::string shape_of(const at::Tensor& tensor);

// Of a checked [rows, columns] tensor.
Matrix matrix_of(const at::Tensor& tensor);

}  // namespace hemostat::kernels
