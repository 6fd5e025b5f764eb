"""
The Gram matrix of a layer's input, factored once for every solution.
"""

from __future__ import annotations

import typing

import torch

__all__: list[str] = ["GramFactor"]

class GramFactor:
    """
    A Gram matrix factored once, for every severity.

    What ``prune.sparsegpt`` and ``quantize.gptq`` take in place of ``gram``: each call then costs half a matrix product.
    With H the damped Gram matrix and H = U U^T (U upper triangular) no inverse of H is needed: the papers'
    [chol(H^-1)]_jj is 1 / U_jj. Immutable.

    Args:
        gram: X^T X over the number of tokens, float32 ``[in_features, in_features]``, symmetric: only its lower triangle
            counts. Features that never were active (0 on the diagonal) take no part: their weights become 0.
        damp: Share of the mean diagonal entry that is added to the diagonal. Where the matrix is not positive definite
            then, ten times as much is tried, from 1e-6 on up to 1; ``.damp`` says what it came to.
        act_order: Features of the largest diagonal entries come first.
        block_size: Columns that are solved together.
        check_finite: False skips the look for NaN and infinities.

    Raises:
        ValueError: gram is not square, an option is out of range, or gram has NaN or infinities.
        TypeError: gram is not float32.
        NumericalError: gram is not positive semidefinite.

    Example:
        >>> import torch, hemostat
        >>> factor = hemostat.solve.GramFactor(torch.eye(8), block_size=4)
        >>> factor
        GramFactor(in_features=8, damp=0.01, act_order=False, block_size=4)
    """
    def __init__(
        self,
        gram: torch.Tensor,
        *,
        damp: typing.SupportsFloat | typing.SupportsIndex = 0.01,
        act_order: bool = False,
        block_size: typing.SupportsInt | typing.SupportsIndex = 128,
        check_finite: bool = True,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def block_size(self) -> int:
        """
        Columns that are solved together.
        """
    @property
    def damp(self) -> float:
        """
        What was added to the diagonal in the end, as a share of its mean.
        """
    @property
    def dead(self) -> torch.Tensor | None:
        """
        bool ``[in_features]``: features that never were active; None where all were.
        """
    @property
    def in_features(self) -> int:
        """
        Rows and columns of the Gram matrix.
        """
    @property
    def matrix(self) -> torch.Tensor:
        """
        float32 ``[in_features, in_features]`` in the solver's order: the inverses of U's blocks on the diagonal, U's other blocks times them above it; below it nothing that counts.
        """
    @property
    def order(self) -> torch.Tensor | None:
        """
        int64 ``[in_features]``: ``order[i]`` is the feature that comes i-th; None where they come as they are.
        """
