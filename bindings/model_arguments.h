// What a model takes from Python in more than one form, each refused in a sentence where it is of no such form: file
// names of any bytes, and tokens.
#pragma once

#include <string>

#include <ATen/Functions.h>
#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

namespace hemostat::bindings {

inline bool is_anything(PyObject*) { return true; }

// Any object: what is called with it says what it takes. Their names in stubs are below.
class __attribute__((visibility("hidden"))) CheckpointArgument : public pybind11::object {
 public:
  PYBIND11_OBJECT_DEFAULT(CheckpointArgument, object, is_anything)
};

class __attribute__((visibility("hidden"))) TokensArgument : public pybind11::object {
 public:
  PYBIND11_OBJECT_DEFAULT(TokensArgument, object, is_anything)
};

// A file's name as the system has it, of Python's str and back.
inline std::string file_name_from(const pybind11::object& text) {
  const auto bytes = pybind11::reinterpret_steal<pybind11::bytes>(PyUnicode_EncodeFSDefault(text.ptr()));
  if (!bytes) {
    throw pybind11::error_already_set();
  }
  return bytes;
}

inline pybind11::str file_name_to(const std::string& name) {
  return pybind11::reinterpret_steal<pybind11::str>(
      PyUnicode_DecodeFSDefaultAndSize(name.data(), static_cast<Py_ssize_t>(name.size())));
}

// A tensor as it is; an array, or a list of integers or of lists of them, as int64 on `device`.
inline at::Tensor tokens_from(const pybind11::object& given, at::Device device, const char* operation) {
  namespace py = pybind11;
  if (THPVariable_Check(given.ptr())) {
    return given.cast<at::Tensor>();
  }
  const bool array = py::hasattr(given, "__array_interface__");
  if (array || py::isinstance<py::list>(given) || py::isinstance<py::tuple>(given)) {
    try {
      const at::Tensor tensor = py::module_::import("torch").attr("as_tensor")(given).cast<at::Tensor>();
      return at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false) || tensor.numel() == 0
                 ? tensor.to(device, at::kLong)
                 : tensor.to(device);
    } catch (const py::error_already_set&) {  // it is ragged, or holds something else
    }
  }
  throw py::type_error(
      fmt::format("{}: tokens is a {}, but must be integers [B, T] or [T]: a tensor, an array, or a list", operation,
                  Py_TYPE(given.ptr())->tp_name));
}

}  // namespace hemostat::bindings

namespace pybind11::detail {

template <>
struct handle_type_name<hemostat::bindings::CheckpointArgument> {
  static constexpr auto name = const_name("str | os.PathLike");
};

template <>
struct handle_type_name<hemostat::bindings::TokensArgument> {
  static constexpr auto name = const_name("torch.Tensor | numpy.ndarray | list");
};

}  // namespace pybind11::detail
