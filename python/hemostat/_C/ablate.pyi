"""
Parts of a model left out. Model in, Model out.
"""

from __future__ import annotations

import collections.abc
import typing

import hemostat._C

__all__: list[str] = ["drop_layers"]

def drop_layers(
    model: hemostat._C.Model,
    *,
    count: typing.SupportsInt | typing.SupportsIndex,
    order: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
) -> hemostat._C.Model:
    """
    Leaves blocks out.

    Without an order: from the second-last backwards (the last block stays), the order in which depth is least missed
    (Gromov et al., "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887, section 4.4).

    Args:
        model: The model.
        count: Blocks to drop, 0 … L − 1.
        order: Indices of blocks, the first ``count`` of which fall.

    Returns:
        Model: Shares the remaining blocks' tensors.

    Raises:
        ValueError: For a count or index out of range, or a repeated index.
    """
