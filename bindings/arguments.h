// How Python's spellings of patterns and devices become the library's, and undefined tensors None.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/error.h>
#include <hemostat/model.h>
#include <hemostat/solve.h>

namespace hemostat::bindings {

inline std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

// fnmatch patterns: one, many, or None.
using Patterns = std::optional<std::variant<std::string, std::vector<std::string>>>;

inline std::vector<std::string> pattern_list(const Patterns& patterns) {
  if (!patterns) {
    return {};
  }
  if (const auto* one = std::get_if<std::string>(&*patterns)) {
    return {*one};
  }
  return std::get<std::vector<std::string>>(*patterns);
}

inline LinearFilter linear_filter(const Patterns& include, const Patterns& exclude) {
  return {.include = pattern_list(include), .exclude = pattern_list(exclude)};
}

// "cuda:1" or a torch.device.
using DeviceArgument = std::variant<std::string, at::Device>;

// ValueError unless it names the CPU or a CUDA device of this machine.
inline at::Device device_from(const DeviceArgument& argument) {
  const auto* text = std::get_if<std::string>(&argument);
  std::optional<at::Device> device;
  try {
    device = text != nullptr ? at::Device(*text) : std::get<at::Device>(argument);
  } catch (const c10::Error&) {  // it is no device's name
  }
  const int64_t gpus = at::hasCUDA() ? static_cast<int64_t>(at::detail::getCUDAHooks().deviceCount()) : 0;
  if (!device || !(device->is_cpu() || (device->is_cuda() && device->index() < gpus && gpus > 0))) {
    throw ValueError(fmt::format("hemostat: device is '{}', but must be cpu, or one of this machine's {} CUDA devices",
                                 text != nullptr ? *text : device->str(), gpus));
  }
  return *device;
}

// A Gram matrix, or what was made of it once.
using GramOrFactor = std::variant<at::Tensor, solve::GramFactor>;

}  // namespace hemostat::bindings
