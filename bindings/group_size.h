// How Python's spellings of a group size become the library's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include <fmt/format.h>
#include <pybind11/stl.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

namespace hemostat::bindings {

// None, -1: whole rows; "tensor": the whole matrix; a number of weights.
using GroupSize = std::optional<std::variant<int64_t, std::string>>;

inline quantize::GroupSize group_size_of(const std::string& operation, const GroupSize& group_size) {
  if (!group_size) {
    return quantize::kPerRow;
  }
  if (const auto* entries = std::get_if<int64_t>(&*group_size)) {
    if (*entries == quantize::kPerRow || *entries > 0) {
      return *entries;
    }
    throw ValueError(fmt::format(
        "{}: group_size is {}, but must be a number of weights, -1 for whole rows or \"tensor\"", operation, *entries));
  }
  const auto& name = std::get<std::string>(*group_size);
  if (name != "tensor") {
    throw ValueError(fmt::format(
        "{}: group_size is \"{}\", but must be a number of weights, -1 for whole rows or \"tensor\"", operation, name));
  }
  return quantize::kPerTensor;
}

}  // namespace hemostat::bindings
