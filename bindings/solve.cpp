// hemostat._C.solve
#include <cstdint>
#include <optional>

#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>

#include <hemostat/solve.h>

#include "arguments.h"
#include "module.h"

namespace hemostat::bindings {

void register_solve(py::module_& m) {
  auto room = m.def_submodule("solve", "The Gram matrix of a layer's input, factored once for every solution.");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  py::class_<solve::GramFactor>(room, "GramFactor", R"doc(A Gram matrix factored once, for every severity.

What ``prune.sparsegpt`` and ``quantize.gptq`` take in place of ``gram``: each call then costs half a matrix product.
With H the damped Gram matrix and H = U U^T (U upper triangular) no inverse of H is needed: the papers'
[chol(H^-1)]_jj is 1 / U_jj. Immutable.

Args:
    gram: X^T X over the number of tokens, float32 ``[in_features, in_features]``, symmetric: only its lower triangle
        counts. Features that never were active (0 on the diagonal) take no part: their weights become 0.
    damp: Share of the mean diagonal entry that is added to the diagonal. Where the matrix is not positive definite
        then, ten times as much is tried, from 1e-6 on up to 1; ``.damp`` says what it came to.
    act_order: Features of the largest diagonal entries come first.
    block_size: Columns that are solved together.
    check_finite: False skips the look for NaN and infinities.

Raises:
    ValueError: gram is not square, an option is out of range, or gram has NaN or infinities.
    TypeError: gram is not float32.
    NumericalError: gram is not positive semidefinite.

Example:
    >>> import torch, hemostat
    >>> factor = hemostat.solve.GramFactor(torch.eye(8), block_size=4)
    >>> factor
    GramFactor(in_features=8, damp=0.01, act_order=False, block_size=4)
)doc")
      .def(py::init([](const at::Tensor& gram, double damp, bool act_order, int64_t block_size, bool check_finite) {
             return solve::GramFactor(
                 gram, {.damp = damp, .act_order = act_order, .block_size = block_size, .check_finite = check_finite});
           }),
           py::arg("gram"), py::kw_only(), py::arg("damp") = 0.01, py::arg("act_order") = false,
           py::arg("block_size") = 128, py::arg("check_finite") = true, release_gil())
      .def_property_readonly("in_features", &solve::GramFactor::in_features, "Rows and columns of the Gram matrix.")
      .def_property_readonly("damp", &solve::GramFactor::damp,
                             "What was added to the diagonal in the end, as a share of its mean.")
      .def_property_readonly("block_size", &solve::GramFactor::block_size, "Columns that are solved together.")
      .def_property_readonly(
          "matrix", &solve::GramFactor::matrix,
          "float32 ``[in_features, in_features]`` in the solver's order: the inverses of U's blocks on "
          "the diagonal, U's other blocks times them above it; below it nothing that counts.")
      .def_property_readonly(
          "order", [](const solve::GramFactor& factor) { return if_defined(factor.order()); },
          "int64 ``[in_features]``: ``order[i]`` is the feature that comes i-th; None where they come as they are.")
      .def_property_readonly(
          "dead", [](const solve::GramFactor& factor) { return if_defined(factor.dead()); },
          "bool ``[in_features]``: features that never were active; None where all were.")
      .def("__repr__", [](const solve::GramFactor& factor) {
        return fmt::format("GramFactor(in_features={}, damp={:g}, act_order={}, block_size={})", factor.in_features(),
                           factor.damp(), factor.order().defined() ? "True" : "False", factor.block_size());
      });
}

}  // namespace hemostat::bindings
