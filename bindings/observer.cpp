// Room `model`: the observer, whose calls arrive while the GIL is released.
#include <string>
#include <vector>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/model.h>

#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

class PythonObserver : public Observer {
 public:
  void linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) override {
    PYBIND11_OVERRIDE(void, Observer, linear_input, block, names, x);
  }
  void linear_output(size_t block, const std::string& name, const at::Tensor& y) override {
    PYBIND11_OVERRIDE(void, Observer, linear_output, block, name, y);
  }
  void hidden_state(size_t index, const at::Tensor& x) override {
    PYBIND11_OVERRIDE(void, Observer, hidden_state, index, x);
  }
  // A class attribute, a property or a method.
  bool wants_attention() const override {
    py::gil_scoped_acquire gil;
    py::object self = py::cast(this, py::return_value_policy::reference);
    py::object wants = self.attr("wants_attention");
    if (PyCallable_Check(wants.ptr()) != 0) {
      wants = wants();
    }
    return PyObject_IsTrue(wants.ptr()) == 1;
  }
  void attention(size_t block, const at::Tensor& probabilities) override {
    PYBIND11_OVERRIDE(void, Observer, attention, block, probabilities);
  }
  void routing(size_t block, const at::Tensor& experts, const at::Tensor& weights) override {
    PYBIND11_OVERRIDE(void, Observer, routing, block, experts, weights);
  }
};

}  // namespace

void register_observer(py::module_& module) {
  py::class_<Observer, PythonObserver> observer(
      module, "Observer", R"(Sees a forward pass from inside: subclass it and override what you want to see.

Tensors are live: clone what you keep and may change. An exception raised in a method ends the forward pass and reaches
its caller. Attention probabilities are computed only where ``wants_attention`` is true (a class attribute, a property
or a method).

Example:
    >>> class Norms(hemostat.Observer):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.norms = []
    ...     def hidden_state(self, index, x):
    ...         self.norms.append(x.norm().item())
    >>> logits = model.forward(tokens, observer=Norms())
)");
  observer.def(py::init<>())
      .def("linear_input", &Observer::linear_input, "block"_a, "names"_a, "x"_a,
           R"(Called before the linears ``names``, which share the input ``x`` [..., in_features].

Args:
    block: Index of the block in this model.
    names: The linears' names.
    x: The input as it is before the linears' own input treatment.
)")
      .def("linear_output", &Observer::linear_output, "block"_a, "name"_a, "y"_a,
           R"(Called with what the linear ``name`` gives, [..., out_features].

Args:
    block: Index of the block in this model.
    name: The linear's name.
    y: The output; what follows may be computed in its memory.
)")
      .def("hidden_state", &Observer::hidden_state, "index"_a, "x"_a,
           R"(Called with the residual stream [B, T, hidden_size] before each block and after the last.

Args:
    index: 0 … L; L is after the last block, before the final norm.
    x: The residual stream.
)")
      .def("attention", &Observer::attention, "block"_a, "probabilities"_a,
           R"(Called with attention probabilities [B, heads, T, S] where ``wants_attention`` is true.

Args:
    block: Index of the block in this model.
    probabilities: Rows sum to 1 over the S visible tokens.
)")
      .def("routing", &Observer::routing, "block"_a, "experts"_a, "weights"_a,
           R"(Called with a mixture's choice for each token.

Args:
    block: Index of the block in this model.
    experts: int64 [tokens, top_k], the chosen experts.
    weights: [tokens, top_k], their weights.
)");
  observer.attr("wants_attention") = false;
}

}  // namespace hemostat::bindings
