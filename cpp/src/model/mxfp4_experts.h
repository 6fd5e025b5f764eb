// The experts of gpt-oss as their first checkpoints store them: MXFP4 (OCP Microscaling Formats 1.0), blocks of 32.
#pragma once

#include <map>
#include <string>

#include <ATen/core/Tensor.h>

namespace hemostat {

// Each pair X_blocks uint8 [experts, out, in / 32, 16] (the first of two values in the low half) and X_scales uint8
// [experts, out, in / 32] (exponents + 127) becomes X bfloat16 [experts, in, out], exactly. ValueError for a pair that
// does not fit together.
std::map<std::string, at::Tensor> with_mxfp4_dequantized(std::map<std::string, at::Tensor> tensors);

}  // namespace hemostat
