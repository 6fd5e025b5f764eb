"""Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first. ``sparsity`` is the
fraction removed, ``pattern`` "n:m" keeps n of every m consecutive weights of a row.
"""

from typing import NamedTuple

import torch

from hemostat._C import prune as _prune
from hemostat._C.prune import (
    apply,
    channel_permutation,
    fisher,
    gblm,
    kept_until,
    magnitude,
    mask,
    mask_at,
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
    "apply",
    "channel_permutation",
    "fisher",
    "gblm",
    "kept_until",
    "magnitude",
    "mask",
    "mask_at",
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
    """A weight with zeros where the mask is False, and the others changed to make up for them."""

    weight: torch.Tensor
    """``[out_features, in_features]``, in the dtype of the weight that was pruned"""

    mask: torch.Tensor
    """bool, True = kept"""


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
        symmetric: With ``bits``, the range is +-max|w| instead of [min, max] with 0.
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
        *_prune.sparsegpt(
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
