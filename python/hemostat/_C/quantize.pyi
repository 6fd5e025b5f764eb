"""
Weights and activations on few levels.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16. With L = round(2**bits) levels, per group
of consecutive entries of a row:

- asymmetric: the range is [min(0, min w), max(0, max w)], scale = (max - min) / (L - 1), zero = round(-min / scale),
  code = clamp(round(w / scale) + zero, 0, L - 1);
- symmetric, as GPTQ (arXiv 2210.17323): scale = 2 max|w| / (L - 1), zero = L // 2, the same code; for an even L values
  reach from -max|w| L / (L - 1) to max|w| (L - 2) / (L - 1).

The value is (code - zero) * scale, in float32. Rounding is to nearest, halves to even; zeros stay zero. The formats
nf4, fp4, fp8, mxfp4, nvfp4 and ternary have elements of their own. Gradients pass straight through whatever rounds
(arXiv 1308.3432).
"""

from __future__ import annotations

import collections.abc
import typing

import torch

import hemostat._C.solve

__all__: list[str] = [
    "BlockPacked",
    "GgufPacked",
    "GroupPacked",
    "PackedWeight",
    "activation",
    "awq",
    "awq_scale",
    "awq_scaled",
    "fake_quantize",
    "fp4",
    "fp8",
    "gguf",
    "gptq",
    "levels",
    "mxfp4",
    "nf4",
    "nvfp4",
    "rtn",
    "ternary",
]

class PackedWeight:
    """
    A weight in a storage format. Immutable.
    """
    def __reduce__(self) -> tuple: ...
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
    scale, and 16 for its zero point unless symmetric (there it is a constant); 32 for each feature's group where they have
    an ``order``, and 16 for each feature's ``input_scale``. In memory codes are bytes and scales are float32.
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
    def input_scale(self) -> torch.Tensor | None:
        """
        float32 ``[in_features]``: the codes are those of weight * input_scale; None where that is 1.
        """
    @property
    def order(self) -> torch.Tensor | None:
        """
        int64 ``[in_features]``: ``order[i]`` is the i-th of the features that are grouped one after the other; None where they are grouped as they are.
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

class BlockPacked(PackedWeight):
    """
    Elements of a few bits whose blocks share a scale: nf4, fp4, fp8, mxfp4, nvfp4, ternary.

    ``bits_per_weight`` counts the bits of codes and scales as they are in memory.
    """
    def __repr__(self) -> str: ...
    @property
    def block_size(self) -> int | str:
        """
        Weights that share a scale, or ``"tensor"``.
        """
    @property
    def codes(self) -> torch.Tensor:
        """
        The elements.

        - nf4, fp4: uint8 ``[out_features, ceil(in_features / 2)]``, the first of two in the high half, as bitsandbytes.
        - fp8: float8_e4m3fn or float8_e5m2 ``[out_features, in_features]``.
        - mxfp4, nvfp4: uint8 ``[out_features, ceil(in_features / 2)]``, the first of two in the low half: the bits of
          float4_e2m1fn_x2.
        - ternary: uint8 ``[out_features, ceil(in_features / 5)]``, the sum of (element + 1) * 3**i.
        """
    @property
    def dtype(self) -> torch.dtype:
        """
        The dtype of what ``dequantize`` returns.
        """
    @property
    def format(self) -> str:
        """
        nf4, fp4, fp8_e4m3, fp8_e5m2, mxfp4, nvfp4 or ternary
        """
    @property
    def scale(self) -> torch.Tensor:
        """
        ``[out_features, blocks]``, ``[1, 1]`` for the whole tensor: float32; float8_e8m0fnu of mxfp4, float8_e4m3fn of nvfp4
        """
    @property
    def tensor_scale(self) -> torch.Tensor | None:
        """
        nvfp4's scale of the whole tensor, float32; None of other formats
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
        symmetric: scale = 2 max|x| / (levels - 1) about 0, instead of the range [min, max] with 0.
        out: Contiguous tensor like input that receives the result; may be input itself.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded input, in its dtype; ``out`` where it was given.

    Raises:
        ValueError: A shape or option that cannot be, or NaN or infinities in input (then ``out``, unless it is input
            itself, is unspecified).
        TypeError: input is not float32, bfloat16 or float16, or out has another dtype.
        NumericalError: Finite entries would round beyond their dtype.

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
    packed: bool = False,
    check_finite: bool = True,
) -> torch.Tensor | GroupPacked:
    """
    Round weights whose salient input features were scaled up, and scale them back.

    With Q of ``rtn``, the result is Q(weight * s) / s. Of s = max(activation_absmean ** a, 1e-4), over sqrt(max s * min s),
    it takes the one of a = 0, 1/20, ..., 19/20 with the least output error tr(E gram E^T), where E is what the rounding
    changes. a = 0 is ``rtn``, so that without ``search_clip`` the output error is never more than ``rtn``'s. At inference
    1 / s goes into the operation before the layer; here it is multiplied back, and inputs stay as they are. Lin et al. 2024,
    "AWQ: Activation-aware Weight Quantization", arXiv 2306.00978. Gradients pass straight through to weight.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        activation_absmean: ``[in_features]``, mean ``|x|`` of each input feature; finite, not negative.
        gram: ``[in_features, in_features]``, X^T X / tokens.
        bits: 2 to 8, fractions allowed.
        group_size: Weights that share a scale: None or -1 for whole rows, or a divisor of in_features.
        symmetric: The levels of ``rtn``.
        search_clip: Clip each group of the scaled weight at the factor of 1, .95, ..., .55 of its largest magnitude that
            has the least error in the outputs which the group alone adds to.
        packed: Return the codes of the scaled weight instead of the rounded one.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in its own basis and dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()``
        equals it.

    Raises:
        ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
        TypeError: An argument is not float32, bfloat16 or float16.
        NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[1.0, 0.3], [-2.0, 0.1]])
        >>> absmean, gram = torch.tensor([1.0, 9.0]), torch.diag(torch.tensor([1.0, 81.0]))
        >>> hemostat.quantize.awq(weight, absmean, gram, bits=2, group_size=2)
        tensor([[ 0.8064,  0.3000],
                [-1.8709,  0.1160]])
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
        ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
        TypeError: An argument is not float32, bfloat16 or float16.
        NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

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
    packed: bool = False,
    check_finite: bool = True,
) -> torch.Tensor | GroupPacked:
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
        packed: Return the codes of the scaled weight instead of the rounded one.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in its own basis and dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()``
        equals it.

    Raises:
        ValueError: A shape, device or option that cannot be, NaN or infinities, or a gram that is not symmetric.
        TypeError: An argument is not float32, bfloat16 or float16.
        NumericalError: gram is not positive semidefinite, or the weight too large to be scaled and rounded.

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
    out: torch.Tensor | None = None,
    check_finite: bool = True,
    search_clip: bool = False,
) -> torch.Tensor:
    """
    ``rtn`` for training: the forward pass rounds, the gradient passes straight through.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        bits: 2 to 8, fractions allowed.
        group_size: None or -1 for whole rows, ``"tensor"``, or a divisor of in_features.
        symmetric: scale = 2 max|w| / (levels - 1) about 0, instead of the range [min, max] with 0.
        out: The result is written here: weight's shape, dtype and device, contiguous; may be ``weight`` itself. Not where
            weight requires a gradient.
        check_finite: False skips the look for NaN and infinities.
        search_clip: Shrinks each group's range by the factor of 1, .99, ..., .21 that has the least squared error.

    Returns:
        The rounded weight, exactly as ``rtn`` gives it, in weight's dtype.

    Raises:
        ValueError: A shape or option that cannot be, or NaN or infinities in weight.
        TypeError: weight is not float32, bfloat16 or float16.
        NumericalError: Finite entries would round beyond their dtype.

    Example:
        >>> import torch, hemostat
        >>> weight = torch.tensor([[-1.0, 0.2, 0.9, 2.0]], requires_grad=True)
        >>> hemostat.quantize.fake_quantize(weight, bits=2).sum().backward()
        >>> weight.grad
        tensor([[1., 1., 1., 1.]])
    """

def fp4(
    weight: torch.Tensor,
    *,
    block_size: typing.SupportsInt | typing.SupportsIndex = 64,
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor | BlockPacked:
    """
    bitsandbytes' 4-bit float: 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1 and their negatives, times a block's max|w|.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        block_size: Weights of a row that share a scale; a divisor of in_features.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it. The gradient passes straight through.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
            weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.fp4(torch.tensor([[-3.0, 0.1, 0.6, 1.0]]), block_size=4)
        tensor([[-3.0000,  0.0156,  0.5000,  1.0000]])
    """

def fp8(
    weight: torch.Tensor,
    *,
    format: str = "e4m3",
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor | BlockPacked:
    """
    8-bit floating point, each row scaled so that its max|w| is the format's largest number.

    scale = max|w| / 448 (e4m3) or / 57344 (e5m2), 1 for a row of zeros; an element is w / scale in float8, halves to even
    (Micikevicius et al. 2022, arXiv 2209.05433).

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        format: ``"e4m3"`` (4 bits of exponent, 3 of fraction) or ``"e5m2"``.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it, with codes in float8_e4m3fn or float8_e5m2 and scale float32 ``[out_features, 1]``.
        The gradient passes straight through.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
            weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.fp8(torch.tensor([[-448.0, 0.1, 33.3, 1.0]]))
        tensor([[-4.4800e+02,  1.0156e-01,  3.2000e+01,  1.0000e+00]])
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

def gptq(
    weight: torch.Tensor,
    gram: torch.Tensor | hemostat._C.solve.GramFactor,
    *,
    bits: typing.SupportsFloat | typing.SupportsIndex,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = 128,
    symmetric: bool = False,
    act_order: bool = False,
    static_groups: bool = False,
    block_size: typing.SupportsInt | typing.SupportsIndex = 128,
    damp: typing.SupportsFloat | typing.SupportsIndex = 0.01,
    packed: bool = False,
    check_finite: bool = True,
) -> torch.Tensor | GroupPacked:
    """
    GPTQ: rounds column by column, and the columns still to come take up each column's error.

    Minimizes what rounding changes in the layer's output. A group's range is that of its weights when the block of columns
    in which it begins comes; a whole row's, and with ``static_groups`` every group's, is that of the weight at first.
    Frantar et al. 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv
    2210.17323, algorithm 1, with one Cholesky factorization and no inverse.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        gram: X^T X over the number of tokens, float32 ``[in_features, in_features]``; or a ``solve.GramFactor`` of it, made
            once for many calls, whose act_order, block_size and damp then count.
        bits: 2 to 8, fractions allowed.
        group_size: Weights that share a scale: None or -1 for whole rows, or a divisor of in_features.
        symmetric: scale = 2 max|w| / (levels - 1) about 0, instead of the range [min, max] with 0.
        act_order: Takes the most active input features first; groups are of neighbours in that order.
        static_groups: Groups are of neighbours as they are, also with ``act_order``, and their ranges those of the weight
            at first, as in the authors' code (github.com/IST-DASLab/gptq): codes then need no order.
        block_size: Columns that are solved together.
        damp: Share of the mean diagonal entry that is added to gram's diagonal; more where that is too little.
        packed: Return the codes instead of the rounded weight.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype; with ``packed`` a ``GroupPacked``, whose ``dequantize()`` equals it.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight or gram.
        TypeError: weight is not float32, bfloat16 or float16, or gram not float32.
        NumericalError: gram is not positive semidefinite, or entries would round beyond weight's dtype.

    Example:
        >>> import torch, hemostat
        >>> gram = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        >>> hemostat.quantize.gptq(torch.tensor([[-0.4, 1.0]]), gram, bits=2, group_size=None)
        tensor([[-0.4667,  0.9333]])
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

def mxfp4(
    weight: torch.Tensor, *, packed: bool = False, out: torch.Tensor | None = None, check_finite: bool = True
) -> torch.Tensor | BlockPacked:
    """
    OCP Microscaling in 4 bits: blocks of 32 share a power of two.

    The scale of a block is 2**(floor(log2 max|w|) - 2), an element the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their
    negatives to w / scale, halves to even, saturating (OCP Microscaling Formats 1.0, section 6.3).

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides; 32 divides in_features.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it, with scale in float8_e8m0fnu. The gradient passes straight through.

    Raises:
        ValueError: A shape or device that cannot be, or NaN or infinities in weight (then ``out``, unless it is weight
            itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.mxfp4(torch.tensor([[-7.0, 0.3, 2.4, 1.0] * 8]))[:, :4]
        tensor([[-6.0000,  0.5000,  2.0000,  1.0000]])
    """

def nf4(
    weight: torch.Tensor,
    *,
    block_size: typing.SupportsInt | typing.SupportsIndex = 64,
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor | BlockPacked:
    """
    NormalFloat in 4 bits: 16 quantiles of a normal distribution, scaled to each block's max|w|.

    The scale of a block is max|w| in float32; an element is the nearest of 16 values from -1 to 1, of two equally near
    ones the lower (Dettmers et al. 2023, arXiv 2305.14314). Equal to bitsandbytes, whose blocks run over the flattened
    weight, where a block divides a row.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        block_size: Weights of a row that share a scale; a divisor of in_features.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it. The gradient passes straight through.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
            weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.nf4(torch.tensor([[-2.0, 0.1, 0.6, 1.0]]), block_size=4)
        tensor([[-2.0000,  0.1592,  0.6758,  0.8814]])
    """

def nvfp4(
    weight: torch.Tensor, *, packed: bool = False, out: torch.Tensor | None = None, check_finite: bool = True
) -> torch.Tensor | BlockPacked:
    """
    NVIDIA's 4-bit float: blocks of 16 share an 8-bit scale, and all of them a float32 one.

    tensor_scale = max|w| / (448 * 6) of the whole weight; the scale of a block is max|w| / 6 / tensor_scale in
    float8_e4m3fn, at least 2**-6; an element is the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, halves to
    even, saturating.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides; 16 divides in_features.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it, with scale in float8_e4m3fn. The gradient passes straight through.

    Raises:
        ValueError: A shape or device that cannot be, or NaN or infinities in weight (then ``out``, unless it is weight
            itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.nvfp4(torch.tensor([[-6.0, 0.3, 2.4, 1.0] * 4]))[:, :4]
        tensor([[-6.0000,  0.5000,  2.0000,  1.0000]])
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
        symmetric: scale = 2 max|w| / (levels - 1) about 0, instead of the range [min, max] with 0.
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
        NumericalError: Finite entries would round beyond their dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.rtn(torch.tensor([[-1.0, 0.2, 0.9, 2.0]]), bits=2)
        tensor([[-1.,  0.,  1.,  2.]])
    """

def ternary(
    weight: torch.Tensor,
    *,
    group_size: typing.SupportsInt | typing.SupportsIndex | str | None = "tensor",
    packed: bool = False,
    out: torch.Tensor | None = None,
    check_finite: bool = True,
) -> torch.Tensor | BlockPacked:
    """
    BitNet b1.58's absmean quantizer: every weight is -1, 0 or 1 times mean|w|.

    An element is clamp(round(w / mean|w|), -1, 1), halves to 0 (Ma et al. 2024, arXiv 2402.17764, equations 1 to 3). Where
    all weights are 0 the scale is 1, for the epsilon of the paper.

    Args:
        weight: ``[out_features, in_features]``, float32, bfloat16 or float16, of any strides.
        group_size: Weights that share a scale: ``"tensor"`` for the whole matrix, as the paper, None or -1 for whole rows,
            or a divisor of in_features.
        packed: Return the codes instead of the rounded weight.
        out: Contiguous tensor like weight that receives the result; may be weight itself. Not with ``packed``.
        check_finite: False skips the look for NaN and infinities.

    Returns:
        The rounded weight in weight's dtype, ``out`` where it was given; with ``packed`` a ``BlockPacked``, whose
        ``dequantize()`` equals it. The gradient passes straight through.

    Raises:
        ValueError: A shape, device or option that cannot be, or NaN or infinities in weight (then ``out``, unless it is
            weight itself, is unspecified).
        TypeError: weight is not float32, bfloat16 or float16, or out has another dtype.

    Example:
        >>> import torch, hemostat
        >>> hemostat.quantize.ternary(torch.tensor([[-2.0, 0.25, 0.75, 1.0]]))
        tensor([[-1.,  0.,  1.,  1.]])
    """
