#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/quantize.h>

#include "arguments.h"
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
  const at::Tensor& importance = *options.importance;
  arguments::check_floating(kOperation, "importance", importance);
  if (importance.dim() != 1) {
    throw ValueError(fmt::format("{}: importance has shape {}, but must be [in_features]", kOperation,
                                 arguments::shape(importance.sizes())));
  }
  if (importance.size(0) != in_features) {
    throw ValueError(fmt::format("{}: importance has {} entries, but weight has {} input features", kOperation,
                                 importance.size(0), in_features));
  }
  arguments::check_device(kOperation, "importance", importance, "weight", weight);
  at::Tensor checked = importance.detach().to(at::kFloat).contiguous();
  if (options.check_finite) {
    const at::Tensor valid = at::logical_and(at::isfinite(checked), checked.ge(0));
    arguments::check_invalid(kOperation, "importance", valid.logical_not().sum(), "NaN, infinite or negative");
  }
  return checked;
}

void check_stored(const at::Tensor& invalid) {
  const auto count = invalid.item<int64_t>();
  if (count != 0) {
    throw ValueError(
        fmt::format("{}: weight has {} values or block scales that are NaN, infinite or beyond float16; "
                    "check_finite=False skips this look",
                    kOperation, count));
  }
}

}  // namespace

at::Tensor gguf(const at::Tensor& weight, const GgufOptions& options) {
  const std::optional<at::Tensor> importance = checked_importance(weight, options);
  bool in_place = false;
  if (options.out) {
    arguments::check_out(kOperation, *options.out, weight.sizes(), weight.scalar_type(), weight.device());
    arguments::check_out_without_gradient(kOperation, "weight", weight);
    in_place = arguments::is_in_place(kOperation, *options.out, "weight", weight);
  }
  const at::Tensor values = weight.detach();
  at::Tensor out = options.out ? *options.out : at::empty(values.sizes(), values.options());
  // A weight with NaN must come back as it was: it is overwritten only once it was seen to have none.
  const bool aside = in_place && options.check_finite;
  at::Tensor rounded = aside ? at::empty(values.sizes(), values.options()) : out;
  const at::Tensor invalid =
      kernels::gguf_fake_quantize(values, static_cast<int64_t>(options.type), importance, rounded);
  if (options.check_finite) {
    check_stored(invalid);
  }
  if (aside) {
    out.copy_(rounded);
  }
  return arguments::wants_gradient(weight) ? straight_through(weight, out) : out;
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
  return std::make_shared<GgufPacked>(std::move(data), options.type, weight.size(1), weight.scalar_type());
}

}  // namespace hemostat::quantize
