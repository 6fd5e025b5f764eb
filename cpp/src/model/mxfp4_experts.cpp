#include "mxfp4_experts.h"

#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/ldexp.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

namespace hemostat {
namespace {

constexpr int64_t kBlock = 32;

at::Tensor dequantized(const std::string& name, const at::Tensor& blocks, const at::Tensor& scales) {
  const bool fits = blocks.scalar_type() == at::kByte && scales.scalar_type() == at::kByte && blocks.dim() == 4 &&
                    blocks.size(3) == kBlock / 2 && scales.sizes() == blocks.sizes().slice(0, 3);
  if (!fits) {
    throw ValueError(
        fmt::format("hemostat.Model.load: tensors '{0}_blocks' [{1}] and '{0}_scales' [{2}] are no MXFP4 "
                    "weights",
                    name, fmt::join(blocks.sizes(), ", "), fmt::join(scales.sizes(), ", ")));
  }
  static const at::Tensor kValues =
      at::tensor({0.f, .5f, 1.f, 1.5f, 2.f, 3.f, 4.f, 6.f, -0.f, -.5f, -1.f, -1.5f, -2.f, -3.f, -4.f, -6.f});
  const int64_t experts = blocks.size(0), rows = blocks.size(1), columns = blocks.size(2) * kBlock;
  at::Tensor result = at::empty({experts, rows, columns}, at::kBFloat16);
  for (int64_t expert = 0; expert < experts; ++expert) {
    check_interrupt();
    const at::Tensor own = blocks[expert];
    const at::Tensor codes = at::stack({at::bitwise_and(own, 15), at::bitwise_right_shift(own, 4)}, -1);
    const at::Tensor values = kValues.index_select(0, codes.flatten().to(at::kInt)).view({rows, -1, kBlock});
    const at::Tensor exponents = (scales[expert].to(at::kInt) - 127).unsqueeze(-1);
    result[expert].copy_(at::ldexp(values, exponents).view({rows, columns}));
  }
  return result.transpose(1, 2);
}

}  // namespace

std::map<std::string, at::Tensor> with_mxfp4_dequantized(std::map<std::string, at::Tensor> tensors) {
  const std::string kBlocks = "_blocks";
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, tensor] : tensors) {
    const std::string owner = name.substr(0, name.rfind('_'));
    const auto scales = tensors.find(owner + "_scales");
    if (name.ends_with(kBlocks) && scales != tensors.end()) {
      result.emplace(owner, dequantized(owner, tensor, scales->second));
    } else if (!name.ends_with("_scales") || tensors.count(owner + kBlocks) == 0) {
      result.emplace(name, tensor);
    }
  }
  return result;
}

}  // namespace hemostat
