#include <algorithm>
#include <cmath>
#include <memory>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "groups.h"
#include "straight_through.h"

namespace hemostat::quantize {

namespace {

struct Codes {
  at::Tensor codes;
  at::Tensor scale;
  at::Tensor zero;
};

// (codes − zero) · scale, float32, with the codes' shape.
at::Tensor decode(const at::Tensor& codes, const at::Tensor& scale, const at::Tensor& zero) {
  if (codes.numel() == 0) {
    return at::empty(codes.sizes(), codes.options().dtype(at::kFloat));
  }
  const at::Tensor groups = codes.view({scale.numel(), -1}).to(at::kFloat);
  return groups.sub(zero.view({-1, 1})).mul_(scale.view({-1, 1})).view(codes.sizes());
}

Codes encode(std::string_view operation, const at::Tensor& weight, int64_t levels, int64_t group_size,
             const RtnOptions& options) {
  if (weight.numel() == 0) {
    const int64_t groups = group_size == 0 ? 1 : weight.size(1) / std::max<int64_t>(1, group_size);
    const at::Tensor range =
        at::zeros({group_size == 0 ? 1 : weight.size(0), groups}, weight.options().dtype(at::kFloat));
    return {.codes = at::empty(weight.sizes(), weight.options().dtype(at::kByte)), .scale = range, .zero = range};
  }
  if (!options.search_clip) {
    auto [codes, scale, zero, invalid] = kernels::quantize(weight, levels, group_size, options.symmetric);
    if (options.check_finite) {
      check_rounded(operation, "weight", weight, invalid);
    }
    return {.codes = std::move(codes), .scale = std::move(scale), .zero = std::move(zero)};
  }
  auto [scale, zero, invalid] = kernels::search_clip(weight, levels, group_size, options.symmetric);
  if (options.check_finite) {
    arguments::check_invalid(operation, "weight", invalid, "NaN or infinite");
  }
  const at::Tensor codes = weight.reshape({scale.numel(), -1})
                               .to(at::kFloat)
                               .div(scale.view({-1, 1}))
                               .round_()
                               .add_(zero.view({-1, 1}))
                               .clamp_(0, static_cast<double>(levels - 1))
                               .to(at::kByte);
  return {.codes = codes.view(weight.sizes()), .scale = std::move(scale), .zero = std::move(zero)};
}

at::Tensor round_to_nearest(std::string_view operation, const at::Tensor& weight, const RtnOptions& options) {
  arguments::check_matrix(operation, "weight", weight);
  const int64_t levels = checked_levels(operation, options.bits);
  const int64_t group_size = checked_group_size(operation, options.group_size, weight.size(1));
  FakeQuantizer quantizer{.operation = operation,
                          .name = "weight",
                          .kernel =
                              [&](const at::Tensor& values, at::Tensor& to) {
                                return kernels::fake_quantize(values, levels, group_size, options.symmetric, to);
                              },
                          .check = finite_check(operation, "weight", weight, options.check_finite)};
  if (options.search_clip) {
    quantizer.kernel = [&](const at::Tensor& values, at::Tensor& to) {
      const auto [codes, scale, zero] = encode(operation, values, levels, group_size, options);
      const at::Tensor rounded = decode(codes, scale, zero).to(values.scalar_type());
      if (options.check_finite) {
        arguments::check_result(operation, "weight", rounded);
      }
      to.copy_(rounded);
      return at::Tensor();
    };
    quantizer.check = nullptr;  // encode has looked
  }
  return fake_quantized(quantizer, weight, options.out);
}

}  // namespace

at::Tensor rtn(const at::Tensor& weight, const RtnOptions& options) {
  return round_to_nearest("hemostat.quantize.rtn", weight, options);
}

at::Tensor fake_quantize(const at::Tensor& weight, const RtnOptions& options) {
  return round_to_nearest("hemostat.quantize.fake_quantize", weight, options);
}

std::shared_ptr<GroupPacked> rtn_packed(const at::Tensor& weight, const RtnOptions& options) {
  constexpr std::string_view kOperation = "hemostat.quantize.rtn";
  arguments::check_matrix(kOperation, "weight", weight);
  if (options.out) {
    throw ValueError(fmt::format("{}: out cannot be given with packed=True", kOperation));
  }
  const int64_t levels = checked_levels(kOperation, options.bits);
  const int64_t group_size = checked_group_size(kOperation, options.group_size, weight.size(1));
  auto [codes, scale, zero] = encode(kOperation, weight.detach(), levels, group_size, options);
  auto packed = std::make_shared<GroupPacked>(std::move(codes), std::move(scale), std::move(zero), group_size,
                                              options.bits, options.symmetric, weight.scalar_type());
  if (options.search_clip && options.check_finite) {
    arguments::check_result(kOperation, "weight", packed->dequantize());
  }
  return packed;
}

GroupPacked::GroupPacked(at::Tensor codes, at::Tensor scale, at::Tensor zero, int64_t group_size, double bits,
                         bool symmetric, at::ScalarType dtype, at::Tensor order, at::Tensor input_scale)
    : codes_(std::move(codes)),
      scale_(std::move(scale)),
      zero_(std::move(zero)),
      order_(std::move(order)),
      input_scale_(std::move(input_scale)),
      group_size_(group_size),
      bits_(bits),
      symmetric_(symmetric),
      dtype_(dtype) {}

at::Tensor GroupPacked::dequantize() const {
  at::Tensor weight = order_.defined()
                          ? decode(codes_.index_select(1, order_), scale_, zero_).index_select(1, order_.argsort())
                          : decode(codes_, scale_, zero_);
  return (input_scale_.defined() ? weight.div_(input_scale_) : weight).to(dtype_);
}

double group_bits_per_weight(at::IntArrayRef sizes, int64_t group_size, double bits, bool symmetric,
                             double feature_bits) {
  const double code_bits = std::ceil(std::log2(static_cast<double>(levels(bits))));
  const int64_t entries = sizes[0] * sizes[1];
  if (entries == 0) {
    return code_bits;
  }
  const int64_t groups = group_size == kPerTensor ? 1 : group_size == kPerRow ? sizes[0] : entries / group_size;
  const double range_bits = symmetric ? 16.0 : 32.0;
  return code_bits + (range_bits * static_cast<double>(groups) + feature_bits * static_cast<double>(sizes[1])) /
                         static_cast<double>(entries);
}

double GroupPacked::bits_per_weight() const {
  const double feature_bits = (order_.defined() ? 32.0 : 0.0) + (input_scale_.defined() ? 16.0 : 0.0);
  return group_bits_per_weight(codes_.sizes(), group_size_, bits_, symmetric_, feature_bits);
}

std::vector<int64_t> GroupPacked::sizes() const { return codes_.sizes().vec(); }

std::shared_ptr<const PackedWeight> GroupPacked::to(c10::Device device) const {
  return std::make_shared<GroupPacked>(codes_.to(device), scale_.to(device), zero_.to(device), group_size_, bits_,
                                       symmetric_, dtype_, order_.defined() ? order_.to(device) : order_,
                                       input_scale_.defined() ? input_scale_.to(device) : input_scale_);
}

}  // namespace hemostat::quantize
