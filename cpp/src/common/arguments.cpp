#include "common/arguments.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/logical_not.h>
#include <ATen/ops/max.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

namespace hemostat::arguments {

std::string dtype_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kBool:
      return "bool";
    case at::kByte:
      return "uint8";
    case at::kChar:
      return "int8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    default:
      return c10::toString(dtype);
  }
}

std::string shape(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

void check_dense(std::string_view operation, std::string_view name, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided) {
    throw TypeError(fmt::format("{}: {} is not a dense tensor", operation, name));
  }
  if (tensor.is_meta()) {
    throw ValueError(fmt::format("{}: {} is on meta, which holds no data", operation, name));
  }
}

void check_floating(std::string_view operation, std::string_view name, const at::Tensor& tensor) {
  check_dense(operation, name, tensor);
  const auto dtype = tensor.scalar_type();
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw TypeError(
        fmt::format("{}: {} is {}, but must be float32, bfloat16 or float16", operation, name, dtype_name(dtype)));
  }
}

void check_matrix(std::string_view operation, std::string_view name, const at::Tensor& tensor) {
  check_floating(operation, name, tensor);
  if (tensor.dim() != 2) {
    throw ValueError(fmt::format("{}: {} has shape {}, but must be [out_features, in_features]", operation, name,
                                 shape(tensor.sizes())));
  }
}

void check_device(std::string_view operation, std::string_view name, const at::Tensor& tensor,
                  std::string_view other_name, const at::Tensor& other) {
  if (tensor.device() != other.device()) {
    throw ValueError(fmt::format("{}: {} is on {}, but {} is on {}", operation, name, tensor.device().str(), other_name,
                                 other.device().str()));
  }
}

at::Tensor checked_features(std::string_view operation, std::string_view name, const at::Tensor& features,
                            const at::Tensor& weight) {
  check_floating(operation, name, features);
  if (features.dim() != 1) {
    throw ValueError(
        fmt::format("{}: {} has shape {}, but must be [in_features]", operation, name, shape(features.sizes())));
  }
  if (features.size(0) != weight.size(1)) {
    throw ValueError(fmt::format("{}: {} has {} entries, but weight has {} input features", operation, name,
                                 features.size(0), weight.size(1)));
  }
  check_device(operation, name, features, "weight", weight);
  return features.detach().to(at::kFloat).contiguous();
}

void check_gram(std::string_view operation, const at::Tensor& gram) {
  check_floating(operation, "gram", gram);
  if (gram.dim() != 2 || gram.size(0) != gram.size(1)) {
    throw ValueError(
        fmt::format("{}: gram has shape {}, but must be [in_features, in_features]", operation, shape(gram.sizes())));
  }
}

void check_gram(std::string_view operation, const at::Tensor& gram, std::string_view weight_name,
                const at::Tensor& weight) {
  check_gram(operation, gram);
  if (gram.size(0) != weight.size(1)) {
    throw ValueError(fmt::format("{}: gram is of {} features, but {} has {} input features", operation, gram.size(0),
                                 weight_name, weight.size(1)));
  }
  check_device(operation, "gram", gram, weight_name, weight);
}

void check_out(std::string_view operation, const at::Tensor& out, at::IntArrayRef sizes, at::ScalarType dtype,
               c10::Device device) {
  if (!out.defined() || out.layout() != at::kStrided || out.scalar_type() != dtype) {
    throw TypeError(fmt::format("{}: out is {}, but must be {}", operation,
                                out.defined() ? dtype_name(out.scalar_type()) : "no tensor", dtype_name(dtype)));
  }
  if (out.sizes() != sizes) {
    throw ValueError(fmt::format("{}: out has shape {}, but must be {}", operation, shape(out.sizes()), shape(sizes)));
  }
  if (out.device() != device) {
    throw ValueError(fmt::format("{}: out is on {}, but must be on {}", operation, out.device().str(), device.str()));
  }
  if (!out.is_contiguous()) {
    throw ValueError(fmt::format("{}: out must be contiguous, but has strides {}", operation, shape(out.strides())));
  }
}

bool is_in_place(std::string_view operation, const at::Tensor& out, std::string_view name, const at::Tensor& input) {
  if (out.numel() == 0 || !out.is_alias_of(input)) {
    return false;
  }
  if (out.data_ptr() == input.data_ptr() && out.sizes() == input.sizes() && out.strides() == input.strides() &&
      out.scalar_type() == input.scalar_type()) {
    return true;
  }
  // Views of one storage may still be apart; what cannot be told (strided views) is refused.
  if (at::get_overlap_status(out, input) != at::MemOverlapStatus::No) {
    throw ValueError(
        fmt::format("{}: out overlaps {} in part; it must be {} itself or memory of its own", operation, name, name));
  }
  return false;
}

void check_out_without_gradient(std::string_view operation, std::string_view name, const at::Tensor& input) {
  if (wants_gradient(input)) {
    throw ValueError(
        fmt::format("{}: out cannot be given while {} requires a gradient; detach it, or leave out", operation, name));
  }
}

void check_invalid(std::string_view operation, std::string_view name, const at::Tensor& invalid,
                   std::string_view kind) {
  const auto count = invalid.item<int64_t>();
  if (count != 0) {
    throw InvalidEntries(operation,
                         fmt::format("{} has {} {} {}", name, count, kind, count == 1 ? "entry" : "entries"));
  }
}

bool all_finite(const at::Tensor& tensor) {
  // One read tells nearly always; a sum may overflow though every entry is finite.
  const auto wide = tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return std::isfinite(tensor.sum(wide).item<double>()) || at::isfinite(tensor).all().item<bool>();
}

void check_finite(std::string_view operation, std::string_view name, const at::Tensor& tensor) {
  if (all_finite(tensor)) {
    return;
  }
  check_invalid(operation, name, at::isfinite(tensor).logical_not_().sum(), "NaN or infinite");
}

void check_not_negative(std::string_view operation, std::string_view name, const at::Tensor& tensor) {
  const at::Tensor valid = at::isfinite(tensor).logical_and_(tensor.ge(0));
  check_invalid(operation, name, valid.logical_not_().sum(), "NaN, infinite or negative");
}

InvalidEntries::InvalidEntries(std::string_view operation, std::string finding)
    : ValueError(fmt::format("{}: {}; check_finite=False skips this look", operation, finding)),
      finding_(std::move(finding)) {}

void check_gram_values(std::string_view operation, const at::Tensor& gram) {
  const at::NoGradGuard no_grad;
  check_finite(operation, "gram", gram);
  if (gram.numel() == 0) {
    return;
  }
  const double epsilon = gram.scalar_type() == at::kFloat  ? std::numeric_limits<float>::epsilon()
                         : gram.scalar_type() == at::kHalf ? 0x1p-10
                                                           : 0x1p-7;
  const at::Tensor moments = gram.to(at::kFloat), square = moments.diagonal();
  check_invalid(operation, "gram", square.lt(0).sum(), "negative diagonal");
  // As correlations, so that loud and quiet features are judged alike.
  const at::Tensor length = square.sqrt().masked_fill(square.eq(0), 1);
  at::Tensor correlation = moments.div(length).div_(length.unsqueeze(1));
  const auto [difference, place] = correlation.sub(correlation.t()).abs_().flatten().max(0);
  if (difference.item<double>() > std::max(1e-3, 4 * epsilon)) {
    const int64_t row = place.item<int64_t>() / gram.size(1), column = place.item<int64_t>() % gram.size(1);
    throw ValueError(fmt::format("{}: gram is not symmetric: entry [{}, {}] is {}, but [{}, {}] is {}", operation, row,
                                 column, moments[row][column].item<float>(), column, row,
                                 moments[column][row].item<float>()));
  }
  correlation.diagonal().add_(16 * epsilon * static_cast<double>(gram.size(0)));  // what rounding may take
  if (std::get<1>(at::linalg_cholesky_ex(correlation)).item<int64_t>() != 0) {
    throw NumericalError(fmt::format("{}: gram is not positive semidefinite, so it is no Gram matrix", operation));
  }
}

void check_result(std::string_view operation, std::string_view name, const at::Tensor& result) {
  if (std::isfinite(result.sum(at::kFloat).item<float>())) {
    return;
  }
  const auto count = at::isfinite(result).logical_not_().sum().item<int64_t>();
  if (count != 0) {
    throw NumericalError(fmt::format("{}: {} is too large: {} {} of the result would be beyond {}", operation, name,
                                     count, count == 1 ? "entry" : "entries", dtype_name(result.scalar_type())));
  }
}

double unit_factor(const at::Tensor& tensor) {
  if (tensor.numel() == 0) {
    return 1;
  }
  const auto [lowest, highest] = at::aminmax(tensor.detach());
  const double largest = std::max(-lowest.item<double>(), highest.item<double>());
  int exponent = 1;
  std::frexp(largest, &exponent);
  return largest > 0 && std::isfinite(largest) ? std::ldexp(1.0, std::clamp(1 - exponent, -126, 126)) : 1;
}

bool wants_gradient(const at::Tensor& tensor) { return c10::GradMode::is_enabled() && tensor.requires_grad(); }

}  // namespace hemostat::arguments
