// Ctrl-C in the middle of a long computation.
#include <hemostat/interrupt.h>

#include <chrono>

#include <c10/core/InferenceMode.h>
#include <pybind11/pybind11.h>

#include "callbacks.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

bool interpreter_runs() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsInitialized() != 0 && Py_IsFinalizing() == 0;
#else
  return Py_IsInitialized() != 0 && _Py_IsFinalizing() == 0;
#endif
}

// Ten times a second, since Python code on another thread may keep the GIL for a while whenever it is asked for.
bool is_time() {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point next;
  const Clock::time_point now = Clock::now();
  if (now < next) {
    return false;
  }
  next = now + std::chrono::milliseconds(100);
  return true;
}

// Runs the signal handlers, which Python does on its main thread alone.
void look_for_signals() {
  if (!is_time() || !interpreter_runs()) {
    return;
  }
  const c10::InferenceMode off(false);  // a handler's tensors are as good as any
  const py::gil_scoped_acquire gil;
  check_signals();
}

}  // namespace

void register_interrupt() { set_interrupt_check(look_for_signals); }

}  // namespace hemostat::bindings
