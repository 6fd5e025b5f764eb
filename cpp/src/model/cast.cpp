#include "cast.h"

#include <limits>
#include <unordered_map>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isinf.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "common/arguments.h"
#include "finite.h"
#include "foreign.h"
#include "heap_trimmer.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

// The smallest that is not 0.
double smallest_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return std::numeric_limits<c10::Half>::denorm_min();
    case at::kBFloat16:
      return std::numeric_limits<c10::BFloat16>::denorm_min();
    case at::kFloat:
      return std::numeric_limits<float>::denorm_min();
    default:
      return std::numeric_limits<double>::denorm_min();
  }
}

// Whether entries of `from` may be beyond what `to` holds.
bool narrows(at::ScalarType from, at::ScalarType to) {
  return largest_of(to) < largest_of(from) || smallest_of(to) > smallest_of(from);
}

void check_cast(const at::Tensor& before, const at::Tensor& after, const std::string& subject) {
  const float sum = after.sum(at::kFloat).item<float>();
  if (std::isfinite(sum) && sum != 0) {
    return;
  }
  const std::string target = arguments::dtype_name(after.scalar_type());
  const double largest = extent_of(before).largest;
  const auto lost = at::isinf(after).logical_and_(at::isfinite(before)).sum().item<int64_t>();
  if (lost > 0) {
    const bool half = after.scalar_type() == at::kHalf && largest <= largest_of(at::kBFloat16);
    throw ValueError(fmt::format("{} reaches {:.4g}, but {} no further than {:.6g}: {} {} would be infinite{}", subject,
                                 largest, target, largest_of(after.scalar_type()), lost,
                                 lost == 1 ? "entry" : "entries", half ? "; bfloat16 and float32 reach 3.4e+38" : ""));
  }
  if (largest > 0 && extent_of(after).largest == 0 && extent_of(after).finite()) {
    throw ValueError(fmt::format("{} reaches only {:.4g}, and {}'s smallest number is {:.3g}: all of it would be 0{}",
                                 subject, largest, target, smallest_of(after.scalar_type()),
                                 after.scalar_type() == at::kHalf ? "; bfloat16 and float32 reach down to 1e-38" : ""));
  }
}

}  // namespace

at::Tensor cast(const at::Tensor& tensor, at::ScalarType dtype, const std::string& subject) {
  at::Tensor result = tensor.to(dtype);
  if (narrows(tensor.scalar_type(), dtype) && tensor.numel() > 0 && !tensor.is_meta()) {
    const at::NoGradGuard no_grad;
    check_cast(tensor.detach(), result.detach(), subject);
  }
  return result;
}

Model converted(const Model& model, std::optional<at::ScalarType> dtype, std::optional<c10::Device> device,
                std::string_view operation) {
  if (dtype && !c10::isFloatingType(*dtype)) {
    throw TypeError(fmt::format("{}: dtype must be a floating type, got {}", operation, c10::toString(*dtype)));
  }
  Model result = model;
  if (model.foreign) {
    result.foreign = converted(model.foreign, dtype, device, operation);
    return result;
  }
  std::unordered_map<const void*, at::Tensor> moved;  // what was shared stays shared
  const auto move = [&](const std::string& name, at::Tensor& tensor, std::optional<at::ScalarType> type) {
    at::Tensor& target = moved[tensor.unsafeGetTensorImpl()];
    if (!target.defined()) {
      if (type) {
        target = cast(tensor, *type, fmt::format("{}: {}", operation, name));
        trim_grown_heap();  // of what the check of each took between what is kept
      } else {
        target = tensor;
      }
      target = device ? target.to(*device) : target;
    }
    tensor = target;
  };
  for_each_tensor(result, [&](const std::string& name, at::Tensor& tensor) { move(name, tensor, dtype); });
  for_each_constant(result, [&](const std::string& name, at::Tensor& tensor) { move(name, tensor, std::nullopt); });
  for_each_linear(result, [&](const LinearPlace&, Linear& linear) {
    if (linear.packed && device) {
      linear.packed = linear.packed->to(*device);
    }
  });
  return result;
}

Model Model::to(std::optional<at::ScalarType> dtype, std::optional<c10::Device> device) const {
  return converted(*this, dtype, device, "hemostat.Model.to");
}

}  // namespace hemostat
