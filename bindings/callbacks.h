// Python callables that the library calls while the GIL is released.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include <pybind11/pybind11.h>

namespace hemostat::bindings {

// A Python object that may be copied and dropped without the GIL.
class __attribute__((visibility("hidden"))) Callable {
 public:
  explicit Callable(pybind11::object function) : function_(new pybind11::object(std::move(function)), drop) {}

  // The caller holds the GIL, as for the next.
  const pybind11::object& object() const { return *function_; }

  template <class... Arguments>
  pybind11::object operator()(Arguments&&... arguments) const {
    return (*function_)(std::forward<Arguments>(arguments)...);
  }

 private:
  static void drop(pybind11::object* function) {
    if (!Py_IsInitialized()) {
      function->release();  // the interpreter is gone, and its objects with it
      delete function;
      return;
    }
    pybind11::gil_scoped_acquire gil;
    delete function;
  }

  std::shared_ptr<pybind11::object> function_;
};

// Ctrl-C reaches Python code only where somebody asks; the caller holds the GIL.
inline void check_signals() {
  if (PyErr_CheckSignals() != 0) {
    throw pybind11::error_already_set();
  }
}

// Calls `function`, where there is one, with the arguments; always looks for signals first. What it raises passes
// through the library to the Python caller.
template <class... Arguments>
std::function<void(Arguments...)> callback(const std::optional<pybind11::function>& function) {
  if (!function) {
    return [](Arguments...) {
      pybind11::gil_scoped_acquire gil;
      check_signals();
    };
  }
  return [callable = Callable(*function)](Arguments... arguments) {
    pybind11::gil_scoped_acquire gil;
    check_signals();
    callable(arguments...);
  };
}

// The same of a function that answers with a Value, or with None.
template <class Value, class... Arguments>
std::function<std::optional<Value>(Arguments...)> question(const std::optional<pybind11::function>& function) {
  if (!function) {
    return nullptr;
  }
  return [callable = Callable(*function)](Arguments... arguments) {
    pybind11::gil_scoped_acquire gil;
    check_signals();
    return callable(arguments...).template cast<std::optional<Value>>();
  };
}

// (done, total)
using ProgressFunction = std::optional<pybind11::function>;

inline std::function<void(int64_t, int64_t)> progress_callback(const ProgressFunction& function) {
  return callback<int64_t, int64_t>(function);
}

}  // namespace hemostat::bindings
