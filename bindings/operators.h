// Operators as Python functions: what comes first by position, and the fields of their options by keyword. Keywords,
// defaults and the lines of the docstring are those that the options declare (hemostat/options.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include <fmt/format.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/options.h>
#include <hemostat/quantize.h>

#include "group_size.h"
#include "module.h"

namespace hemostat::bindings {

// How a field's value is spelt in Python.
template <typename Value>
struct Spelling {
  using Type = Value;
  static Value value(const std::string&, const char*, Type given) { return given; }
  static py::object spelt(const Value& value) { return py::cast(value); }
  static std::string line(const char* text, const Range& range) { return text + after("; ", to_string(range)); }

  static std::string after(const char* separator, const std::string& part) {
    return part.empty() ? part : separator + part;
  }
};

template <Worded Value>
struct Spelling<Value> {
  using Type = std::string;
  static Value value(const std::string& operation, const char* name, const Type& given) {
    return value_of_word<Value>(operation, name, given);
  }
  static py::object spelt(Value value) { return py::cast(word_of(value)); }
  static std::string line(const char* text, const Range&) {
    return fmt::format("{}: ``\"{}\"``", text, fmt::join(words_of<Value>(), "\"``, ``\""));
  }
};

// A negative seed is refused instead of wrapped.
template <>
struct Spelling<uint64_t> {
  using Type = int64_t;
  static uint64_t value(const std::string& operation, const char* name, Type given) {
    check_range(operation, name, given, at_least(0));
    return static_cast<uint64_t>(given);
  }
  static py::object spelt(uint64_t value) { return py::cast(value); }
  static std::string line(const char* text, const Range& range) { return Spelling<int64_t>::line(text, range); }
};

template <>
struct Spelling<quantize::GroupSize> {
  using Type = GroupSize;
  static quantize::GroupSize value(const std::string& operation, const char*, const Type& given) {
    return group_size_of(operation, given);
  }
  static py::object spelt(quantize::GroupSize value) {
    return value == quantize::kPerRow      ? py::object(py::none())
           : value == quantize::kPerTensor ? py::object(py::str("tensor"))
                                           : py::object(py::int_(value.weights));
  }
  static std::string line(const char* text, const Range& range) {
    return fmt::format("{}: None or -1 for whole rows, {}or a divisor of in_features", text,
                       range.holds(quantize::kPerTensor) ? "``\"tensor\"`` for the whole matrix, " : "");
  }
};

template <>
struct Spelling<quantize::GgufType> {
  using Type = std::string;
  static quantize::GgufType value(const std::string&, const char*, const Type& given) {
    return quantize::gguf_type_from_name(given);
  }
  static py::object spelt(quantize::GgufType value) { return py::cast(quantize::gguf_name(value)); }
  static std::string line(const char* text, const Range&) { return text; }
};

// "    name: Text.", wrapped.
std::string argument_lines(const char* name, const std::string& text);

// The docstring whose line "{options}" stands for those of the options.
std::string with_options(std::string_view docstring, const std::string& lines);

// "hemostat.prune.ria" of hemostat._C.prune.
std::string operation_name(const py::module_& room, const char* name);

template <typename Options>
class Keywords {
  using Fields = decltype(Options::fields());
  template <size_t I>
  using Value = typename std::tuple_element_t<I, Fields>::Value;

 public:
  static constexpr size_t kCount = std::tuple_size_v<Fields>;

  template <size_t I>
  using Given = typename Spelling<Value<I>>::Type;

  // py::arg, with the default unless the caller has to say it: what a severity is has none.
  template <size_t I>
  static auto keyword() {
    constexpr auto field = std::get<I>(Options::fields());
    if constexpr (field.set_by == SetBy::severity && std::is_arithmetic_v<Value<I>>) {
      return py::arg(field.name);
    } else {
      return py::arg_v(field.name, Spelling<Value<I>>::spelt(Options{}.*field.member));
    }
  }

  template <size_t... I>
  static Options options(const std::string& operation, std::index_sequence<I...>, Given<I>... given) {
    Options result;
    (set<I>(result, operation, std::move(given)), ...);
    return result;
  }

  static std::string lines() {
    std::string result;
    const auto add = [&](const auto& field) {
      using FieldValue = typename std::remove_cvref_t<decltype(field)>::Value;
      result += argument_lines(field.name, Spelling<FieldValue>::line(field.text, field.range));
    };
    std::apply([&](const auto&... field) { (add(field), ...); }, Options::fields());
    return result;
  }

 private:
  template <size_t I>
  static void set(Options& result, const std::string& operation, Given<I> given) {
    constexpr auto field = std::get<I>(Options::fields());
    result.*field.member = Spelling<Value<I>>::value(operation, field.name, std::move(given));
  }
};

template <typename Function>
struct Signature;
template <typename R, typename... A>
struct Signature<R (*)(A...)> {
  using Result = R;
  using Arguments = std::tuple<A...>;
  using Options = std::remove_cvref_t<std::tuple_element_t<sizeof...(A) - 1, Arguments>>;
  static constexpr size_t kLeading = sizeof...(A) - 1;
};

namespace operators_detail {

template <typename Function, size_t... L, size_t... F>
void define(py::module_& room, const char* name, Function function,
            const std::array<const char*, sizeof...(L)>& leading, const char* docstring, std::index_sequence<L...>,
            std::index_sequence<F...> fields) {
  using Arguments = typename Signature<Function>::Arguments;
  using Words = Keywords<typename Signature<Function>::Options>;
  room.def(
      name,
      [function, operation = operation_name(room, name), fields](std::tuple_element_t<L, Arguments>... first,
                                                                 typename Words::template Given<F>... given) {
        return function(first..., Words::options(operation, fields, std::move(given)...));
      },
      py::arg(leading[L])..., py::kw_only(), Words::template keyword<F>()..., py::call_guard<py::gil_scoped_release>(),
      with_options(docstring, Words::lines()).c_str());
}

template <typename Whole, typename Packed, size_t... L, size_t... F>
void define_packed(py::module_& room, const char* name, Whole whole, Packed packed,
                   const std::array<const char*, sizeof...(L)>& leading, const char* docstring,
                   std::index_sequence<L...>, std::index_sequence<F...> fields) {
  using Arguments = typename Signature<Whole>::Arguments;
  using Words = Keywords<typename Signature<Whole>::Options>;
  using Result = std::variant<typename Signature<Whole>::Result, typename Signature<Packed>::Result>;
  room.def(
      name,
      [whole, packed, operation = operation_name(room, name), fields](
          std::tuple_element_t<L, Arguments>... first, bool as_codes,
          typename Words::template Given<F>... given) -> Result {
        const auto options = Words::options(operation, fields, std::move(given)...);
        if (as_codes) {
          return packed(first..., options);
        }
        return whole(first..., options);
      },
      py::arg(leading[L])..., py::kw_only(), py::arg("packed") = false, Words::template keyword<F>()...,
      py::call_guard<py::gil_scoped_release>(),
      with_options(docstring,
                   argument_lines("packed", "return the codes instead of the rounded weight") + Words::lines())
          .c_str());
}

}  // namespace operators_detail

// function(leading…, const Options&)
template <typename Function>
void def_operator(py::module_& room, const char* name, Function function,
                  const std::array<const char*, Signature<Function>::kLeading>& leading, const char* docstring) {
  operators_detail::define(room, name, function, leading, docstring,
                           std::make_index_sequence<Signature<Function>::kLeading>(),
                           std::make_index_sequence<Keywords<typename Signature<Function>::Options>::kCount>());
}

// The same of two functions with the same arguments: the second, where `packed` is asked for, gives codes.
template <typename Whole, typename Packed>
void def_quantizer(py::module_& room, const char* name, Whole whole, Packed packed,
                   const std::array<const char*, Signature<Whole>::kLeading>& leading, const char* docstring) {
  operators_detail::define_packed(room, name, whole, packed, leading, docstring,
                                  std::make_index_sequence<Signature<Whole>::kLeading>(),
                                  std::make_index_sequence<Keywords<typename Signature<Whole>::Options>::kCount>());
}

}  // namespace hemostat::bindings
