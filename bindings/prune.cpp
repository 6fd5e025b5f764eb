// hemostat._C.prune
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <torch/csrc/utils/pybind.h>

#include <hemostat/prune.h>
#include <hemostat/solve.h>

#include "arguments.h"
#include "module.h"
#include "operators.h"
#include "prune_arguments.h"

namespace hemostat::bindings {

void register_prune(py::module_& m) {
  auto room = m.def_submodule("prune", R"doc(Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first.
)doc");
  using release_gil = py::call_guard<py::gil_scoped_release>;

  def_operator(room, "magnitude", &prune::magnitude, {"weight"},
               R"doc(Mask that removes the weights of smallest magnitude.

Removes the floor(sparsity * n) smallest ``|weight|`` of every scope of n weights (a product within rounding of an
integer is that integer), or keeps the n largest of every m consecutive weights of a row. Han et al. 2015,
arXiv 1506.02626.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
{options}

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

  def_operator(room, "wanda", &prune::wanda, {"weight", "activation_norm"},
               R"doc(Mask that removes, in each row, the weights of smallest magnitude times activation norm.

The score is ``|weight| * activation_norm`` in float32; floor(sparsity * in_features) weights of every row fall, or all
but n of every m. Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models",
arXiv 2306.11695, equation 1.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.
{options}

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

  def_operator(room, "mask", &prune::mask, {"score"},
               R"doc(Mask that removes the smallest scores, for a score of your own.

Args:
    score: ``[out_features, in_features]``, float32, bfloat16 or float16; larger is more worth keeping. Infinite scores
        are ranked like any other.
{options}

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

  def_operator(room, "kept_until", &prune::kept_until, {"score"},
               R"doc(The sparsity at which each weight falls: (rank of its score + 1) / n.

``kept_until(score) > sparsity`` is then the mask of any sparsity, one comparison each; ``mask_at`` is that comparison
with the same rounding as ``mask``.

Args:
    score: ``[out_features, in_features]``, float32, bfloat16 or float16; larger is more worth keeping.
{options}

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
      [](const at::Tensor& kept_until, double sparsity, const std::string& scope, std::optional<at::Tensor> out,
         bool check_finite) {
        return prune::mask_at(kept_until, sparsity, scope_of("mask_at", scope), out, check_finite);
      },
      py::arg("kept_until"), py::kw_only(), py::arg("sparsity"), py::arg("scope") = "row", py::arg("out") = py::none(),
      py::arg("check_finite") = true, release_gil(),
      R"doc(The mask of one sparsity from what ``kept_until`` returned.

Args:
    kept_until: ``[out_features, in_features]``, from ``kept_until`` with the same scope.
    sparsity: Fraction removed, 0 to 1.
    scope: ``"row"`` or ``"tensor"``.
    out: Contiguous bool tensor of the same shape and device that receives the mask.
    check_finite: False skips the look for NaN.

Returns:
    Bool mask, equal to ``mask(score, sparsity=sparsity, scope=scope)`` for every sparsity.

Raises:
    ValueError: A shape, device, scope or sparsity that cannot be, or NaN in kept_until.
    TypeError: kept_until is not float32 or float64, or float32 for a scope of more than 2**24 entries; or out is not
        bool.

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
        if (!bits && (group_size || symmetric)) {
          throw ValueError(
              "hemostat.prune.sparsegpt: group_size and symmetric say how what is kept is rounded, but bits is not "
              "given");
        }
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

  def_operator(
      room, "admm",
      +[](const at::Tensor& weight, const at::Tensor& gram, const prune::AdmmOptions& options) {
        const prune::Pruned pruned = prune::admm(weight, gram, options);
        return std::pair(pruned.weight, pruned.mask);
      },
      {"weight", "gram"}, "hemostat.prune.admm as a pair of weight and mask.\n\nArgs:\n{options}\n");

  def_operator(room, "dsnot", &prune::dsnot, {"weight", "mask", "activation_mean", "activation_norm"},
               R"doc(Refine a mask by swapping weights until each row's mean output is right.

With the contributions ``weight * activation_mean`` and the error of a row, their sum over its removed weights, every
cycle regrows the removed weight of the error's sign with the largest ``|contribution|`` / variance of its input, and
removes the kept weight of the other sign with the least ``|weight| * activation_norm``. Zhang et al. 2024, "Dynamic
Sparse No Training", arXiv 2310.08915.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    mask: Bool tensor of weight's shape and device, True = kept, as ``wanda`` or ``magnitude`` gives it.
    activation_mean: ``[in_features]``, the mean of each input feature, with its sign.
    activation_norm: ``[in_features]``, its root mean square; the variance is norm^2 - mean^2.
{options}

Returns:
    Bool mask that keeps as many weights in each row, and in each group of a pattern.

Raises:
    ValueError: A shape, device or number that cannot be, a mask that does not have its pattern, or NaN or infinities.
    TypeError: mask is not bool, or another argument not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> weight, mean = torch.tensor([[2.0, 1.0, -1.1]]), torch.ones(3)
    >>> mask = torch.tensor([[True, False, True]])
    >>> hemostat.prune.dsnot(weight, mask, mean, 2 * mean, max_cycles=1)
    tensor([[ True,  True, False]])
)doc");

  room.def(
      "outlier_ratio",
      [](const std::vector<at::Tensor>& weights, const std::vector<at::Tensor>& activation_norms,
         double outlier_threshold, bool check_finite) {
        return prune::outlier_ratio(weights, activation_norms, outlier_threshold, check_finite);
      },
      py::arg("weights"), py::arg("activation_norms"), py::kw_only(), py::arg("outlier_threshold") = 5.0,
      py::arg("check_finite") = true, release_gil(),
      R"doc(The share of a block's scores ``|weight| * activation_norm`` that exceed a multiple of their mean.

Yin et al. 2024, "Outlier Weighed Layerwise Sparsity (OWL)", arXiv 2310.05175, section 3.

Args:
    weights: Sequence of ``[out_features, in_features]``, at least one: a block's.
    activation_norms: Sequence of ``[in_features]``, one for each weight: the root mean square of its input features.
    outlier_threshold: The multiple; 0 or more.
    check_finite: False skips the look for NaN and infinities.

Returns:
    0 to 1, over all weights together.

Raises:
    ValueError: Shapes, devices or numbers that cannot be, or NaN or infinities.
    TypeError: A tensor is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[1.0, 1.0, 1.0, 21.0]])
    >>> hemostat.prune.outlier_ratio([weight], [torch.ones(4)], outlier_threshold=3)
    0.25
)doc");

  def_operator(room, "owl", &prune::owl, {"ratios"},
               R"doc(The sparsity of each block: less for blocks with more outliers, and the given one on average.

sparsity - (d - mean d), where d spreads the ratios over 0 to 2 lamda; equal ratios give equal sparsities. Where one
would leave 0 to 1, all differences shrink until it lies on that end. Yin et al. 2024, "Outlier Weighed Layerwise
Sparsity (OWL)", arXiv 2310.05175.

Args:
    ratios: The blocks' outlier ratios, as ``outlier_ratio`` gives them; finite.
{options}

Returns:
    A list of 0 to 1, one for each block.

Raises:
    ValueError: A number out of range.

Example:
    >>> import hemostat
    >>> [round(s, 3) for s in hemostat.prune.owl([0.01, 0.02, 0.03], sparsity=0.5, lamda=0.1)]
    [0.6, 0.5, 0.4]
)doc");

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
