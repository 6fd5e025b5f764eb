// How a method's option spells the weights that share a scale.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

namespace hemostat {

// "row", "tensor" or a number; ValueError naming `method`.
inline int64_t parse_group_size(const std::string& method, const std::string& text) {
  if (text == "row" || text == "-1") {
    return quantize::kPerRow;
  }
  if (text == "tensor") {
    return quantize::kPerTensor;
  }
  int64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || size < 1) {
    throw ValueError(fmt::format("hemostat.prepare({}): group_size must be row, tensor or a positive integer, got '{}'",
                                 method, text));
  }
  return size;
}

}  // namespace hemostat
