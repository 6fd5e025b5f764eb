"""
What the model reads is changed. Model in, Model out.
"""

from __future__ import annotations

import typing

import hemostat._C

__all__: list[str] = ["token_noise"]

def token_noise(
    model: hemostat._C.Model,
    *,
    rate: typing.SupportsFloat | typing.SupportsIndex,
    kind: str = "replace",
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
) -> hemostat._C.Model:
    """
    A fraction of the tokens that the model reads is noise; the targets stay clean.

    A hash of (seed, position, token, previous token) decides what happens to a token, so that batching and caching don't
    alter it. With one seed, what falls at a rate also falls at every higher one.

    Args:
        model: The model.
        rate: Fraction of tokens, 0 … 1.
        kind: ``"replace"``: a token drawn uniformly from the vocabulary stands in its place; ``"drop"``: its embedding is
            zero; ``"swap"``: its predecessor stands in its place.
        seed: Decides which tokens fall.

    Returns:
        Model: With :attr:`Model.input` set; shares every tensor.

    Raises:
        ValueError: For a rate out of range or another kind.
    """
