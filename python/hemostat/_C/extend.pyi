"""
Models made deeper. Model in, Model out.
"""

from __future__ import annotations

import typing

import hemostat._C

__all__: list[str] = ["duplicate_layers", "insert_identity"]

def duplicate_layers(
    model: hemostat._C.Model, *, count: typing.SupportsInt | typing.SupportsIndex
) -> hemostat._C.Model:
    """
    Repeats each of the ``count`` middle blocks in place (depth up-scaling, passthrough merging).

    Kim et al., "SOLAR 10.7B", arXiv 2312.15166, repeats a middle span likewise.

    Args:
        model: The model.
        count: Blocks to add, 0 … L.

    Returns:
        Model: Repeated blocks share their tensors.

    Raises:
        ValueError: For a count out of range.
    """

def insert_identity(model: hemostat._C.Model, *, count: typing.SupportsInt | typing.SupportsIndex) -> hemostat._C.Model:
    """
    Inserts copies of blocks, evenly spaced, with zero o and down projections: the function stays the same.

    The control for :func:`duplicate_layers` (Wu et al., "LLaMA Pro", arXiv 2401.02415, section 3.2).

    Args:
        model: The model.
        count: Blocks to add, 0 … L.

    Returns:
        Model: Gives the same logits.

    Raises:
        ValueError: For a count out of range, or blocks with norms after the residual or on a sublayer's output.
    """
