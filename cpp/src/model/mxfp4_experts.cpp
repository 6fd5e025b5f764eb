#include "mxfp4_experts.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/quantize.h>

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
  const int64_t experts = blocks.size(0), rows = blocks.size(1), columns = blocks.size(2) * kBlock;
  at::Tensor result = at::empty({experts, rows, columns}, at::kBFloat16);
  for (int64_t expert = 0; expert < experts; ++expert) {
    check_interrupt();
    const quantize::BlockPacked packed(quantize::Format::mxfp4, blocks[expert].flatten(1),
                                       scales[expert].view(at::kFloat8_e8m0fnu), /*tensor_scale=*/{}, columns, kBlock,
                                       at::kBFloat16);
    result[expert].copy_(packed.dequantize());
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
