// hemostat._C.prune: scores that take relative importance or gradients, and the permutation for n:m.
#include <torch/csrc/utils/pybind.h>

#include <hemostat/prune.h>

#include "module.h"
#include "operators.h"
#include "prune_arguments.h"

namespace hemostat::bindings {

void register_prune_scores(py::module_& room) {
  using release_gil = py::call_guard<py::gil_scoped_release>;

  def_operator(room, "ria", &prune::ria, {"weight", "activation_norm"},
               R"doc(Mask that removes the weights of smallest relative importance and activation.

The score is ``(|w| / sum of |w| in its column + |w| / sum of |w| in its row) * activation_norm ** alpha`` in float32;
the floor(sparsity * n) smallest of every scope of n weights fall, or all but n of every m. Zhang et al. 2024,
"Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", ICLR.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.
{options}

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, scope, alpha, pattern or sparsity that cannot be, or NaN or Inf in weight.
    TypeError: An argument is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> weight = torch.tensor([[4.0, 1.0], [8.0, 1.5]])
    >>> hemostat.prune.ria(weight, torch.ones(2), sparsity=0.5)
    tensor([[ True, False],
            [ True, False]])
)doc");

  room.def("score_ria", &prune::score_ria, py::arg("weight"), py::arg("activation_norm"), py::kw_only(),
           py::arg("alpha") = 0.5, release_gil(),
           R"doc(The score of ``ria``: relative importance times ``activation_norm ** alpha`` in float32.

``(|w| / sum of |w| in its column + |w| / sum of |w| in its row) * activation_norm ** alpha``; 0 in a row or column of
zeros.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.
    alpha: Exponent of the activation norm, 0 or more.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: A shape, device or alpha that cannot be, NaN or Inf in weight, or a norm that is NaN, infinite or
        negative.
    TypeError: An argument is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.score_ria(torch.tensor([[3.0, 1.0]]), torch.tensor([1.0, 4.0]))
    tensor([[1.7500, 2.5000]])
)doc");

  def_operator(room, "taylor", &prune::taylor, {"weight", "gradient"},
               R"doc(Mask that removes the weights without which the loss would change least, to first order.

The score is ``|weight * gradient|`` in float32. Molchanov et al. 2019, "Importance Estimation for Neural Network
Pruning", arXiv 1906.10771, equation 7; Ma et al. 2023, "LLM-Pruner", arXiv 2305.11627.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    gradient: The loss's, of weight's shape; float32, bfloat16 or float16.
{options}

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, scope, pattern or sparsity that cannot be, or entries that are not finite, or are
        negative where they cannot be (then ``out`` is unspecified).
    TypeError: An argument is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> weight, gradient = torch.tensor([[3.0, -1.0, 2.0, 0.5]]), torch.tensor([[0.1, -2.0, 0.1, 2.0]])
    >>> hemostat.prune.taylor(weight, gradient, sparsity=0.5)
    tensor([[False,  True, False,  True]])
)doc");

  room.def("score_taylor", &prune::score_taylor, py::arg("weight"), py::arg("gradient"), release_gil(),
           R"doc(The score of ``taylor``: ``|weight * gradient|`` in float32.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    gradient: The loss's, of weight's shape; float32, bfloat16 or float16.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: A shape or device that cannot be, or entries that are not finite, or negative where they cannot be.
    TypeError: An argument is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.score_taylor(torch.tensor([[3.0, -1.0]]), torch.tensor([[0.5, 2.0]]))
    tensor([[1.5000, 2.0000]])
)doc");

  def_operator(
      room, "fisher", &prune::fisher, {"weight", "gradient_square"},
      R"doc(Mask that removes the weights without which the loss would change least, by the empirical Fisher information.

The score is ``weight ** 2 * gradient_square / 2`` in float32: the second order of the loss, with the diagonal of the
Fisher information in place of that of the Hessian. LeCun et al. 1990, "Optimal Brain Damage"; Theis et al. 2018,
"Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    gradient_square: Mean of the squared gradients of single sequences, of weight's shape; float32, bfloat16 or float16,
        not negative.
{options}

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, scope, pattern or sparsity that cannot be, or entries that are not finite, or are
        negative where they cannot be (then ``out`` is unspecified).
    TypeError: An argument is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> weight, square = torch.tensor([[3.0, -1.0, 2.0, 0.5]]), torch.tensor([[0.1, 4.0, 0.1, 4.0]])
    >>> hemostat.prune.fisher(weight, square, sparsity=0.5)
    tensor([[False,  True, False,  True]])
)doc");

  room.def("score_fisher", &prune::score_fisher, py::arg("weight"), py::arg("gradient_square"), release_gil(),
           R"doc(The score of ``fisher``: ``weight ** 2 * gradient_square / 2`` in float32.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    gradient_square: Mean squared gradient, of weight's shape; float32, bfloat16 or float16, not negative.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: A shape or device that cannot be, or entries that are not finite, or negative where they cannot be.
    TypeError: An argument is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> hemostat.prune.score_fisher(torch.tensor([[3.0, -1.0]]), torch.tensor([[2.0, 8.0]]))
    tensor([[9., 4.]])
)doc");

  def_operator(
      room, "gblm", &prune::gblm, {"weight", "activation_norm", "gradient_norm"},
      R"doc(Mask that removes, in each row, the weights of smallest magnitude times activation and gradient norm.

The score is ``|weight| * (activation_norm + alpha * gradient_norm)`` in float32. Das et al. 2023, "Beyond Size: How
Gradients Shape Pruning Decisions in Large Language Models", arXiv 2311.04902.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
    activation_norm: ``[in_features]``; finite, not negative. The authors' is the root of the mean, over sequences, of the
        sum of squares over a sequence's tokens: the root mean square times the root of a sequence's length.
    gradient_norm: Of weight's shape, float32, bfloat16 or float16, not negative: norm over the gradients of single
        sequences. The authors' are the sum of absolute values (L1) and the root of the sum of squares (L2).
{options}

Returns:
    Bool mask of weight's shape, True = kept; ``out`` where it was given.

Raises:
    ValueError: A shape, device, scope, pattern or sparsity that cannot be, or entries that are not finite, or are
        negative where they cannot be (then ``out`` is unspecified).
    TypeError: An argument is not float32, bfloat16 or float16, or out is not bool.

Example:
    >>> import torch, hemostat
    >>> weight, norm = torch.tensor([[3.0, -1.0, 2.0, 0.5]]), torch.ones(4)
    >>> hemostat.prune.gblm(weight, norm, torch.tensor([[0.0, 0.1, 0.0, 0.0]]), sparsity=0.5)
    tensor([[ True,  True, False, False]])
)doc");

  room.def("score_gblm", &prune::score_gblm, py::arg("weight"), py::arg("activation_norm"), py::arg("gradient_norm"),
           py::kw_only(), py::arg("alpha") = 100.0, release_gil(),
           R"doc(The score of ``gblm``: ``|weight| * (activation_norm + alpha * gradient_norm)`` in float32.

Args:
    weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
    activation_norm: ``[in_features]``; finite, not negative.
    gradient_norm: Of weight's shape, float32, bfloat16 or float16, not negative: norm over the gradients of single
        sequences.
    alpha: Weight of the gradient norm, 0 or more.

Returns:
    float32 tensor of weight's shape.

Raises:
    ValueError: A shape, device or alpha that cannot be, or entries that are not finite, or are
        negative where they cannot be.
    TypeError: An argument is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> norm, gradient = torch.tensor([1.0, 4.0]), torch.tensor([[0.5, 0.25]])
    >>> hemostat.prune.score_gblm(torch.tensor([[3.0, -1.0]]), norm, gradient, alpha=2)
    tensor([[6.0000, 4.5000]])
)doc");

  room.def("channel_permutation", &prune::channel_permutation, py::arg("score"), py::kw_only(), py::arg("pattern"),
           release_gil(),
           R"doc(Order of the columns in which an n:m pattern keeps more of a score's sum.

Columns in the order of their sums are dealt out to the groups of m; then the columns at each place are exchanged among
all groups so that the sum kept is the largest (linear sum assignment). Keeps at least as much as the columns' own order.
Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models".

The mask of the permuted matrix, with its columns back in place, is
``torch.empty_like(mask).index_copy_(1, order, mask)`` of ``mask = prune.mask(score[:, order], pattern=pattern)``. For
hardware that wants n:m, deploy ``weight[:, order]`` and permute the layer's input features alike.

Args:
    score: ``[out_features, in_features]``, float32, bfloat16 or float16; larger is more worth keeping. Finite.
    pattern: ``"n:m"`` keeps n of every m; m divides in_features.

Returns:
    int64 tensor ``[in_features]``: the column at each place.

Raises:
    ValueError: A shape or pattern that cannot be, or NaN or Inf in score.
    TypeError: score is not float32, bfloat16 or float16.

Example:
    >>> import torch, hemostat
    >>> score = torch.tensor([[4.0, 3.0, 0.2, 0.1]])
    >>> order = hemostat.prune.channel_permutation(score, pattern="1:2")
    >>> score[:, order][hemostat.prune.mask(score[:, order], pattern="1:2")].sum()
    tensor(7.)
)doc");
}

}  // namespace hemostat::bindings
