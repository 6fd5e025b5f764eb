// Python's properties of a model's parts, of the list of their fields.
#pragma once

#include <string>
#include <tuple>
#include <type_traits>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "arguments.h"
#include "model/parts.h"

namespace hemostat::bindings {

// A read-only property for each field that has a text: a tensor that may be undefined is None, an enumeration its word.
template <typename Part>
pybind11::class_<Part> with_fields(pybind11::class_<Part> type) {
  const auto add = [&]<typename Field>(const Field& field) {
    const auto member = field.member;
    const auto property = [&](const auto& get) { type.def_property_readonly(field.names.name, get, field.text); };
    using Value = std::decay_t<decltype(std::declval<const Part&>().*member)>;
    if (field.text == nullptr) {
      return;
    }
    if constexpr (std::is_same_v<Value, at::Tensor>) {
      if constexpr (parts::IsTensor<Field>) {
        if (field.required) {
          type.def_readonly(field.names.name, member, field.text);
          return;
        }
      }
      property([member](const Part& part) { return if_defined(part.*member); });
    } else if constexpr (std::is_enum_v<Value>) {
      property([member](const Part& part) { return std::string(parts::word(part.*member)); });
    } else {
      type.def_readonly(field.names.name, member, field.text);
    }
  };
  std::apply([&](const auto&... field) { (add(field), ...); }, parts::kFields<Part>);
  return type;
}

}  // namespace hemostat::bindings
