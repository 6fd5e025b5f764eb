// Arguments of the registered kernels: the checks that the CPU, CUDA and Meta implementations of an operator share
// (shapes, dtypes, devices, scalars; nothing that reads data), and tensors as the Torch-free loops see them.
// Sizes are SymInt, so that torch.compile may trace with sizes that it leaves open.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include <ATen/core/Tensor.h>

#include "kernels/bit_faults/bit_faults.h"
#include "kernels/block_float/block_float.h"
#include "kernels/divergence/divergence.h"
#include "kernels/gguf/gguf.h"
#include "kernels/matrix.h"
#include "kernels/solve_columns/solve_columns.h"

namespace hemostat::kernels {

// One per operator; each is defined beside its schema.
void check_mask_smallest(const at::Tensor& score, const std::optional<at::Tensor>& column_scale,
                         const c10::SymInt& removed, bool per_row, const at::Tensor& out);
void check_mask_pattern(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, const c10::SymInt& n,
                        const c10::SymInt& m, const at::Tensor& out);
void check_kept_until(const at::Tensor& score, const std::optional<at::Tensor>& column_scale, bool per_row,
                      const at::Tensor& out);
void check_fake_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size,
                         const at::Tensor& out);
void check_quantize(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size);
void check_solve_columns(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, const c10::SymInt& n, const c10::SymInt& m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         const c10::SymInt& group_size, const c10::SymInt& first, const c10::SymInt& levels,
                         const at::Tensor& solution, const at::Tensor& error);
const BlockLayout& check_gguf_quantize(const at::Tensor& weight, int64_t type,
                                       const std::optional<at::Tensor>& importance);
const BlockLayout& check_gguf_fake_quantize(const at::Tensor& weight, int64_t type,
                                            const std::optional<at::Tensor>& importance, const at::Tensor& out);
const BlockLayout& check_gguf_dequantize(const at::Tensor& data, int64_t type, const c10::SymInt& columns,
                                         at::ScalarType dtype);
void check_column_moments(const at::Tensor& x);
void check_bit_faults(const at::Tensor& values, double rate, const c10::SymInt& first_bit, const c10::SymInt& bits,
                      const c10::SymInt& fault);
void check_search_clip(const at::Tensor& weight, const c10::SymInt& levels, const c10::SymInt& group_size);
BlockElement check_block_float(std::string_view op, const at::Tensor& weight, std::string_view format,
                               const c10::SymInt& block_size);
void check_block_float_out(const at::Tensor& weight, const at::Tensor& out);
void check_divergence(const at::Tensor& baseline_logits, const at::Tensor& damaged_logits, const at::Tensor& targets,
                      double damaged_scale);

// What `divergence` returns, in the order of DivergenceOut, on the device of the logits; and where to write it.
using DivergenceTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
                                     at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
DivergenceTensors empty_divergence(const at::Tensor& baseline_logits);
DivergenceOut divergence_out(DivergenceTensors& tensors);

// Of checked arguments.
ColumnBlock column_block(const at::Tensor& current, const at::Tensor& weight, const at::Tensor& inverse,
                         const std::optional<at::Tensor>& mask, int64_t n, int64_t m,
                         const std::optional<at::Tensor>& scale, const std::optional<at::Tensor>& zero,
                         int64_t group_size, int64_t first, int64_t levels, at::Tensor& solution, at::Tensor& error);

// What `column_moments` returns; and its parts, [parts, columns] on the device of x, before they are merged.
using MomentTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
MomentTensors empty_moments(const at::Tensor& x);
MomentTensors merged(const MomentTensors& parts);

// The draws of a rate and a seed, and the bits of a checked tensor that take them.
FaultRate fault_rate(double rate, int64_t seed);
FaultKind fault_kind(const at::Tensor& values, int64_t first_bit, int64_t bits, int64_t fault);

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
