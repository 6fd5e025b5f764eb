// Options of methods from the fields of operators' options: as rows list them, and back.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <hemostat/methods.h>
#include <hemostat/options.h>
#include <hemostat/quantize.h>

#include "on_linears.h"

namespace hemostat {

// What a method's options can hold of a field.
template <typename Value>
concept OptionLike = Worded<Value> || std::same_as<Value, quantize::GroupSize> || std::same_as<Value, uint64_t> ||
                     std::same_as<Value, bool> || std::same_as<Value, int64_t> || std::same_as<Value, double>;

// How its value stands among them.
template <OptionLike Value>
OptionValue as_option(const Value& value) {
  if constexpr (Worded<Value>) {
    return word_of(value);
  } else if constexpr (std::is_same_v<Value, quantize::GroupSize>) {
    return value.text();
  } else if constexpr (std::is_same_v<Value, uint64_t>) {
    return static_cast<int64_t>(value);
  } else {
    return value;
  }
}

template <OptionLike Value>
void set_from_option(Value& value, const std::string& name, const OptionValue& given) {
  if constexpr (Worded<Value>) {
    value = value_of_word<Value>("hemostat.prepare", name, std::get<std::string>(given));
  } else if constexpr (std::is_same_v<Value, quantize::GroupSize>) {
    value = quantize::GroupSize::from_text("hemostat.prepare", std::get<std::string>(given));
  } else if constexpr (std::is_same_v<Value, uint64_t>) {
    value = static_cast<uint64_t>(std::get<int64_t>(given));
  } else {
    value = std::get<Value>(given);
  }
}

template <typename Value>
std::vector<std::string> choices_of() {
  if constexpr (Worded<Value>) {
    return words_of<Value>();
  } else {
    return {};
  }
}

template <typename Value>
std::string listed_text(const char* text, const Range& range) {
  const std::string takes = std::is_same_v<Value, quantize::GroupSize>
                                ? range.holds(quantize::kPerTensor)
                                      ? "row, tensor, or a number that divides the input features"
                                      : "row, or a number that divides the input features"
                                : to_string(range);
  return takes.empty() ? text : std::string(text) + (std::is_same_v<Value, quantize::GroupSize> ? ": " : ", ") + takes;
}

// The options that a method shares with its operator: these fields, in their order, or all that options set.
template <typename Struct>
std::vector<OptionSpec> declared(std::initializer_list<std::string_view> names = {}) {
  std::vector<OptionSpec> result;
  const auto declare = [&](const auto& field) {
    using Value = typename std::remove_cvref_t<decltype(field)>::Value;
    const bool chosen = names.size() == 0 || std::find(names.begin(), names.end(), field.name) != names.end();
    if constexpr (OptionLike<Value>) {
      if (field.set_by == SetBy::option && chosen) {
        result.push_back({.name = field.name,
                          .default_value = as_option(Struct{}.*field.member),
                          .description = listed_text<Value>(field.text, field.range),
                          .choices = choices_of<Value>(),
                          .range = field.range,
                          .divides = std::is_same_v<Value, quantize::GroupSize>});
      }
    }
  };
  std::apply([&](const auto&... field) { (declare(field), ...); }, Struct::fields());
  return result;
}

inline std::vector<OptionSpec> operator+(std::vector<OptionSpec> left, const std::vector<OptionSpec>& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// An operator's options, as these (complete) options of a method set them.
template <typename Struct>
Struct options_as(const Options& options) {
  Struct result;
  const auto take = [&](const auto& field) {
    using Value = typename std::remove_cvref_t<decltype(field)>::Value;
    if constexpr (OptionLike<Value>) {
      if (const auto given = options.find(field.name); field.set_by == SetBy::option && given != options.end()) {
        set_from_option(result.*field.member, field.name, given->second);
      }
    }
  };
  std::apply([&](const auto&... field) { (take(field), ...); }, Struct::fields());
  return result;
}

}  // namespace hemostat
