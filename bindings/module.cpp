// The extension module hemostat._C: one register_<room>(module) per room, and how C++ exceptions reach Python.
#include <cstring>
#include <exception>

#include <pybind11/pybind11.h>

#include <c10/util/Exception.h>

#include <hemostat/error.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

// A message may quote a file's bytes or name, which need not be UTF-8.
void set_error(PyObject* type, const char* message) {
  const auto text = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)), "replace"));
  if (text) {
    PyErr_SetObject(type, text.ptr());
  }
}

void set_error(PyObject* type, const c10::Error& error) { set_error(type, error.what_without_backtrace()); }

PyObject* unknown_family = nullptr;  // outlives the interpreter

// Of c10's errors the derived ones come first; messages end before the C++ backtrace.
void translate(std::exception_ptr exception) {
  try {
    if (exception) {
      std::rethrow_exception(exception);
    }
  } catch (const UnknownFamily& error) {
    set_error(unknown_family, error.what());
  } catch (const ValueError& error) {
    set_error(PyExc_ValueError, error.what());
  } catch (const TypeError& error) {
    set_error(PyExc_TypeError, error.what());
  } catch (const Interrupted&) {
    PyErr_SetNone(PyExc_KeyboardInterrupt);
  } catch (const c10::IndexError& error) {
    set_error(PyExc_IndexError, error);
  } catch (const c10::ValueError& error) {
    set_error(PyExc_ValueError, error);
  } catch (const c10::TypeError& error) {
    set_error(PyExc_TypeError, error);
  } catch (const c10::NotImplementedError& error) {
    set_error(PyExc_NotImplementedError, error);
  } catch (const c10::OutOfMemoryError& error) {
    set_error(py::module_::import("torch").attr("OutOfMemoryError").ptr(), error);
  } catch (const c10::LinAlgError& error) {
    set_error(py::module_::import("torch.linalg").attr("LinAlgError").ptr(), error);
  } catch (const c10::Error& error) {
    set_error(PyExc_RuntimeError, error);
  }
}

}  // namespace
}  // namespace hemostat::bindings

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ library behind the hemostat package.";
  py::register_local_exception_translator(hemostat::bindings::translate);
  py::register_exception<hemostat::NumericalError>(m, "NumericalError", PyExc_ArithmeticError).attr("__module__") =
      "hemostat";

  hemostat::bindings::unknown_family = PyErr_NewException("hemostat._C.UnknownFamily", PyExc_ValueError, nullptr);
  m.add_object("UnknownFamily", hemostat::bindings::unknown_family);

  // A class comes before the functions whose signatures name it.
  using namespace hemostat::bindings;
  register_solve(m);
  register_prune(m);
  register_quantize(m);
  register_lowrank(m);
  register_noise(m);
  register_decode(m);
  register_model(m);
  register_ablate(m);
  register_normalize(m);
  register_extend(m);
  register_context(m);
  register_generate(m);
  register_statistics(m);
  register_structured(m);
  register_axis(m);
  register_methods(m);
  register_metrics(m);
  register_threshold(m);
  register_localize(m);
  register_scan(m);
  register_find_threshold(m);
  register_mitigate(m);
  register_pickling(m);
  register_interrupt();
  explain_refusals(m);
}
