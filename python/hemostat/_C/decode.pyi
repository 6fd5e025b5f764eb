"""
What happens to logits before a token is chosen.
"""

from __future__ import annotations

import typing

import torch

__all__: list[str] = ["temperature"]

def temperature(
    logits: torch.Tensor, temperature: typing.SupportsFloat | typing.SupportsIndex, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """
    Divide logits by a temperature: above 1 flattens the distribution, below 1 sharpens it.

    Args:
        logits: ``[..., vocab]``, float32, bfloat16 or float16. -inf stays -inf.
        temperature: Positive and finite; 1 changes nothing.
        out: Contiguous tensor like logits that receives the result; may be logits itself.

    Returns:
        logits / temperature, in the logits' dtype; ``out`` where it was given.

    Raises:
        ValueError: temperature out of range, or an ``out`` of another shape or device.
        TypeError: logits are not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.decode.temperature(torch.tensor([[2.0, 1.0, 0.0]]), 2.0)
        tensor([[1.0000, 0.5000, 0.0000]])
    """
