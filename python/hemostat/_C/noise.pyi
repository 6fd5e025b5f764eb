"""
Random damage to weights and to the inputs of linear layers.
"""

from __future__ import annotations

import collections.abc
import typing

import torch

__all__: list[str] = ["activation_noise", "apply", "bit_flip", "direction", "gaussian", "isotropic", "stuck_at"]

def activation_noise(
    input: torch.Tensor,
    *,
    sigma: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Add Gaussian noise to a linear layer's input, relative to each token's own spread.

    input + sigma * std(token) * z. z is standard normal, a hash of seed, the token's position and the feature: the same for
    every sequence, however tokens are batched. std is that of a token's features as a population, so a token without spread
    stays unchanged. Arithmetic is in float32. To autograd the noise is a constant.

    Args:
        input: ``[..., tokens, in_features]``, or ``[in_features]`` for a token at position 0; float32, bfloat16 or float16.
        sigma: Standard deviation of the noise, in standard deviations of the token; 0 or more.
        seed: 0 or more.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The noisy input, in input's dtype.

    Raises:
        ValueError: A shape, sigma or seed that cannot be, or NaN or infinities in input.
        TypeError: input is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> noisy = hemostat.noise.activation_noise(torch.tensor([[1.0, 1.0], [1.0, 3.0]]), sigma=0.5)
        >>> (noisy == torch.tensor([[1.0, 1.0], [1.0, 3.0]])).tolist()  # the first token has no spread
        [[True, True], [False, False]]
    """

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

def bit_flip(
    weight: torch.Tensor,
    *,
    rate: typing.SupportsFloat | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    bit: typing.SupportsInt | typing.SupportsIndex | None = None,
    bits: typing.SupportsInt | typing.SupportsIndex | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Invert every stored bit of a weight with a probability, independently, as faulty memory does.

    Each bit has one uniform draw, a hash of seed and position, and flips where that is below the rate (the fault model of
    Reagen et al. 2018, "Ares", DAC). What flips at a rate also flips at every higher one; what flips with ``bit=`` also flips
    without. The result is the same for any number of threads and on any device, may hold NaN and infinities, as memory
    does, and carries no gradient.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16 of any value, or uint8 codes
            (``GroupPacked.codes``).
        rate: Probability of each bit, 0 to 1.
        seed: 0 or more.
        bit: Flips only this position: 0 is the least significant, the highest the sign. None: all.
        bits: Of codes, how many low bits each is stored in, 1 to 8. None: 8.
        out: Contiguous tensor like weight that receives the result; may be weight itself.

    Returns:
        The damaged weight, in weight's dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape, device, rate, seed, bit or bits that cannot be.
        TypeError: weight is not float32, bfloat16, float16 or uint8, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.ones(2, 3)
        >>> hemostat.noise.bit_flip(weight, rate=1.0, bit=31)  # the sign
        tensor([[-1., -1., -1.],
                [-1., -1., -1.]])
        >>> codes = torch.tensor([[0, 15]], dtype=torch.uint8)
        >>> hemostat.noise.bit_flip(codes, rate=1.0, bits=4)
        tensor([[15,  0]], dtype=torch.uint8)
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

def stuck_at(
    weight: torch.Tensor,
    *,
    rate: typing.SupportsFloat | typing.SupportsIndex,
    value: typing.SupportsInt | typing.SupportsIndex = 0,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    bit: typing.SupportsInt | typing.SupportsIndex | None = None,
    bits: typing.SupportsInt | typing.SupportsIndex | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Bits of a weight that are stuck at 0 or at 1, whatever was written to them: permanent faults of memory.

    The stuck bits are those that ``bit_flip`` inverts for the same seed and rate; about half of them hold that value anyway.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16 of any value, or uint8 codes
            (``GroupPacked.codes``).
        rate: Probability of each bit, 0 to 1.
        value: What a stuck bit reads: 0 or 1.
        seed: 0 or more.
        bit: Only this position is stuck: 0 is the least significant, the highest the sign. None: all.
        bits: Of codes, how many low bits each is stored in, 1 to 8. None: 8.
        out: Contiguous tensor like weight that receives the result; may be weight itself.

    Returns:
        The damaged weight, in weight's dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape, device, rate, value, seed, bit or bits that cannot be.
        TypeError: weight is not float32, bfloat16, float16 or uint8, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[1.5, -2.0]])
        >>> hemostat.noise.stuck_at(weight, rate=1.0, bit=31)  # no sign is left
        tensor([[1.5000, 2.0000]])
        >>> hemostat.noise.stuck_at(weight, rate=1.0, value=1, bit=31)
        tensor([[-1.5000, -2.0000]])
    """
