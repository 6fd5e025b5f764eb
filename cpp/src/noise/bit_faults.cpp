#include <optional>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/kernels.h>
#include <hemostat/noise.h>

#include "common/arguments.h"

namespace hemostat::noise {

namespace {

using kernels::BitFault;

at::Tensor faulty(std::string_view operation, const at::Tensor& weight, const BitFaultOptions& options,
                  BitFault fault) {
  const bool codes = weight.defined() && weight.scalar_type() == at::kByte;
  if (codes) {
    arguments::check_dense(operation, "weight", weight);
    if (weight.dim() != 2) {
      throw ValueError(fmt::format("{}: weight has shape {}, but must be [out_features, in_features]", operation,
                                   arguments::shape(weight.sizes())));
    }
  } else {
    arguments::check_matrix(operation, "weight", weight);
  }
  check_options(operation, options);
  if (options.bits && !codes) {
    throw ValueError(fmt::format("{}: bits is {}, but is for uint8 codes alone", operation, *options.bits));
  }
  const int64_t width = options.bits.value_or(static_cast<int64_t>(8 * weight.element_size()));
  if (options.bit) {
    check_range(operation, "bit", *options.bit, between(0, static_cast<double>(width - 1)));
  }
  if (options.out) {
    arguments::check_out(operation, *options.out, weight.sizes(), weight.scalar_type(), weight.device());
    arguments::check_out_without_gradient(operation, "weight", weight);
  }
  const bool in_place = options.out && arguments::is_in_place(operation, *options.out, "weight", weight);

  const at::Tensor values = weight.detach();
  at::Tensor result = options.out ? *options.out : at::empty_like(values, at::MemoryFormat::Contiguous);
  if (!in_place) {
    result.copy_(values);
  }
  kernels::bit_faults_(result, options.rate, static_cast<int64_t>(options.seed), options.bit.value_or(0),
                       options.bit ? 1 : width, fault);
  return result;
}

}  // namespace

at::Tensor bit_flip(const at::Tensor& weight, const BitFaultOptions& options) {
  return faulty("hemostat.noise.bit_flip", weight, options, BitFault::flip);
}

at::Tensor stuck_at(const at::Tensor& weight, int64_t value, const BitFaultOptions& options) {
  constexpr std::string_view kOperation = "hemostat.noise.stuck_at";
  check_range(kOperation, "value", value, between(0, 1));
  return faulty(kOperation, weight, options, value == 0 ? BitFault::stuck_at_0 : BitFault::stuck_at_1);
}

}  // namespace hemostat::noise
