"""
Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first.
"""

from __future__ import annotations

import collections.abc
import typing

import torch

import hemostat._C.solve

__all__: list[str] = [
    "admm",
    "apply",
    "channel_permutation",
    "dsnot",
    "fisher",
    "gblm",
    "kept_until",
    "magnitude",
    "mask",
    "mask_at",
    "outlier_ratio",
    "owl",
    "removed_count",
    "ria",
    "score_fisher",
    "score_gblm",
    "score_magnitude",
    "score_ria",
    "score_taylor",
    "score_wanda",
    "sparsegpt",
    "taylor",
    "wanda",
]

def admm(
    weight: torch.Tensor,
    gram: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    damp: typing.SupportsFloat | typing.SupportsIndex = 0.1,
    iterations: typing.SupportsInt | typing.SupportsIndex = 20,
    check_finite: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    hemostat.prune.admm as a pair of weight and mask.
    """

def apply(weight: torch.Tensor, mask: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """
    The weight with exact zeros where the mask is False.

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
    """

def channel_permutation(score: torch.Tensor, *, pattern: str) -> torch.Tensor:
    """
    Order of the columns in which an n:m pattern keeps more of a score's sum.

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
    """

def dsnot(
    weight: torch.Tensor,
    mask: torch.Tensor,
    activation_mean: torch.Tensor,
    activation_norm: torch.Tensor,
    *,
    pattern: str | None = None,
    max_cycles: typing.SupportsInt | typing.SupportsIndex = 50,
    threshold: typing.SupportsFloat | typing.SupportsIndex = 4.8828125e-05,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Refine a mask by swapping weights until each row's mean output is right.

    With the contributions ``weight * activation_mean`` and the error of a row, their sum over its removed weights, every
    cycle regrows the removed weight of the error's sign with the largest ``|contribution|`` / variance of its input, and
    removes the kept weight of the other sign with the least ``|weight| * activation_norm``. Zhang et al. 2024, "Dynamic
    Sparse No Training", arXiv 2310.08915.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        mask: Bool tensor of weight's shape and device, True = kept, as ``wanda`` or ``magnitude`` gives it.
        activation_mean: ``[in_features]``, the mean of each input feature, with its sign.
        activation_norm: ``[in_features]``, its root mean square; the variance is norm^2 - mean^2.
        pattern: ``"n:m"``, that of the mask, which is kept: what is removed is then the least of the regrown weight's group,
            and a row ends before a swap that would turn its error's sign.
        max_cycles: Swaps in a row at most; 0 or more.
        threshold: ``|error|`` at which a row is done. The authors' 0.1 is of sums over windows of 2048 tokens.
        check_finite: False skips the look for NaN and infinities.

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
    """

def fisher(
    weight: torch.Tensor,
    gradient_square: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes the weights without which the loss would change least, by the empirical Fisher information.

    The score is ``weight ** 2 * gradient_square / 2`` in float32: the second order of the loss, with the diagonal of the
    Fisher information in place of that of the Hessian. LeCun et al. 1990, "Optimal Brain Damage"; Theis et al. 2018,
    "Faster gaze prediction with dense networks and Fisher pruning", arXiv 1801.05787.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        gradient_square: Mean of the squared gradients of single sequences, of weight's shape; float32, bfloat16 or float16,
            not negative.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features.
        scope: What ``sparsity`` counts over: ``"tensor"`` or ``"row"``.
        out: Contiguous bool tensor of weight's shape and device that receives the mask.
        check_finite: False skips the look for NaN.

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
    """

def gblm(
    weight: torch.Tensor,
    activation_norm: torch.Tensor,
    gradient_norm: torch.Tensor,
    *,
    alpha: typing.SupportsFloat | typing.SupportsIndex = 100.0,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "row",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes, in each row, the weights of smallest magnitude times activation and gradient norm.

    The score is ``|weight| * (activation_norm + alpha * gradient_norm)`` in float32. Das et al. 2023, "Beyond Size: How
    Gradients Shape Pruning Decisions in Large Language Models", arXiv 2311.04902.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        activation_norm: ``[in_features]``; finite, not negative. The authors' is the root of the mean, over sequences, of the
            sum of squares over a sequence's tokens: the root mean square times the root of a sequence's length.
        gradient_norm: Of weight's shape, float32, bfloat16 or float16, not negative: norm over the gradients of single
            sequences. The authors' are the sum of absolute values (L1) and the root of the sum of squares (L2).
        alpha: Weight of the gradient norm, 0 or more.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features.
        scope: What ``sparsity`` counts over: ``"tensor"`` or ``"row"``.
        out: Contiguous bool tensor of weight's shape and device that receives the mask.
        check_finite: False skips the look for NaN.

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
    """

def kept_until(
    score: torch.Tensor, *, scope: str = "row", out: torch.Tensor | None = None, check_finite: bool = True
) -> torch.Tensor:
    """
    The sparsity at which each weight falls: (rank of its score + 1) / n.

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
    """

def magnitude(
    weight: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes the weights of smallest magnitude.

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
    """

def mask(
    score: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "row",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes the smallest scores, for a score of your own.

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
    """

def mask_at(
    kept_until: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex,
    scope: str = "row",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    The mask of one sparsity from what ``kept_until`` returned.

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
    """

def outlier_ratio(
    weights: collections.abc.Sequence[torch.Tensor],
    activation_norms: collections.abc.Sequence[torch.Tensor],
    *,
    outlier_threshold: typing.SupportsFloat | typing.SupportsIndex = 5.0,
    check_finite: bool = True,
) -> float:
    """
    The share of a block's scores ``|weight| * activation_norm`` that exceed a multiple of their mean.

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
    """

def owl(
    ratios: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex,
    lamda: typing.SupportsFloat | typing.SupportsIndex = 0.08,
) -> list[float]:
    """
    The sparsity of each block: less for blocks with more outliers, and the given one on average.

    sparsity - (d - mean d), where d spreads the ratios over 0 to 2 lamda; equal ratios give equal sparsities. Where one
    would leave 0 to 1, all differences shrink until it lies on that end. Yin et al. 2024, "Outlier Weighed Layerwise
    Sparsity (OWL)", arXiv 2310.05175.

    Args:
        ratios: The blocks' outlier ratios, as ``outlier_ratio`` gives them; finite.
        sparsity: Mean over blocks, 0 to 1.
        lamda: Half of what the sparsities span; 0 or more.

    Returns:
        A list of 0 to 1, one for each block.

    Raises:
        ValueError: A number out of range.

    Example:
        >>> import hemostat
        >>> [round(s, 3) for s in hemostat.prune.owl([0.01, 0.02, 0.03], sparsity=0.5, lamda=0.1)]
        [0.6, 0.5, 0.4]
    """

def removed_count(
    sparsity: typing.SupportsFloat | typing.SupportsIndex, entries: typing.SupportsInt | typing.SupportsIndex
) -> int:
    """
    How many of ``entries`` weights a sparsity removes: floor(sparsity * entries).

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
    """

def ria(
    weight: torch.Tensor,
    activation_norm: torch.Tensor,
    *,
    alpha: typing.SupportsFloat | typing.SupportsIndex = 0.5,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "row",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes the weights of smallest relative importance and activation.

    The score is ``(|w| / sum of |w| in its column + |w| / sum of |w| in its row) * activation_norm ** alpha`` in float32;
    the floor(sparsity * n) smallest of every scope of n weights fall, or all but n of every m. Zhang et al. 2024,
    "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models", ICLR.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        activation_norm: ``[in_features]``, the root mean square of each input feature; finite, not negative.
        alpha: Exponent of the activation norm, 0 or more.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features.
        scope: What ``sparsity`` counts over: ``"row"``, or ``"tensor"`` as in the authors' code unless told otherwise.
        out: Contiguous bool tensor of weight's shape and device that receives the mask.
        check_finite: False skips the look for NaN and Inf.

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
    """

def score_fisher(weight: torch.Tensor, gradient_square: torch.Tensor) -> torch.Tensor:
    """
    The score of ``fisher``: ``weight ** 2 * gradient_square / 2`` in float32.

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
    """

def score_gblm(
    weight: torch.Tensor,
    activation_norm: torch.Tensor,
    gradient_norm: torch.Tensor,
    *,
    alpha: typing.SupportsFloat | typing.SupportsIndex = 100.0,
) -> torch.Tensor:
    """
    The score of ``gblm``: ``|weight| * (activation_norm + alpha * gradient_norm)`` in float32.

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
    """

def score_magnitude(weight: torch.Tensor) -> torch.Tensor:
    """
    The score of ``magnitude``: ``|weight|`` in float32.

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
    """

def score_ria(
    weight: torch.Tensor, activation_norm: torch.Tensor, *, alpha: typing.SupportsFloat | typing.SupportsIndex = 0.5
) -> torch.Tensor:
    """
    The score of ``ria``: relative importance times ``activation_norm ** alpha`` in float32.

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
    """

def score_taylor(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """
    The score of ``taylor``: ``|weight * gradient|`` in float32.

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
    """

def score_wanda(weight: torch.Tensor, activation_norm: torch.Tensor) -> torch.Tensor:
    """
    The score of ``wanda``: ``|weight| * activation_norm`` in float32.

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
    """

def sparsegpt(
    weight: torch.Tensor,
    gram: torch.Tensor | hemostat._C.solve.GramFactor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    block_size: typing.SupportsInt | typing.SupportsIndex = 128,
    damp: typing.SupportsFloat | typing.SupportsIndex = 0.01,
    bits: typing.SupportsFloat | typing.SupportsIndex | None = None,
    group_size: typing.SupportsInt | typing.SupportsIndex | None = None,
    symmetric: bool = False,
    check_finite: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]: ...
def taylor(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes the weights without which the loss would change least, to first order.

    The score is ``|weight * gradient|`` in float32. Molchanov et al. 2019, "Importance Estimation for Neural Network
    Pruning", arXiv 1906.10771, equation 7; Ma et al. 2023, "LLM-Pruner", arXiv 2305.11627.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        gradient: The loss's, of weight's shape; float32, bfloat16 or float16.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features.
        scope: What ``sparsity`` counts over: ``"tensor"`` or ``"row"``.
        out: Contiguous bool tensor of weight's shape and device that receives the mask.
        check_finite: False skips the look for NaN.

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
    """

def wanda(
    weight: torch.Tensor,
    activation_norm: torch.Tensor,
    *,
    sparsity: typing.SupportsFloat | typing.SupportsIndex | None = None,
    pattern: str | None = None,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Mask that removes, in each row, the weights of smallest magnitude times activation norm.

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
    """
