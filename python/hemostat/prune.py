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
    dsnot,
    kept_until,
    magnitude,
    mask,
    mask_at,
    outlier_ratio,
    owl,
    removed_count,
    score_magnitude,
    score_wanda,
    wanda,
)

__all__ = [
    "Pruned",
    "admm",
    "apply",
    "dsnot",
    "kept_until",
    "magnitude",
    "mask",
    "mask_at",
    "outlier_ratio",
    "owl",
    "removed_count",
    "score_magnitude",
    "score_wanda",
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


def admm(
    weight: torch.Tensor,
    gram: torch.Tensor,
    *,
    sparsity: float | None = None,
    pattern: str | None = None,
    scope: str = "tensor",
    damp: float = 0.1,
    iterations: int = 20,
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
            check_finite=check_finite,
        )
    )
