// Arguments of `gguf`, as kernels/arguments.h has them for all kernels.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "kernels/arguments.h"
#include "kernels/gguf/gguf.h"

namespace hemostat::kernels {

const BlockLayout& check_gguf_quantize(const at::Tensor& weight, int64_t type,
                                       const std::optional<at::Tensor>& importance);
const BlockLayout& check_gguf_fake_quantize(const at::Tensor& weight, int64_t type,
                                            const std::optional<at::Tensor>& importance, const at::Tensor& out);
const BlockLayout& check_gguf_dequantize(const at::Tensor& data, int64_t type, const c10::SymInt& columns,
                                         at::ScalarType dtype);

}  // namespace hemostat::kernels
