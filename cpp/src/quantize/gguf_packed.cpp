#include <utility>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "kernels/gguf/gguf.h"

namespace hemostat::quantize {

namespace {

const kernels::BlockLayout& layout_of(GgufType type) {
  const kernels::BlockLayout* layout = kernels::find_layout(static_cast<int64_t>(type));
  if (layout == nullptr) {
    throw ValueError(fmt::format("hemostat.quantize: there is no GGUF type {}", static_cast<int64_t>(type)));
  }
  return *layout;
}

}  // namespace

std::vector<GgufType> gguf_types() {
  std::vector<GgufType> types;
  for (const kernels::BlockLayout& layout : kernels::kBlockLayouts) {
    types.push_back(static_cast<GgufType>(layout.type));
  }
  return types;
}

std::string gguf_name(GgufType type) { return layout_of(type).name; }

GgufType gguf_type_from_name(const std::string& name) {
  std::string known;
  for (const kernels::BlockLayout& layout : kernels::kBlockLayouts) {
    if (name == layout.name) {
      return static_cast<GgufType>(layout.type);
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", layout.name);
  }
  throw ValueError(fmt::format("hemostat.quantize.gguf: type is \"{}\", but must be one of {}", name, known));
}

std::optional<GgufType> gguf_type_from_number(int64_t ggml_type) {
  const kernels::BlockLayout* layout = kernels::find_layout(ggml_type);
  return layout == nullptr ? std::nullopt : std::optional(static_cast<GgufType>(layout->type));
}

int64_t gguf_block_size(GgufType type) { return layout_of(type).weights; }

int64_t gguf_block_bytes(GgufType type) { return layout_of(type).bytes; }

double gguf_bits_per_weight(GgufType type) {
  return 8.0 * static_cast<double>(gguf_block_bytes(type)) / static_cast<double>(gguf_block_size(type));
}

GgufPacked::GgufPacked(at::Tensor data, GgufType type, int64_t in_features, at::ScalarType dtype)
    : data_(std::move(data)), type_(type), in_features_(in_features), dtype_(dtype) {
  constexpr std::string_view kOperation = "hemostat.quantize.GgufPacked";
  const kernels::BlockLayout& layout = layout_of(type_);
  arguments::check_dense(kOperation, "data", data_);
  if (data_.scalar_type() != at::kByte) {
    throw TypeError(fmt::format("{}: data is {}, but must be uint8", kOperation, c10::toString(data_.scalar_type())));
  }
  if (dtype_ != at::kFloat && dtype_ != at::kBFloat16 && dtype_ != at::kHalf) {
    throw TypeError(
        fmt::format("{}: dtype is {}, but must be float32, bfloat16 or float16", kOperation, c10::toString(dtype_)));
  }
  if (in_features_ < 0 || in_features_ % layout.weights != 0) {
    throw ValueError(fmt::format("{}: in_features is {}, but {} has blocks of {} weights", kOperation, in_features_,
                                 layout.name, layout.weights));
  }
  const int64_t row_bytes = in_features_ / layout.weights * layout.bytes;
  if (data_.dim() != 2 || data_.size(1) != row_bytes) {
    throw ValueError(fmt::format("{}: data has shape {}, but must be [out_features, {}] for {} input features of {}",
                                 kOperation, arguments::shape(data_.sizes()), row_bytes, in_features_, layout.name));
  }
}

at::Tensor GgufPacked::dequantize() const {
  return kernels::gguf_dequantize(data_, static_cast<int64_t>(type_), in_features_, dtype_);
}

double GgufPacked::bits_per_weight() const { return gguf_bits_per_weight(type_); }

std::vector<int64_t> GgufPacked::sizes() const { return {data_.size(0), in_features_}; }

std::shared_ptr<const PackedWeight> GgufPacked::to(c10::Device device) const {
  return std::make_shared<GgufPacked>(data_.to(device), type_, in_features_, dtype_);
}

}  // namespace hemostat::quantize
