"""
Weights and activations on few levels.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16. With L = round(2**bits) levels, per group
of consecutive entries of a row:

- asymmetric: the range is [min(0, min w), max(0, max w)], scale = (max - min) / (L - 1), zero = round(-min / scale),
  code = clamp(round(w / scale) + zero, 0, L - 1);
- symmetric, as GPTQ (arXiv 2210.17323): scale = 2 max|w| / (L - 1), zero = L // 2, the same code.

The value is (code - zero) * scale, in float32. Rounding is to nearest, halves to even; zeros stay zero. Gradients pass
straight through (arXiv 1308.3432).
"""

from __future__ import annotations

import collections.abc
import typing

import torch

__all__: list[str] = [
    "GroupPacked",
    "PackedWeight",
    "activation",
    "awq",
    "awq_scale",
    "awq_scaled",
    "fake_quantize",
    "levels",
    "rtn",
]

class PackedWeight:
    """
    A weight in a storage format. Immutable.
    """
    def dequantize(self) -> torch.Tensor:
        """
        The weight, ``[out_features, in_features]``, in the dtype that was packed.
        """
    def to(self, device: str | torch.device) -> PackedWeight:
        """
        The same weight on another device.
        """
    @property
    def bits_per_weight(self) -> float:
        """
        What the format stores, in bits per weight, scales and zero points included.
        """
    @property
    def shape(self) -> tuple:
        """
        (out_features, in_features)
        """

class GroupPacked(PackedWeight):
    """
    Integer codes with a scale and a zero point per group.

    ``bits_per_weight`` counts what the format takes when written: ceil(log2(levels)) bits per code, 16 per group for its
    scale, and 16 for its zero point unless symmetric (there it is a constant). In memory codes are bytes and scales are
    float32.
    """
    def __repr__(self) -> str: ...
    @property
    def bits(self) -> float:
        """
        log2 of the levels, as it was asked for.
        """
    @property
    def codes(self) -> torch.Tensor:
        """
        uint8 ``[out_features, in_features]``
        """
    @property
    def dtype(self) -> torch.dtype:
        """
        The dtype of what ``dequantize`` returns.
        """
    @property
    def group_size(self) -> int | str:
        """
        Weights per group, or ``"tensor"``.
        """
    @property
    def scale(self) -> torch.Tensor:
        """
        float32 ``[out_features, groups]``; ``[1, 1]`` for the whole tensor
        """
    @property
    def symmetric(self) -> bool:
        """
        Whether the range is symmetric.
        """
    @property
    def zero(self) -> torch.Tensor:
        """
        float32 ``[out_features, groups]``; ``[1, 1]`` for the whole tensor
        """

def activation(
    input: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    symmetric: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Dynamic fake quantization of a linear layer's input, each token with its own scale.

    Args:
        input: ``[..., in_features]``, float32, bfloat16 or float16; every last-dimension row is one group.
        bits: 2 to 8, fractions allowed.
        symmetric: The range is +-max|x| instead of [min, max] with 0.
        out: Contiguous tensor like input that receives the result; may be input itself.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded input, in its dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape or option that cannot be, or NaN or infinities in input (then ``out``, unless it is input
            itself, is unspecified).
        TypeError: input is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.activation(torch.tensor([[3.0, 1.4], [0.0, -6.0]]), bits=2)
        tensor([[ 3.,  1.],
                [ 0., -6.]])
    """

def awq(
    weight: torch.Tensor,
    activation_absmean: torch.Tensor,
    gram: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = 128,
    symmetric: bool = False,
    search_clip: bool = False,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    Round weights whose loud input features were scaled up, and scale them back.

    With Q of ``rtn``, the result is Q(weight * s) / s. Of s = max(activation_absmean ** a, 1e-4), over sqrt(max s * min s),
    it takes the one of a = 0, 1/20, ..., 19/20 with the least output error tr(E gram E^T), where E is what the rounding
    changes. a = 0 is ``rtn``, so that without ``search_clip`` the output error is never more than ``rtn``'s. At inference
    1 / s goes into the operation before the layer; here it is multiplied back, and inputs stay as they are. Lin et al. 2024,
    "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978. The result carries no gradient.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        activation_absmean: ``[in_features]``, mean ``|x|`` of each input feature; finite, not negative.
        gram: ``[in_features, in_features]``, X^T X / tokens.
        bits: 2 to 8, fractions allowed.
        group_size: Weights that share a scale: None or -1 for whole rows, or a divisor of in_features.
        symmetric: The levels of ``rtn``.
        search_clip: Clip each group of the scaled weight at the factor of 1, .95, ..., .55 of its largest magnitude that
            has the least error in the outputs which the group alone adds to.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in its own basis and dtype.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities.
        TypeError: An argument is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[1.0, 0.3], [-2.0, 0.1]])
        >>> absmean, gram = torch.tensor([1.0, 9.0]), torch.diag(torch.tensor([1.0, 81.0]))
        >>> hemostat.quantize.awq(weight, absmean, gram, bits=2, group_size=2)
        tensor([[ 0.9000,  0.3000],
                [-2.0000,  0.0000]])
    """

def awq_scale(
    weights: collections.abc.Sequence[torch.Tensor],
    activation_absmean: torch.Tensor,
    gram: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = 128,
    symmetric: bool = False,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    The scale s of ``awq`` that weights on one input have in common: least sum of their output errors.

    Args:
        weights: Sequence of ``[out_features, in_features]``, at least one.
        activation_absmean: ``[in_features]``, mean ``|x|`` of each input feature; finite, not negative.
        gram: ``[in_features, in_features]``, X^T X / tokens.
        bits: 2 to 8, fractions allowed.
        group_size: None or -1 for whole rows, or a divisor of in_features.
        symmetric: The levels of ``rtn``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        float32 ``[in_features]``.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities.
        TypeError: An argument is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> weights = [torch.tensor([[1.0, 0.3], [-2.0, 0.1]]), torch.tensor([[0.5, 0.2]])]
        >>> absmean, gram = torch.tensor([1.0, 4.0]), torch.diag(torch.tensor([1.0, 16.0]))
        >>> hemostat.quantize.awq_scale(weights, absmean, gram, bits=8, group_size=2).shape
        torch.Size([2])
    """

def awq_scaled(
    weight: torch.Tensor,
    scale: torch.Tensor,
    gram: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = 128,
    symmetric: bool = False,
    search_clip: bool = False,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    The second half of ``awq``: Q(weight * scale) / scale, with a scale at hand.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        scale: ``[in_features]``, positive and finite, as ``awq_scale`` gives it.
        gram: ``[in_features, in_features]``, X^T X / tokens; ``search_clip`` reads it.
        bits: 2 to 8, fractions allowed.
        group_size: None or -1 for whole rows, or a divisor of in_features.
        symmetric: The levels of ``rtn``.
        search_clip: As in ``awq``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in its own basis and dtype.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities.
        TypeError: An argument is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]])
        >>> hemostat.quantize.awq_scaled(weight, torch.ones(4), torch.eye(4), bits=2, group_size=4)
        tensor([[-1.,  0.,  1.,  2.]])
    """

def fake_quantize(
    weight: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = None,
    symmetric: bool = False,
    check_finite: bool = True,
) -> torch.Tensor:
    """
    ``rtn`` for training: the forward pass rounds, the gradient passes straight through.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        bits: 2 to 8, fractions allowed.
        group_size: None or -1 for whole rows, ``"tensor"``, or a divisor of in_features.
        symmetric: The range is +-max|w| instead of [min, max] with 0.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight, exactly as ``rtn`` gives it, in weight's dtype.

    Raises:
        ValueError: A shape or option that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]], requires_grad=True)
        >>> hemostat.quantize.fake_quantize(weight, bits=2).sum().backward()
        >>> weight.grad
        tensor([[1., 1., 1., 1.]])
    """

def levels(bits: typing.SupportsFloat | typing.SupportsIndex) -> int:
    """
    round(2**bits), the number of levels of 2 to 8 bits.

    Args:
        bits: 2 to 8, fractions allowed.

    Returns:
        4 to 256.

    Raises:
        ValueError: bits out of range.

    Example:
        >>> import hemostat
        >>> hemostat.quantize.levels(2.5)
        6
    """

def rtn(
    weight: torch.Tensor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = None,
    symmetric: bool = False,
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
    search_clip: bool = False,
) -> torch.Tensor | GroupPacked:
    """
    Round to nearest: every weight on the nearest of round(2**bits) levels of its group.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        bits: 2 to 8, fractions allowed (2.5 bits: 6 levels).
        group_size: Weights that share a scale: None or -1 for whole rows, ``"tensor"`` for the whole matrix, or a divisor
            of in_features.
        symmetric: The range is +-max|w| instead of [min, max] with 0.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.
        search_clip: Shrink each group's range by the factor of 1, .99, ..., .21 with the least squared error.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``GroupPacked``, whose
        ``dequantize()`` equals it.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
            weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.rtn(torch.tensor([[-1.0, 0.2, 0.9, 2.0]]), bits=2)
        tensor([[-1.,  0.,  1.,  2.]])
    """
