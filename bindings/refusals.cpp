// A call whose arguments fit no signature gets a sentence (python/hemostat/_refusals.py) in place of pybind11's list of
// signatures. pybind11 has one dispatcher for all functions, which each finds by a pointer: ours stands in front of it,
// and looks at nothing but failures. Signatures and docstrings stay as they are.
#include <cstddef>
#include <string>
#include <string_view>

#include <pybind11/detail/function_record_pyobject.h>
#include <pybind11/pybind11.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using Dispatcher = PyObject* (*)(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names);
constexpr int kFlags = METH_FASTCALL | METH_KEYWORDS;  // of that form

Dispatcher pybind11_dispatcher = nullptr;
PyObject* message_of = nullptr;  // what the package gave for it; outlives the interpreter

void explain(const py::detail::function_record& record, PyObject* const* arguments, size_t count, PyObject* names) {
  py::error_already_set refused;  // takes the exception
  const std::string text = py::str(refused.value());
  const std::string start = std::string(record.name) + "(): incompatible ";
  const size_t positional = PyVectorcall_NARGS(count);
  if (!text.starts_with(start) || message_of == nullptr) {  // it was raised by what was called
    refused.restore();
    return;
  }
  try {
    py::list signatures;
    for (const auto* overload = &record; overload != nullptr; overload = overload->next) {
      signatures.append(py::str(overload->signature));
    }
    py::tuple given(positional);
    for (size_t i = 0; i < positional; ++i) {
      given[i] = py::reinterpret_borrow<py::object>(arguments[i]);
    }
    py::dict named;
    for (size_t i = 0; names != nullptr && i < static_cast<size_t>(PyTuple_GET_SIZE(names)); ++i) {
      named[PyTuple_GET_ITEM(names, i)] = py::reinterpret_borrow<py::object>(arguments[positional + i]);
    }
    const py::object message = py::handle(message_of)(record.scope, record.name, signatures, given, named);
    PyErr_SetObject(PyExc_TypeError, message.ptr());
  } catch (py::error_already_set&) {  // better a list of signatures than an error about the error
    refused.restore();
  }
}

PyObject* dispatcher(PyObject* self, PyObject* const* arguments, size_t count, PyObject* names) {
  PyObject* result = pybind11_dispatcher(self, arguments, count, names);
  if (result == nullptr && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
    explain(*py::detail::function_record_ptr_from_PyObject(self), arguments, count, names);
  }
  return result;
}

void stand_before(PyObject* function) {
  PyObject* self = PyCFunction_GET_SELF(function);
  if (self == nullptr || !py::detail::is_function_record_PyObject(self)) {
    return;
  }
  PyMethodDef* definition = reinterpret_cast<PyCFunctionObject*>(function)->m_ml;
  const auto own = reinterpret_cast<Dispatcher>(reinterpret_cast<void (*)()>(definition->ml_meth));
  if (definition->ml_flags != kFlags || own == &dispatcher) {
    return;  // of another pybind11, whose own messages stay; or ours already
  }
  pybind11_dispatcher = own;
  definition->ml_meth = reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&dispatcher));
}

void visit(py::handle value, const std::string& package) {
  PyObject* object = value.ptr();
  if (PyCFunction_Check(object)) {
    stand_before(object);
  } else if (PyInstanceMethod_Check(object)) {
    visit(PyInstanceMethod_GET_FUNCTION(object), package);
  } else if (Py_IS_TYPE(object, &PyStaticMethod_Type)) {
    visit(value.attr("__func__"), package);
  } else if (py::isinstance(value, reinterpret_cast<PyObject*>(&PyProperty_Type))) {
    visit(value.attr("fget"), package);
    visit(value.attr("fset"), package);
  } else if (PyModule_Check(object) || PyType_Check(object)) {
    const auto name = py::str(value.attr(PyModule_Check(object) ? "__name__" : "__module__")).cast<std::string>();
    if (name.starts_with(package)) {
      for (const auto& entry : py::dict(value.attr("__dict__"))) {
        visit(entry.second, package);
      }
    }
  }
}

}  // namespace

void explain_refusals(py::module_& module) {
  module.def(
      "_explain_refusals", [](py::function message) { message_of = message.release().ptr(); }, py::arg("message"),
      "Takes the function that says what is wrong with a call.");
  visit(module, py::str(module.attr("__name__")).cast<std::string>());
}

}  // namespace hemostat::bindings
