// hemostat._C.lowrank
#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>

#include <hemostat/lowrank.h>

#include "module.h"

namespace hemostat::bindings {

void register_lowrank(py::module_& m) {
  auto room = m.def_submodule("lowrank", "A weight as the product of two thinner ones.");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  py::class_<lowrank::Factors>(room, "Factors", "weight = a @ b")
      .def_readonly("a", &lowrank::Factors::a, "``[out_features, rank]``")
      .def_readonly("b", &lowrank::Factors::b, "``[rank, in_features]``")
      .def_property_readonly("weight", py::cpp_function(&lowrank::Factors::weight, release_gil()),
                             "a @ b, multiplied in float32, in the factors' dtype.")
      .def_property_readonly("rank", &lowrank::Factors::rank, "Columns of a.")
      .def("__repr__", [](const lowrank::Factors& factors) {
        return fmt::format("Factors(a=[{}, {}], b=[{}, {}])", factors.a.size(0), factors.rank(), factors.rank(),
                           factors.b.size(1));
      });

  py::class_<lowrank::Decomposition>(room, "Decomposition", "A matrix factored once, for any severity.")
      .def_readonly("us", &lowrank::Decomposition::us,
                    "U * S, float32 ``[out_features, largest rank]``, in falling order of S.")
      .def_readonly("vh", &lowrank::Decomposition::vh, "float32 ``[largest rank, in_features]``")
      .def("at", &lowrank::Decomposition::at, py::arg("removed"), release_gil(),
           "The factors with this fraction of the parameters removed; see ``svd``.")
      .def("__repr__", [](const lowrank::Decomposition& decomposition) {
        return fmt::format("Decomposition(shape=[{}, {}], largest_rank={})", decomposition.us.size(0),
                           decomposition.vh.size(1), decomposition.us.size(1));
      });

  room.def("decompose", &lowrank::decompose, py::arg("weight"), py::kw_only(), py::arg("check_finite") = true,
           release_gil(), R"doc(Factor a weight once; ``.at(removed)`` then costs a copy.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    check_finite: False skips the look for NaN and infinities.

Returns:
    A ``Decomposition`` up to the largest rank that has no more parameters than the weight.

Raises:
    ValueError: A shape that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.
    NumericalError: The iteration does not converge.

Example:
    >>> import torch, hemostat
    >>> decomposition = hemostat.lowrank.decompose(torch.eye(8))
    >>> [decomposition.at(removed).rank for removed in (0.0, 0.25, 0.5)]
    [4, 3, 2]
)doc");

  room.def(
      "svd",
      [](const at::Tensor& weight, double removed, bool check_finite) {
        return lowrank::svd(weight, {.removed = removed, .check_finite = check_finite});
      },
      py::arg("weight"), py::kw_only(), py::arg("removed"), py::arg("check_finite") = true, release_gil(),
      R"doc(The closest product of two factors with a fraction of the parameters removed.

The rank is floor((1 - removed) * out * in / (out + in)), where a product within rounding of an integer is that integer;
at least 1 while anything is kept, 0 at removed = 1. removed = 0 keeps as many parameters as the weight had, which is
half of a square matrix's ranks: the severity jumps at 0. a = U_r S_r and b = V_r^T of the singular value decomposition
in float32 (Eckart and Young 1936). Factors carry no gradient.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    removed: Fraction of the parameters removed, 0 to 1.
    check_finite: False skips the look for NaN and infinities.

Returns:
    ``Factors`` with ``.a`` [out_features, rank], ``.b`` [rank, in_features], ``.weight`` and ``.rank``.

Raises:
    ValueError: A shape or severity that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.
    NumericalError: The iteration does not converge.

Example:
    >>> import torch, hemostat
    >>> factors = hemostat.lowrank.svd(torch.ones(6, 3), removed=0.5)
    >>> factors
    Factors(a=[6, 1], b=[1, 3])
    >>> bool((factors.weight - 1).abs().max() < 1e-5)
    True
)doc");

  room.def("rank_for", &lowrank::rank_for, py::arg("removed"), py::arg("out_features"), py::arg("in_features"),
           R"doc(The rank at which two factors hold (1 - removed) of a matrix's parameters; see ``svd``.

Args:
    removed: Fraction of the parameters removed, 0 to 1.
    out_features: Rows.
    in_features: Columns.

Returns:
    The rank.

Raises:
    ValueError: removed out of range.

Example:
    >>> import hemostat
    >>> hemostat.lowrank.rank_for(0.5, 576, 1536)
    209
)doc");
}

}  // namespace hemostat::bindings
