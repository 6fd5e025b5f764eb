#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "common/arguments.h"
#include "straight_through.h"

namespace hemostat::quantize {

namespace {

constexpr std::string_view kOperation = "hemostat.quantize.gguf";

// Checks all but `out`; → importance as the kernels take it.
std::optional<at::Tensor> checked_importance(const at::Tensor& weight, const GgufOptions& options) {
  arguments::check_matrix(kOperation, "weight", weight);
  const int64_t in_features = weight.size(1), block = gguf_block_size(options.type);
  if (in_features % block != 0) {
    throw ValueError(fmt::format("{}: weight has {} input features, but {} takes a multiple of {}", kOperation,
                                 in_features, gguf_name(options.type), block));
  }
  if (!options.importance) {
    return std::nullopt;
  }
  const at::Tensor checked = arguments::checked_features(kOperation, "importance", *options.importance, weight);
  if (options.check_finite) {
    arguments::check_not_negative(kOperation, "importance", checked);
  }
  return checked;
}

void check_stored(const at::Tensor& invalid) {
  const auto count = invalid.item<int64_t>();
  if (count != 0) {
    throw arguments::InvalidEntries(
        kOperation,
        fmt::format("weight has {} values or block scales that are NaN, infinite or beyond float16", count));
  }
}

// Scales are float16, so that only in float16 itself the values of a block may be infinite.
void check_dtype(const at::Tensor& rounded, bool check_finite) {
  if (check_finite && rounded.scalar_type() == at::kHalf) {
    arguments::check_result(kOperation, "weight", rounded);
  }
}

}  // namespace

at::Tensor gguf(const at::Tensor& weight, const GgufOptions& options) {
  const std::optional<at::Tensor> importance = checked_importance(weight, options);
  const auto kernel = [&](const at::Tensor& values, at::Tensor& to) {
    const at::Tensor invalid = kernels::gguf_fake_quantize(values, static_cast<int64_t>(options.type), importance, to);
    check_dtype(to, options.check_finite && invalid.item<int64_t>() == 0);
    return invalid;
  };
  FakeQuantizer quantizer{.operation = kOperation, .name = "weight", .kernel = kernel, .check = nullptr};
  if (options.check_finite) {
    quantizer.check = check_stored;
  }
  return fake_quantized(quantizer, weight, options.out);
}

std::shared_ptr<GgufPacked> gguf_packed(const at::Tensor& weight, const GgufOptions& options) {
  const std::optional<at::Tensor> importance = checked_importance(weight, options);
  if (options.out) {
    throw ValueError(fmt::format("{}: out cannot be given with packed=True", kOperation));
  }
  auto [data, invalid] = kernels::gguf_quantize(weight.detach(), static_cast<int64_t>(options.type), importance);
  if (options.check_finite) {
    check_stored(invalid);
  }
  auto packed = std::make_shared<GgufPacked>(std::move(data), options.type, weight.size(1), weight.scalar_type());
  if (weight.scalar_type() == at::kHalf && options.check_finite) {
    check_dtype(packed->dequantize(), true);
  }
  return packed;
}

}  // namespace hemostat::quantize
