// hemostat._C.prune
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <variant>

#include <torch/csrc/utils/pybind.h>

#include <hemostat/prune.h>
#include <hemostat/solve.h>

#include "arguments.h"
#include "module.h"
#include "prune_arguments.h"

namespace hemostat::bindings {

void register_prune(py::module_& m) {
  auto room = m.def_submodule("prune", R"doc(Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first.
)doc");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  room.def(
      "magnitude",
      [](const at::Tensor& weight, std::optional<double> sparsity, std::optional<std::string> pattern,
         const std::string& scope, std::optional<at::Tensor> out, bool check_finite) {
        return prune::magnitude(weight, {.sparsity = sparsity,
                                         .pattern = std::move(pattern),
                                         .scope = scope_of("magnitude", scope),
                                         .out = std::move(out),
                                         .check_finite = check_finite});
      },
      py::arg("weight"), py::kw_only(), py::arg("sparsity") = py::none(), py::arg("pattern") = py::none(),
      py::arg("scope") = "tensor", py::arg("out") = py::none(), py::arg("check_finite") = true, release_gil(),
      R"doc(Mask that removes the weights of smallest magnitude.

Removes the floor(sparsity * n) smallest ``|weight|`` of every scope of n weights (a product within rounding of an
integer is that integer), or keeps the n largest of every m consecutive weights of a row. Han et al. 2015,
arXiv 1506.02626.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
    pattern: ``"n:m"`` keeps n of every m; m divides in_features.
    scope: What ``sparsity`` counts over: ``"tensor"`` or ``"row"``.
    out: Contiguous bool tensor of weight's shape and device that receives the mask.
    check_finite: False skips the look for NaN.

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, scope, pattern or sparsity that cannot be, or NaN in weight (then ``out`` is
        unspecified).
    TypeError: weight is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.magnitude(torch.tensor([[3.0, -1.0, 2.0, 0.5]]), sparsity=0.5)
    tensor([[ True, False,  True, False]])
)doc");

  room.def(
      "wanda",
      [](const at::Tensor& weight, const at::Tensor& activation_norm, std::optional<double> sparsity,
         std::optional<std::string> pattern, std::optional<at::Tensor> out, bool check_finite) {
        return prune::wanda(
            weight, activation_norm,
            {.sparsity = sparsity, .pattern = std::move(pattern), .out = std::move(out), .check_finite = check_finite});
      },
      py::arg("weight"), py::arg("activation_norm"), py::kw_only(), py::arg("sparsity") = py::none(),
      py::arg("pattern") = py::none(), py::arg("out") = py::none(), py::arg("check_finite") = true, release_gil(),
      R"doc(Mask that removes, in each row, the weights of smallest magnitude times activation norm.

The score is ``|weight| * activation_norm`` in float32; floor(sparsity * in_features) weights of every row fall, or all
but n of every m. Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models",
arXiv 2306.11695, equation 1.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.
    sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
    pattern: ``"n:m"`` keeps n of every m; m divides in_features.
    out: Contiguous bool tensor of weight's shape and device that receives the mask.
    check_finite: False skips the look for NaN.

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, pattern or sparsity that cannot be, or NaN in weight (then ``out`` is unspecified).
    TypeError: An argument is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[3.0, -1.0, 2.0, 0.5]])
    >>> hemostat.prune.wanda(weight, torch.tensor([0.1, 1.0, 0.1, 1.0]), sparsity=0.5)
    tensor([[False,  True, False,  True]])
)doc");

  room.def("score_magnitude", &prune::score_magnitude, py::arg("weight"), release_gil(),
           R"doc(The score of ``magnitude``: ``|weight|`` in float32.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: weight has not two dimensions.
    TypeError: weight is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.score_magnitude(torch.tensor([[3.0, -1.0]]))
    tensor([[3., 1.]])
)doc");

  room.def("score_wanda", &prune::score_wanda, py::arg("weight"), py::arg("activation_norm"), release_gil(),
           R"doc(The score of ``wanda``: ``|weight| * activation_norm`` in float32.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: A shape or device that cannot be, or a norm that is NaN, infinite or negative.
    TypeError: An argument is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.score_wanda(torch.tensor([[3.0, -1.0]]), torch.tensor([1.0, 5.0]))
    tensor([[3., 5.]])
)doc");

  room.def(
      "mask",
      [](const at::Tensor& score, std::optional<double> sparsity, std::optional<std::string> pattern,
         const std::string& scope, std::optional<at::Tensor> out, bool check_finite) {
        return prune::mask(score, {.sparsity = sparsity,
                                   .pattern = std::move(pattern),
                                   .scope = scope_of("mask", scope),
                                   .out = std::move(out),
                                   .check_finite = check_finite});
      },
      py::arg("score"), py::kw_only(), py::arg("sparsity") = py::none(), py::arg("pattern") = py::none(),
      py::arg("scope") = "row", py::arg("out") = py::none(), py::arg("check_finite") = true, release_gil(),
      R"doc(Mask that removes the smallest scores, for a score of your own.

Args:
    score: ``[out_features, in_features]``, float32, bfloat16 or float16; larger is more worth keeping. Infinite scores
        are ranked like any other.
    sparsity: Fraction removed, 0 to 1: floor(sparsity * n) of every scope's n scores fall (a product within rounding of
        an integer is that integer). Give this or ``pattern``.
    pattern: ``"n:m"`` keeps n of every m consecutive entries of a row; m divides in_features.
    scope: What ``sparsity`` counts over: ``"row"`` or ``"tensor"``.
    out: Contiguous bool tensor of score's shape and device that receives the mask.
    check_finite: False skips the look for NaN.

Returns:
    Bool mask of score's shape, True = kept. Ties fall in index order.

Raises:
    ValueError: A shape, device, scope, pattern or sparsity that cannot be, or NaN in score (then ``out`` is
        unspecified).
    TypeError: score is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.mask(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), sparsity=0.5)
    tensor([[False,  True,  True, False]])
)doc");

  room.def(
      "kept_until",
      [](const at::Tensor& score, const std::string& scope, std::optional<at::Tensor> out, bool check_finite) {
        return prune::kept_until(
            score, {.scope = scope_of("kept_until", scope), .out = std::move(out), .check_finite = check_finite});
      },
      py::arg("score"), py::kw_only(), py::arg("scope") = "row", py::arg("out") = py::none(),
      py::arg("check_finite") = true, release_gil(),
      R"doc(The sparsity at which each weight falls: (rank of its score + 1) / n.

``kept_until(score) > sparsity`` is then the mask of any sparsity, one comparison each; ``mask_at`` is that comparison
with the same rounding as ``mask``.

Args:
    score: ``[out_features, in_features]``, float32, bfloat16 or float16; larger is more worth keeping.
    scope: What is ranked together: ``"row"`` or ``"tensor"``.
    out: Contiguous tensor of score's shape and device that receives the result.
    check_finite: False skips the look for NaN.

Returns:
    float32 tensor of score's shape; float64 where a scope holds more than 2**24 entries.

Raises:
    ValueError: A shape, device or scope that cannot be, or NaN in score (then ``out`` is unspecified).
    TypeError: score is not float32, bfloat16 or float16, or out has another dtype than the result.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.kept_until(torch.tensor([[4.0, 1.0, 3.0, 2.0]]))
    tensor([[1.0000, 0.2500, 0.7500, 0.5000]])
)doc");

  room.def(
      "mask_at",
      [](const at::Tensor& kept_until, double sparsity, const std::string& scope, std::optional<at::Tensor> out) {
        return prune::mask_at(kept_until, sparsity, scope_of("mask_at", scope), out);
      },
      py::arg("kept_until"), py::kw_only(), py::arg("sparsity"), py::arg("scope") = "row", py::arg("out") = py::none(),
      release_gil(),
      R"doc(The mask of one sparsity from what ``kept_until`` returned.

Args:
    kept_until: ``[out_features, in_features]``, from ``kept_until`` with the same scope.
    sparsity: Fraction removed, 0 to 1.
    scope: ``"row"`` or ``"tensor"``.
    out: Contiguous bool tensor of the same shape and device that receives the mask.

Returns:
    Bool mask, equal to ``mask(score, sparsity=sparsity, scope=scope)`` for every sparsity.

Raises:
    ValueError: A shape, device, scope or sparsity that cannot be.
    TypeError: kept_until is not float32 or float64, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> until = hemostat.prune.kept_until(torch.tensor([[4.0, 1.0, 3.0, 2.0]]))
    >>> hemostat.prune.mask_at(until, sparsity=0.5)
    tensor([[ True, False,  True, False]])
)doc");

  // Python's prune.sparsegpt names the two.
  room.def(
      "sparsegpt",
      [](const at::Tensor& weight, const GramOrFactor& gram, std::optional<double> sparsity,
         std::optional<std::string> pattern, int64_t block_size, double damp, std::optional<double> bits,
         std::optional<int64_t> group_size, bool symmetric, bool check_finite) {
        prune::SparseGptOptions options{.sparsity = sparsity,
                                        .pattern = std::move(pattern),
                                        .block_size = block_size,
                                        .damp = damp,
                                        .check_finite = check_finite};
        if (bits) {
          options.rounding = {.bits = *bits, .group_size = group_size.value_or(-1), .symmetric = symmetric};
        }
        const auto pruned =
            std::visit([&](const auto& given) { return prune::sparsegpt(weight, given, options); }, gram);
        return std::tuple(pruned.weight, pruned.mask);
      },
      py::arg("weight"), py::arg("gram"), py::kw_only(), py::arg("sparsity") = py::none(),
      py::arg("pattern") = py::none(), py::arg("block_size") = 128, py::arg("damp") = 0.01,
      py::arg("bits") = py::none(), py::arg("group_size") = py::none(), py::arg("symmetric") = false,
      py::arg("check_finite") = true, release_gil());

  room.def("apply", &prune::apply, py::arg("weight"), py::arg("mask"), py::kw_only(), py::arg("out") = py::none(),
           release_gil(),
           R"doc(The weight with exact zeros where the mask is False.

Removed entries are 0 even where the weight held NaN. Differentiable: gradients of removed weights are 0.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    mask: Bool tensor of weight's shape and device, True = kept.
    out: Contiguous tensor like weight that receives the result; may be weight itself.

Returns:
    The masked weight, in weight's dtype.

Raises:
    ValueError: Shapes or devices that differ, or an ``out`` that cannot be.
    TypeError: weight is not float32, bfloat16 or float16, or mask is not bool.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.apply(torch.tensor([[3.0, -1.0]]), torch.tensor([[True, False]]))
    tensor([[3., 0.]])
)doc");

  room.def("removed_count", &prune::removed_count, py::arg("sparsity"), py::arg("entries"),
           R"doc(How many of ``entries`` weights a sparsity removes: floor(sparsity * entries).

A product within double rounding of an integer is that integer.

Args:
    sparsity: Fraction removed, 0 to 1.
    entries: Weights in the scope, 0 or more.

Returns:
    The count.

Raises:
    ValueError: sparsity or entries out of range.

Example:
    >>> import hemostat
    >>> hemostat.prune.removed_count(0.29, 100)
    29
)doc");

  register_prune_scores(room);
}

}  // namespace hemostat::bindings
