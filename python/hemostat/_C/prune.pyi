"""
Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first.
"""

from __future__ import annotations

import typing

import torch

import hemostat._C.solve

__all__: list[str] = [
    "apply",
    "kept_until",
    "magnitude",
    "mask",
    "mask_at",
    "removed_count",
    "score_magnitude",
    "score_wanda",
    "sparsegpt",
    "wanda",
]

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
) -> torch.Tensor:
    """
    The mask of one sparsity from what ``kept_until`` returned.

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
