"""Which weights of a matrix are removed, and what the others become: scores, masks, solvers.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first. ``sparsity`` is the
fraction removed, ``pattern`` "n:m" keeps n of every m consecutive weights of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from hemostat import _C
from hemostat._C.prune import (
    apply,
    channel_permutation,
    dsnot,
    fisher,
    gblm,
    kept_until,
    magnitude,
    mask,
    mask_at,
    outlier_ratio,
    owl,
    removed_count,
    ria,
    score_fisher,
    score_gblm,
    score_magnitude,
    score_ria,
    score_taylor,
    score_wanda,
    taylor,
    wanda,
)
from hemostat.solve import GramFactor

__all__ = [
    "Pruned",
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


class Pruned(NamedTuple):
    """A pruned matrix whose remaining weights were adjusted for those that left.

    Attributes:
        weight: contiguous, in the dtype of the weight that was pruned, with exact zeros where the mask is False.
        mask: bool of weight's shape, True = kept.
    """

    weight: torch.Tensor
    mask: torch.Tensor


def sparsegpt(
    weight: torch.Tensor,
    gram: torch.Tensor | GramFactor,
    *,
    sparsity: float | None = None,
    pattern: str | None = None,
    block_size: int = 128,
    damp: float = 0.01,
    bits: float | None = None,
    group_size: int | None = None,
    symmetric: bool = False,
    check_finite: bool = True,
) -> Pruned:
    """SparseGPT: removes weights column by column, and the columns still to come take up each column's error.

    In each block of columns, over all rows, the floor(sparsity * n) weights of the smallest (w / [chol(H^-1)]_jj)^2
    fall, or of every m columns of a row all but n, chosen when the first of them comes. Frantar & Alistarh 2023,
    "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", arXiv 2301.00774, algorithm 1, with one
    Cholesky factorization and no inverse.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        gram: X^T X over the number of tokens, float32 ``[in_features, in_features]``; or a ``solve.GramFactor`` of it,
            made once for many calls, whose block_size and damp then count.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features. The block size is then the largest multiple of m
            up to block_size, at least m.
        block_size: Columns whose mask is chosen together.
        damp: Share of the mean diagonal entry that is added to gram's diagonal; more where that is too little.
        bits: 2 to 8: rounds what is kept as well, in the same pass. None leaves it unrounded.
        group_size: With ``bits``, weights that share a scale: None or -1 for whole rows, or a divisor of in_features.
        symmetric: With ``bits``, scale = 2 max|w| / (levels - 1) about 0, instead of the range [min, max] with 0.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        ``(weight, mask)``, in weight's dtype and bool, True = kept.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight or gram.
        TypeError: weight is not float32, bfloat16 or float16, or gram not float32.
        NumericalError: gram is not positive semidefinite.

    Example:
        >>> import torch, hemostat
        >>> gram = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        >>> hemostat.prune.sparsegpt(torch.tensor([[0.2, 1.0]]), gram, sparsity=0.5).weight
        tensor([[0.0000, 1.1782]])
    """
    return Pruned(
        *_C.prune.sparsegpt(
            weight,
            gram,
            sparsity=sparsity,
            pattern=pattern,
            block_size=block_size,
            damp=damp,
            bits=bits,
            group_size=group_size,
            symmetric=symmetric,
            check_finite=check_finite,
        )
    )


def admm(
    weight: torch.Tensor,
    gram: torch.Tensor,
    *,
    sparsity: float | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    damp: float = 0.1,
    iterations: int = 20,
    row_weight: torch.Tensor | None = None,
    check_finite: bool = True,
) -> Pruned:
    """Prune and adjust what stays, by the alternating direction method of multipliers.

    The kept weights come close to the least error of the layer's outputs that the mask allows, and the mask is chosen
    on the way: the first three quarters of the iterations rank the weights anew, more of them falling each time. Boža
    2024, "Fast and Effective Weight Update for Pruned Large Language Models", arXiv 2401.02938. Input features that
    never were on lose their weights first. The result carries no gradient.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        gram: ``[in_features, in_features]``, X^T X / tokens, of any of these dtypes.
        sparsity: Fraction removed, 0 to 1. Give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m; m divides in_features.
        scope: What ``sparsity`` counts over: ``"tensor"`` or ``"row"``.
        damp: What is added to the diagonal of the Gram matrix of inputs of length 1, as a share of its mean; 0 or more.
        iterations: 0 or more.
        row_weight: ``[out_features]``, what an error of each row costs, such as the row Fisher; not negative. Rows are
            ranked as sqrt(row_weight / mean), at least 1e-2, times what they are. None: all alike.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The adjusted weight, in weight's dtype, and its mask. Where nothing falls, the weight as it is.

    Raises:
        ValueError: A shape, device, scope, pattern or number that cannot be, or NaN or infinities.
        TypeError: weight or gram is not float32, bfloat16 or float16.
        NumericalError: gram is not positive definite, also not with ``damp``: it is no X^T X.

    Example:
        >>> import torch, hemostat
        >>> weight, gram = torch.tensor([[1.0, 0.9]]), torch.tensor([[1.0, 0.8], [0.8, 1.0]])
        >>> hemostat.prune.admm(weight, gram, sparsity=0.5).mask
        tensor([[ True, False]])
    """
    return Pruned(
        *_C.prune.admm(
            weight,
            gram,
            sparsity=sparsity,
            pattern=pattern,
            scope=scope,
            damp=damp,
            iterations=iterations,
            row_weight=row_weight,
            check_finite=check_finite,
        )
    )
