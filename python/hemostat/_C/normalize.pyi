"""
Normalization changed. Model in, Model out.
"""

from __future__ import annotations

import typing

import hemostat._C

__all__: list[str] = ["drop_norms", "norm_count"]

def drop_norms(model: hemostat._C.Model, *, count: typing.SupportsInt | typing.SupportsIndex) -> hemostat._C.Model:
    """
    Replaces norms by nothing, the deepest first, their weights included.

    The final norm falls first, then the last block's, MLP before attention; what follows sees the residual stream itself.

    Args:
        model: The model.
        count: Norms to drop, 0 … :func:`norm_count`.

    Returns:
        Model: Shares every tensor that stays.

    Raises:
        ValueError: For a count out of range.
    """

def norm_count(model: hemostat._C.Model) -> int:
    """
    The norms of the residual stream.

    Args:
        model: The model.

    Returns:
        int: Every block's and the final one.
    """
