// How Python's spellings of patterns and devices become the library's.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <c10/core/Device.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/model.h>

namespace hemostat::bindings {

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

inline at::Device device_from(const DeviceArgument& device) {
  if (const auto* text = std::get_if<std::string>(&device)) {
    return at::Device(*text);
  }
  return std::get<at::Device>(device);
}

}  // namespace hemostat::bindings
