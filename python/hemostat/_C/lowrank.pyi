"""
A weight as the product of two thinner ones.
"""

from __future__ import annotations

import typing

import torch

__all__: list[str] = ["Decomposition", "Factors", "decompose", "rank_for", "svd"]

class Factors:
    """
    weight = a @ b
    """
    def __repr__(self) -> str: ...
    @property
    def a(self) -> torch.Tensor:
        """
        ``[out_features, rank]``
        """
    @property
    def b(self) -> torch.Tensor:
        """
        ``[rank, in_features]``
        """
    @property
    def rank(self) -> int:
        """
        Columns of a.
        """
    @property
    def weight(self) -> torch.Tensor:
        """
        a @ b, multiplied in float32, in the factors' dtype.
        """

class Decomposition:
    """
    A matrix factored once, for any severity.
    """
    def __repr__(self) -> str: ...
    def at(self, removed: typing.SupportsFloat | typing.SupportsIndex) -> Factors:
        """
        The factors with this fraction of the parameters removed; see ``svd``.
        """
    @property
    def us(self) -> torch.Tensor:
        """
        U * S, float32 ``[out_features, largest rank]``, in falling order of S.
        """
    @property
    def vh(self) -> torch.Tensor:
        """
        float32 ``[largest rank, in_features]``
        """

def decompose(weight: torch.Tensor, *, check_finite: bool = True) -> Decomposition:
    """
    Factor a weight once; ``.at(removed)`` then costs a copy.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        A ``Decomposition`` up to the largest rank that has no more parameters than the weight.

    Raises:
        ValueError: A shape that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16.
        NumericalError: The iteration does not converge.

    Example:
        >>> import torch, hemostat
        >>> decomposition = hemostat.lowrank.decompose(torch.eye(8))
        >>> [decomposition.at(removed).rank for removed in (0.0, 0.25, 0.5)]
        [4, 3, 2]
    """

def rank_for(
    removed: typing.SupportsFloat | typing.SupportsIndex,
    out_features: typing.SupportsInt | typing.SupportsIndex,
    in_features: typing.SupportsInt | typing.SupportsIndex,
) -> int:
    """
    The rank at which two factors hold (1 - removed) of a matrix's parameters; see ``svd``.

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
    """

def svd(
    weight: torch.Tensor, *, removed: typing.SupportsFloat | typing.SupportsIndex, check_finite: bool = True
) -> Factors:
    """
    The closest product of two factors with a fraction of the parameters removed.

    The rank is floor((1 - removed) * out * in / (out + in)), where a product within rounding of an integer is that integer;
    at least 1 while anything is kept, 0 at removed = 1. removed = 0 keeps as many parameters as the weight had, which is
    half of a square matrix's ranks: the severity jumps at 0. a = U_r S_r and b = V_r^T of the singular value decomposition
    in float32 (Eckart and Young 1936). Factors carry no gradient.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
        removed: Fraction of the parameters removed, 0 to 1.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        ``Factors`` with ``.a`` [out_features, rank], ``.b`` [rank, in_features], ``.weight`` and ``.rank``.

    Raises:
        ValueError: A shape or severity that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16.
        NumericalError: The iteration does not converge.

    Example:
        >>> import torch, hemostat
        >>> factors = hemostat.lowrank.svd(torch.ones(6, 3), removed=0.5)
        >>> factors
        Factors(a=[6, 1], b=[1, 3])
        >>> bool((factors.weight - 1).abs().max() < 1e-5)
        True
    """
