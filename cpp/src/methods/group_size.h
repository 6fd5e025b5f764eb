// The option `group_size`: how it spells the weights that share a scale, and whether it fits a model.
#pragma once

#include <charconv>
#include <cstdint>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "on_linears.h"

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

inline int64_t group_size_of(const std::string& method, const Options& options) {
  return parse_group_size(method, option<std::string>(options, "group_size"));
}

// ValueError unless groups divide the rows; one for the whole tensor is taken only where `whole`.
inline void check_group_size(const std::string& method, const Model& model, const Options& options, bool whole) {
  const int64_t group_size = group_size_of(method, options);
  if (group_size == quantize::kPerTensor && !whole) {
    throw ValueError(
        fmt::format("hemostat.prepare({}): group_size must be row or a positive integer, got 'tensor'", method));
  }
  check_divides(method, model, filter_of(options), "group_size", group_size);
}

// The same, as a row of the catalogue holds it.
inline FitCheck group_check(const std::string& method, bool whole) {
  return
      [method, whole](const Model& model, const Options& options) { check_group_size(method, model, options, whole); };
}

}  // namespace hemostat
