"""
Random damage to weights.
"""

from __future__ import annotations

import collections.abc
import typing

import torch

__all__: list[str] = ["apply", "direction", "gaussian", "isotropic"]

def apply(
    weight: torch.Tensor,
    direction: torch.Tensor,
    *,
    sigma: typing.SupportsFloat | typing.SupportsIndex,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    weight + sigma * std(weight) * direction: ``gaussian`` along a direction of your own.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
        direction: float32, weight's shape and device.
        sigma: 0 or more.
        out: Contiguous tensor like weight that receives the result; may be weight itself.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The moved weight, in weight's dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape, device or sigma that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16, or direction is not float32.

    Example:
        >>> import torch, hemostat
        >>> hemostat.noise.apply(torch.tensor([[-1.0, 1.0]]), torch.tensor([[1.0, 0.0]]), sigma=0.5)
        tensor([[-0.5000,  1.0000]])
    """

def direction(
    sizes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    *,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    device: str | torch.device = "cpu",
) -> torch.Tensor:
    """
    The z of ``gaussian``: standard normal numbers that depend on sizes and seed alone.

    Args:
        sizes: The shape.
        seed: 0 or more.
        device: Where the result lies; the numbers are the same on all.

    Returns:
        float32 tensor.

    Raises:
        ValueError: A size or the seed is negative.

    Example:
        >>> import torch, hemostat
        >>> first = hemostat.noise.direction([2, 3], seed=1)
        >>> torch.equal(first, hemostat.noise.direction([2, 3], seed=1))
        True
    """

def gaussian(
    weight: torch.Tensor,
    *,
    sigma: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Add Gaussian noise relative to the weight's own spread: weight + sigma * std(weight) * z.

    z is standard normal and depends on nothing but shape and seed (any number of threads, any device). std is that of the
    whole tensor as a population (divided by n), so a constant tensor stays unchanged. Arithmetic is in float32. To autograd
    the noise is a constant.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
        sigma: Standard deviation of the noise, in standard deviations of the weight; 0 or more.
        seed: 0 or more.
        out: Contiguous tensor like weight that receives the result; may be weight itself.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The noisy weight, in weight's dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape, device, sigma or seed that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.ones(2, 3)
        >>> torch.equal(hemostat.noise.gaussian(weight, sigma=0.5), weight)
        True
    """

def isotropic(
    weight: torch.Tensor,
    *,
    norm: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Add noise of a given Frobenius norm in no direction in particular: weight + norm * z / |z|.

    z is that of ``gaussian``: standard normal, of shape and seed alone. What a change of that size would do if it pointed
    nowhere: the control beside ``hemostat.localize``.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16.
        norm: Frobenius norm of the noise; 0 or more.
        seed: 0 or more.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The noisy weight, in weight's dtype.

    Raises:
        ValueError: A shape, norm or seed that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.zeros(2, 3)
        >>> round(hemostat.noise.isotropic(weight, norm=2.0).norm().item(), 5)
        2.0
    """
