// Options that are numbers of weights.
#pragma once

#include <cstdint>
#include <string>

#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/quantize.h>

#include "on_linears.h"

namespace hemostat {

inline quantize::GroupSize group_size_of(const std::string& method, const Options& options) {
  return quantize::GroupSize::from_text(fmt::format("hemostat.prepare({})", method),
                                        option<std::string>(options, "group_size"));
}

// What the option says, spelt as a number or as a group size; ValueError for one tensor where that is no choice.
inline int64_t weights_of(const std::string& method, const OptionSpec& spec, const Options& options) {
  if (std::holds_alternative<int64_t>(spec.default_value)) {
    return option<int64_t>(options, spec.name.c_str());
  }
  const std::string operation = fmt::format("hemostat.prepare({})", method);
  const auto& text = option<std::string>(options, spec.name.c_str());
  const quantize::GroupSize size = quantize::GroupSize::from_text(operation, text);
  if (size == quantize::kPerTensor && !spec.range.holds(quantize::kPerTensor)) {
    throw ValueError(fmt::format("{}: {} must be row or a positive integer, got 'tensor'", operation, spec.name));
  }
  return size;
}

}  // namespace hemostat
