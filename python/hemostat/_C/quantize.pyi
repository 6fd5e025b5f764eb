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

import typing

import torch

__all__: list[str] = [
    "GgufPacked",
    "GroupPacked",
    "PackedWeight",
    "activation",
    "fake_quantize",
    "gguf",
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

class GgufPacked(PackedWeight):
    """
    A weight in one of llama.cpp's block formats, bit for bit as GGUF files store it.

    Args:
        data: uint8 ``[out_features, bytes per row]``.
        type: ``"Q8_0"``, ``"Q6_K"``, ``"Q5_K"``, ``"Q4_K"``, ``"Q3_K"``, ``"Q2_K"``, ``"Q5_0"``, ``"Q5_1"``, ``"Q4_0"``,
            ``"Q4_1"`` or ``"IQ4_NL"``.
        in_features: A multiple of 32, or of 256 for a K type.
        dtype: Of what ``dequantize`` returns: float32, bfloat16 or float16.
    """
    def __init__(
        self,
        data: torch.Tensor,
        *,
        type: str,
        in_features: typing.SupportsInt | typing.SupportsIndex,
        dtype: torch.dtype = ...,
    ) -> None: ...
    def __repr__(self) -> str: ...
    @property
    def data(self) -> torch.Tensor:
        """
        uint8 ``[out_features, bytes per row]``
        """
    @property
    def dtype(self) -> torch.dtype:
        """
        The dtype of what ``dequantize`` returns.
        """
    @property
    def type(self) -> str:
        """
        The format's name, ``"Q4_K"``.
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

def gguf(
    weight: torch.Tensor,
    *,
    type: str = "Q4_K",
    importance: torch.Tensor | None = None,
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor | GgufPacked:
    """
    The weight on the values of one of llama.cpp's block formats.

    Every weight is scale * code - minimum. A block of 32 (or, of a K type, 256) weights has a float16 scale and in some
    types a float16 minimum; the sub-blocks of a K type multiply them by small integers. Q8_0, Q5_0, Q5_1, Q4_0 and Q4_1
    are bit for bit llama.cpp's reference, which puts the largest magnitude (or the range) on the ends of the codes. K types,
    IQ4_NL, and with ``importance`` all but Q8_0, are searched for the least sum of importance * error**2; llama.cpp's search
    favours large weights, so its squared error is no lower.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        type: The format, with its bits per weight: ``"Q8_0"`` 8.5, ``"Q6_K"`` 6.5625, ``"Q5_1"`` 6, ``"Q5_K"`` and
            ``"Q5_0"`` 5.5, ``"Q4_1"`` 5, ``"Q4_K"``, ``"Q4_0"`` and ``"IQ4_NL"`` 4.5, ``"Q3_K"`` 3.4375, ``"Q2_K"`` 2.625.
        importance: ``[in_features]``, what the squared error of each input feature counts for, at least 0: llama.cpp's
            importance matrix, the mean squared activation. None: all alike. Where all of a sub-block are 0 they count alike.
        packed: Return the blocks instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN, infinities, and scales that float16 cannot hold.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``GgufPacked``, whose
        ``dequantize()`` equals it. Gradients pass straight through.

    Raises:
        ValueError: in_features is no multiple of the block size, another shape, device or type that cannot be, or NaN,
            infinities or scales beyond float16 (then ``out``, unless it is weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.linspace(-1, 1, 256).view(1, 256)
        >>> packed = hemostat.quantize.gguf(weight, type="Q4_K", packed=True)
        >>> packed.data.shape, packed.bits_per_weight
        (torch.Size([1, 144]), 4.5)
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
