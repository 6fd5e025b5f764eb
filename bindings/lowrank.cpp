// hemostat._C.lowrank
#include <torch/csrc/utils/pybind.h>

#include <fmt/format.h>

#include <hemostat/lowrank.h>

#include "module.h"
#include "operators.h"

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
                    "float32 ``[out_features, largest rank]``, in falling order of singular values.")
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
    NumericalError: The iteration does not converge, or a factor is beyond its dtype.

Example:
    >>> import torch, hemostat
    >>> decomposition = hemostat.lowrank.decompose(torch.eye(8))
    >>> [decomposition.at(removed).rank for removed in (0.0, 0.25, 0.5)]
    [4, 3, 2]
)doc");

  def_operator(room, "svd", &lowrank::svd, {"weight"},
               R"doc(The closest product of two factors with a fraction of the parameters removed.

The rank is floor((1 - removed) * out * in / (out + in)), where a product within rounding of an integer is that integer;
at least 1 while anything is kept, 0 at removed = 1. removed = 0 keeps as many parameters as the weight had, which is
half of a square matrix's ranks: the severity jumps at 0. a = U_r S_r and b = V_r^T of the singular value decomposition
in float32 (Eckart and Young 1936). Factors carry no gradient.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
{options}

Returns:
    ``Factors`` with ``.a`` [out_features, rank], ``.b`` [rank, in_features], ``.weight`` and ``.rank``.

Raises:
    ValueError: A shape or severity that cannot be, or NaN or infinities in weight.
    TypeError: weight is not float32, bfloat16 or float16.
    NumericalError: The iteration does not converge, or a factor is beyond its dtype.

Example:
    >>> import torch, hemostat
    >>> factors = hemostat.lowrank.svd(torch.ones(6, 3), removed=0.5)
    >>> factors
    Factors(a=[6, 1], b=[1, 3])
    >>> bool((factors.weight - 1).abs().max() < 1e-5)
    True
)doc");

  def_operator(room, "asvd", &lowrank::asvd, {"weight", "activation_absmean"},
               R"doc(ASVD: the closest product of two factors where input features with large activations count more.

The truncated singular value decomposition of weight * scale, with scale = activation_absmean**alpha + 1e-6, unscaled
(Yuan et al. 2023, arXiv 2312.05821). It is computed without a division as U_r (U_r^T weight), U_r the leading left
singular vectors: a = U_r, b = U_r^T weight. Rank and severity as in ``svd``. Factors carry no gradient.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    activation_absmean: ``[in_features]``, mean absolute value of each input feature; see ``hemostat.collect``.
{options}

Returns:
    ``Factors`` with ``.a`` [out_features, rank], ``.b`` [rank, in_features], ``.weight`` and ``.rank``.

Raises:
    ValueError: A shape, severity or alpha that cannot be, NaN or infinities in weight, or NaN, infinities or negative
        entries in activation_absmean.
    TypeError: A tensor is not float32, bfloat16 or float16.
    NumericalError: The iteration does not converge, meets numbers beyond float64, or a factor is beyond its
        dtype.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> factors = hemostat.lowrank.asvd(weight, torch.tensor([1.0, 100.0]), removed=0.0)
    >>> factors.rank, bool((factors.weight - torch.tensor([[0.0, 0.0], [0.0, 1.0]])).abs().max() < 1e-6)
    (1, True)
)doc");

  room.def("decompose_asvd", &lowrank::decompose_asvd, py::arg("weight"), py::arg("activation_absmean"), py::kw_only(),
           py::arg("alpha") = 0.5, py::arg("check_finite") = true, release_gil(),
           R"doc(Factor a weight once as ``asvd`` does; ``.at(removed)`` then costs a copy.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    activation_absmean: ``[in_features]``, mean absolute value of each input feature.
    alpha: Exponent of the scale, 0 or more.
    check_finite: False skips the look for NaN and infinities.

Returns:
    A ``Decomposition`` up to the largest rank that has no more parameters than the weight.

Raises:
    ValueError: A shape or alpha that cannot be, or entries that ``asvd`` does not take.
    TypeError: A tensor is not float32, bfloat16 or float16.
    NumericalError: The iteration does not converge, meets numbers beyond float64, or a factor is beyond its
        dtype.

Example:
    >>> import torch, hemostat
    >>> decomposition = hemostat.lowrank.decompose_asvd(torch.eye(8), torch.ones(8))
    >>> [decomposition.at(removed).rank for removed in (0.0, 0.25, 0.5)]
    [4, 3, 2]
)doc");

  def_operator(room, "svd_llm", &lowrank::svd_llm, {"weight", "gram"},
               R"doc(SVD-LLM: the product of two factors that errs least on the inputs that the Gram matrix saw.

The truncated singular value decomposition of weight * S with S S^T = gram, times S^-1 (Wang et al. 2024, arXiv
2403.07378, truncation-aware whitening). It is computed without S as U_r (U_r^T weight), U_r the leading eigenvectors of
weight * gram * weight^T in float64: a = U_r, b = U_r^T weight. The squared error on the inputs is the sum of the squares
of the singular values left out. Any Gram matrix will do, also of fewer tokens than features, or with features that are
always 0: its diagonal grows by at least 2^-23 of its largest entry (float32's rounding), so that directions which no
input had are ordered by the weight alone; a Gram matrix of zeros is taken for the identity. Rank and severity as in ``svd``.
Factors carry no gradient.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    gram: ``[in_features, in_features]``, symmetric: X^T X / tokens; see ``hemostat.collect``.
{options}

Returns:
    ``Factors`` with ``.a`` [out_features, rank], ``.b`` [rank, in_features], ``.weight`` and ``.rank``.

Raises:
    ValueError: A shape, severity or damp that cannot be, NaN or infinities in weight or gram, or a gram that is not
        symmetric or whose diagonal has negative entries.
    TypeError: A tensor is not float32, bfloat16 or float16.
    NumericalError: gram is not positive semidefinite, the iteration does not converge, or a factor is beyond its dtype.

Example:
    >>> import torch, hemostat
    >>> inputs = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # the second feature is always 0
    >>> factors = hemostat.lowrank.svd_llm(torch.eye(2), inputs.T @ inputs / 2, removed=0.0)
    >>> factors.rank, bool((inputs @ factors.weight.T - inputs).abs().max() < 1e-5)
    (1, True)
)doc");

  room.def("decompose_svd_llm", &lowrank::decompose_svd_llm, py::arg("weight"), py::arg("gram"), py::kw_only(),
           py::arg("damp") = 0.0, py::arg("check_finite") = true, release_gil(),
           R"doc(Factor a weight once as ``svd_llm`` does; ``.at(removed)`` then costs a copy.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    gram: ``[in_features, in_features]``, symmetric: X^T X / tokens.
    damp: What gram's diagonal grows by, in fractions of its mean; 0 or more.
    check_finite: False skips the look for NaN and infinities.

Returns:
    A ``Decomposition`` up to the largest rank that has no more parameters than the weight.

Raises:
    ValueError: A shape or damp that cannot be, or entries that ``svd_llm`` does not take.
    TypeError: A tensor is not float32, bfloat16 or float16.
    NumericalError: gram is not positive semidefinite, the iteration does not converge, or a factor is beyond its dtype.

Example:
    >>> import torch, hemostat
    >>> decomposition = hemostat.lowrank.decompose_svd_llm(torch.eye(8), torch.eye(8))
    >>> [decomposition.at(removed).rank for removed in (0.0, 0.25, 0.5)]
    [4, 3, 2]
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
