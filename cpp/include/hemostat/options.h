// How options are declared: once, beside their struct, by `static constexpr auto fields()`. From that come the check of
// ranges with its message, the options of the registry and the command line, Python's keywords with their defaults, and
// the lines of the docs. The default is the struct's own.
//
//   struct RiaOptions {
//     double alpha = 0.5;
//     …
//     static constexpr auto fields() {
//       return std::tuple{Field{"alpha", &RiaOptions::alpha, "exponent of the activation norm", at_least(0)}, …};
//     }
//   };
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include <hemostat/error.h>

namespace hemostat {

// The numbers that an option takes; all of them finite.
struct Range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();

  bool holds(double value) const { return std::isfinite(value) && value >= least && value <= most; }
};
constexpr Range at_least(double least) { return {.least = least}; }
constexpr Range between(double least, double most) { return {.least = least, .most = most}; }
constexpr Range not_negative_in_float32() { return between(0, std::numeric_limits<float>::max()); }

// "from 0 to 1", "0 or more"; empty for any number.
std::string to_string(const Range& range);

// Who sets a field: a method's options, the severity, or only those who call the operator itself (out, check_finite).
enum class SetBy { option, severity, call };

template <typename Struct, typename T>
struct Field {
  using Value = T;

  const char* name;
  T Struct::* member;
  const char* text;  // what it is, with its unit, from a small letter on and without a full stop
  Range range = {};
  SetBy set_by = SetBy::option;
};

// Fields that most options have.
template <typename Options>
constexpr auto check_finite_field() {
  return Field{"check_finite", &Options::check_finite, "False skips the look for NaN and infinities", {}, SetBy::call};
}

template <typename Options>
constexpr auto out_field(
    const char* text = "contiguous tensor like weight, which it may be, that receives the result") {
  return Field{"out", &Options::out, text, {}, SetBy::call};
}

// The words of an enumeration's values, in the order in which users see them: each specializes it once.
template <typename Enumeration>
struct Word {
  Enumeration value;
  const char* text;
};
template <typename Enumeration>
inline constexpr auto words = nullptr;

template <typename T>
concept Worded = std::is_enum_v<T> && !std::same_as<std::remove_cvref_t<decltype(words<T>)>, std::nullptr_t>;

template <Worded Enumeration>
std::string word_of(Enumeration value) {
  for (const auto& word : words<Enumeration>) {
    if (word.value == value) {
      return word.text;
    }
  }
  return "";
}

template <Worded Enumeration>
std::vector<std::string> words_of() {
  std::vector<std::string> result;
  for (const auto& word : words<Enumeration>) {
    result.emplace_back(word.text);
  }
  return result;
}

namespace options_detail {

template <typename T>
struct WithoutOptional {
  using type = T;
};
template <typename T>
struct WithoutOptional<std::optional<T>> {
  using type = T;
};

[[noreturn]] void refuse_number(std::string_view operation, std::string_view name, double value, const Range& range);
[[noreturn]] void refuse_number(std::string_view operation, std::string_view name, int64_t value, const Range& range);
[[noreturn]] void refuse_word(std::string_view operation, std::string_view name, std::string_view word,
                              const std::vector<std::string>& choices);

}  // namespace options_detail

template <typename T>
concept Number = std::is_arithmetic_v<T> && !std::same_as<T, bool>;

// ValueError naming operation and option where the number is out of range.
template <Number T>
void check_range(std::string_view operation, std::string_view name, T value, const Range& range) {
  using Printed = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
  if (!range.holds(static_cast<double>(value))) {
    options_detail::refuse_number(operation, name, static_cast<Printed>(value), range);
  }
}

// The same for every field that is a number, given or not.
template <typename Options>
void check_options(std::string_view operation, const Options& options) {
  const auto check = [&](const auto& field) {
    using Value = typename std::remove_cvref_t<decltype(field)>::Value;
    const auto& value = options.*field.member;
    if constexpr (Number<Value>) {
      check_range(operation, field.name, value, field.range);
    } else if constexpr (Number<typename options_detail::WithoutOptional<Value>::type>) {
      if (value) {
        check_range(operation, field.name, *value, field.range);
      }
    }
  };
  std::apply([&](const auto&... field) { (check(field), ...); }, Options::fields());
}

// ValueError, with the words there are, for another.
template <Worded Enumeration>
Enumeration value_of_word(std::string_view operation, std::string_view name, std::string_view text) {
  for (const auto& word : words<Enumeration>) {
    if (text == word.text) {
      return word.value;
    }
  }
  options_detail::refuse_word(operation, name, text, words_of<Enumeration>());
}

}  // namespace hemostat
