#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "groups.h"
#include "kernels/block_float/block_float.h"
#include "straight_through.h"

namespace hemostat::quantize {

namespace {

constexpr std::array<std::string_view, 7> kNames = {"nf4", "fp4", "fp8_e4m3", "fp8_e5m2", "mxfp4", "nvfp4", "ternary"};

// A format's storage, beside its codes.
struct Storage {
  std::vector<float> values;  // of each code; empty for fp8
  int64_t per_byte;
  bool high_first;  // of two in a byte
};

std::vector<float> values_of(const kernels::block_elements::Codebook& book) {
  std::vector<float> values(16);
  for (size_t i = 0; i < values.size(); ++i) {
    values[static_cast<size_t>(book.codes[i])] = book.values[i];
  }
  return values;
}

Storage storage_of(Format format) {
  switch (format) {
    case Format::nf4:
      return {values_of(kernels::block_elements::nf4_codebook()), 2, true};
    case Format::fp4:
      return {values_of(kernels::block_elements::fp4_codebook()), 2, true};
    case Format::mxfp4:
    case Format::nvfp4: {
      std::vector<float> values;
      for (const float sign : {1.0f, -1.0f}) {
        for (int32_t code = 0; code < 8; ++code) {
          values.push_back(sign * kernels::block_elements::E2m1::decode(code));
        }
      }
      return {values, 2, false};
    }
    case Format::ternary:
      return {{-1, 0, 1}, 5, false};
    default:
      return {{}, 1, false};
  }
}

// float32 [256, per byte]: what each byte of packed codes holds.
at::Tensor table_of(Format format, c10::Device device) {
  const Storage storage = storage_of(format);
  const auto base = static_cast<int64_t>(storage.values.size());
  std::vector<float> table;
  for (int64_t byte = 0; byte < 256; ++byte) {
    if (storage.high_first) {
      table.push_back(storage.values[static_cast<size_t>(byte / base)]);
      table.push_back(storage.values[static_cast<size_t>(byte % base)]);
      continue;
    }
    int64_t rest = byte;
    for (int64_t i = 0; i < storage.per_byte; ++i, rest /= base) {
      table.push_back(storage.values[static_cast<size_t>(rest % base)]);
    }
  }
  return at::tensor(table).view({256, storage.per_byte}).to(device);
}

bool is_fp8(Format format) { return format == Format::fp8_e4m3 || format == Format::fp8_e5m2; }

kernels::BlockFormat kernel_format(Format format) { return static_cast<kernels::BlockFormat>(format); }

// Scales, and fp8's codes, under the dtype whose bits they are.
at::Tensor typed_scale(Format format, const at::Tensor& scale) {
  return format == Format::mxfp4   ? scale.view(at::kFloat8_e8m0fnu)
         : format == Format::nvfp4 ? scale.view(at::kFloat8_e4m3fn)
                                   : scale;
}

at::Tensor typed_codes(Format format, const at::Tensor& codes) {
  return format == Format::fp8_e4m3   ? codes.view(at::kFloat8_e4m3fn)
         : format == Format::fp8_e5m2 ? codes.view(at::kFloat8_e5m2)
                                      : codes;
}

at::Tensor rounded(std::string_view operation, const at::Tensor& weight, Format format, int64_t block_size,
                   const std::optional<at::Tensor>& to, bool check_finite) {
  const auto kernel = [&](const at::Tensor& values, at::Tensor& out) {
    return kernels::block_float(values, kernel_format(format), block_size, out);
  };
  return fake_quantized({.operation = operation,
                         .name = "weight",
                         .kernel = kernel,
                         .check = finite_check(operation, "weight", weight, check_finite)},
                        weight, to);
}

std::shared_ptr<BlockPacked> packed(std::string_view operation, const at::Tensor& weight, Format format,
                                    int64_t block_size, const std::optional<at::Tensor>& out, bool check_finite) {
  if (out) {
    throw ValueError(fmt::format("{}: out cannot be given with packed=True", operation));
  }
  const kernels::BlockFloat found = kernels::block_float_encode(weight.detach(), kernel_format(format), block_size);
  if (check_finite) {
    arguments::check_invalid(operation, "weight", found.invalid, "NaN or infinite");
  }
  return std::make_shared<BlockPacked>(format, typed_codes(format, found.codes), typed_scale(format, found.scale),
                                       format == Format::nvfp4 ? found.tensor_scale : at::Tensor(), weight.size(1),
                                       block_size, weight.scalar_type());
}

int64_t checked_block_size(std::string_view operation, const at::Tensor& weight, int64_t block_size) {
  arguments::check_matrix(operation, "weight", weight);
  check_range(operation, "block_size", block_size, at_least(1));
  if (weight.size(1) % block_size != 0) {
    throw ValueError(fmt::format("{}: block_size is {}, which does not divide weight's {} input features", operation,
                                 block_size, weight.size(1)));
  }
  return block_size;
}

// Of a format that has one block size and no other.
int64_t own_block_size(std::string_view operation, const at::Tensor& weight, int64_t block_size) {
  arguments::check_matrix(operation, "weight", weight);
  if (weight.size(1) % block_size != 0) {
    throw ValueError(fmt::format("{}: weight has {} input features, but the format has blocks of {}", operation,
                                 weight.size(1), block_size));
  }
  return block_size;
}

constexpr int64_t kMxBlock = 32, kNvBlock = 16;

Format format_of(Float8 format) { return format == Float8::e4m3 ? Format::fp8_e4m3 : Format::fp8_e5m2; }

// One block a row; of a weight without columns there are none.
int64_t row_block(std::string_view operation, const at::Tensor& weight) {
  arguments::check_matrix(operation, "weight", weight);
  return std::max<int64_t>(1, weight.size(1));
}

int64_t ternary_block(std::string_view operation, const at::Tensor& weight, int64_t group_size) {
  arguments::check_matrix(operation, "weight", weight);
  const int64_t entries = checked_group_size(operation, group_size, weight.size(1));
  return group_size == kPerRow ? std::max<int64_t>(1, entries) : entries;
}

constexpr std::string_view kNf4 = "hemostat.quantize.nf4", kFp4 = "hemostat.quantize.fp4",
                           kMxfp4 = "hemostat.quantize.mxfp4", kNvfp4 = "hemostat.quantize.nvfp4",
                           kFp8 = "hemostat.quantize.fp8", kTernary = "hemostat.quantize.ternary";

}  // namespace

std::string to_string(Format format) { return std::string(kNames.at(static_cast<size_t>(format))); }

at::Tensor nf4(const at::Tensor& weight, const BlockOptions& options) {
  const int64_t block = checked_block_size(kNf4, weight, options.block_size);
  return rounded(kNf4, weight, Format::nf4, block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> nf4_packed(const at::Tensor& weight, const BlockOptions& options) {
  const int64_t block = checked_block_size(kNf4, weight, options.block_size);
  return packed(kNf4, weight, Format::nf4, block, options.out, options.check_finite);
}

at::Tensor fp4(const at::Tensor& weight, const BlockOptions& options) {
  const int64_t block = checked_block_size(kFp4, weight, options.block_size);
  return rounded(kFp4, weight, Format::fp4, block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> fp4_packed(const at::Tensor& weight, const BlockOptions& options) {
  const int64_t block = checked_block_size(kFp4, weight, options.block_size);
  return packed(kFp4, weight, Format::fp4, block, options.out, options.check_finite);
}

at::Tensor mxfp4(const at::Tensor& weight, const FormatOptions& options) {
  const int64_t block = own_block_size(kMxfp4, weight, kMxBlock);
  return rounded(kMxfp4, weight, Format::mxfp4, block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> mxfp4_packed(const at::Tensor& weight, const FormatOptions& options) {
  const int64_t block = own_block_size(kMxfp4, weight, kMxBlock);
  return packed(kMxfp4, weight, Format::mxfp4, block, options.out, options.check_finite);
}

at::Tensor nvfp4(const at::Tensor& weight, const FormatOptions& options) {
  const int64_t block = own_block_size(kNvfp4, weight, kNvBlock);
  return rounded(kNvfp4, weight, Format::nvfp4, block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> nvfp4_packed(const at::Tensor& weight, const FormatOptions& options) {
  const int64_t block = own_block_size(kNvfp4, weight, kNvBlock);
  return packed(kNvfp4, weight, Format::nvfp4, block, options.out, options.check_finite);
}

at::Tensor fp8(const at::Tensor& weight, const Fp8Options& options) {
  const int64_t block = row_block(kFp8, weight);
  return rounded(kFp8, weight, format_of(options.format), block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> fp8_packed(const at::Tensor& weight, const Fp8Options& options) {
  const int64_t block = row_block(kFp8, weight);
  return packed(kFp8, weight, format_of(options.format), block, options.out, options.check_finite);
}

at::Tensor ternary(const at::Tensor& weight, const TernaryOptions& options) {
  const int64_t block = ternary_block(kTernary, weight, options.group_size);
  return rounded(kTernary, weight, Format::ternary, block, options.out, options.check_finite);
}

std::shared_ptr<BlockPacked> ternary_packed(const at::Tensor& weight, const TernaryOptions& options) {
  const int64_t block = ternary_block(kTernary, weight, options.group_size);
  return packed(kTernary, weight, Format::ternary, block, options.out, options.check_finite);
}

BlockPacked::BlockPacked(Format format, at::Tensor codes, at::Tensor scale, at::Tensor tensor_scale,
                         int64_t in_features, int64_t block_size, at::ScalarType dtype)
    : format_(format),
      codes_(std::move(codes)),
      scale_(std::move(scale)),
      tensor_scale_(std::move(tensor_scale)),
      in_features_(in_features),
      block_size_(block_size),
      dtype_(dtype) {}

at::Tensor BlockPacked::dequantize() const {
  const int64_t rows = codes_.size(0);
  if (rows * in_features_ == 0) {
    return at::empty({rows, in_features_}, codes_.options().dtype(dtype_));
  }
  at::Tensor values;
  if (is_fp8(format_)) {
    values = codes_.to(at::kFloat);
  } else {
    const at::Tensor table = table_of(format_, codes_.device());
    values = at::index_select(table, 0, codes_.view({-1}).to(at::kInt)).view({rows, -1});
    values = values.narrow(1, 0, in_features_).contiguous();
  }
  at::Tensor unit = scale_.to(at::kFloat);
  if (tensor_scale_.defined()) {
    unit = unit.mul(tensor_scale_);
  }
  return values.view({unit.numel(), -1}).mul_(unit.view({-1, 1})).view({rows, in_features_}).to(dtype_);
}

double block_bits_per_weight(Format format, at::IntArrayRef sizes, int64_t block_size) {
  const int64_t per_byte = storage_of(format).per_byte;
  const int64_t rows = sizes[0], in_features = sizes[1], entries = rows * in_features;
  if (entries == 0) {
    return 8.0 / static_cast<double>(per_byte);
  }
  const int64_t width = block_size == kPerRow ? in_features : block_size;
  const int64_t blocks = width == kPerTensor ? 1 : rows * ((in_features + width - 1) / width);
  const bool short_scale = format == Format::mxfp4 || format == Format::nvfp4;  // 8 bits; float32 in the others
  const int64_t tensor_scale = format == Format::nvfp4 ? 4 : 0;
  const int64_t bytes =
      rows * ((in_features + per_byte - 1) / per_byte) + blocks * (short_scale ? 1 : 4) + tensor_scale;
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(entries);
}

double BlockPacked::bits_per_weight() const { return block_bits_per_weight(format_, sizes(), block_size_); }

std::vector<int64_t> BlockPacked::sizes() const { return {codes_.size(0), in_features_}; }

std::shared_ptr<const PackedWeight> BlockPacked::to(c10::Device device) const {
  return std::make_shared<BlockPacked>(format_, codes_.to(device), scale_.to(device),
                                       tensor_scale_.defined() ? tensor_scale_.to(device) : at::Tensor(), in_features_,
                                       block_size_, dtype_);
}

}  // namespace hemostat::quantize
