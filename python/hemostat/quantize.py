"""Weights and activations on few levels.

With L = round(2**bits) levels, per group of consecutive entries of a row: an asymmetric range is [min(0, min w),
max(0, max w)] with scale (max - min) / (L - 1) and zero round(-min / scale); a symmetric one, as GPTQ's, has scale
2 max|w| / (L - 1) and zero L // 2. A weight's code is clamp(round(w / scale) + zero, 0, L - 1), its value
(code - zero) * scale. The formats nf4, fp4, fp8, mxfp4, nvfp4 and ternary have elements of their own, whose blocks
share a scale. Gradients pass straight through whatever rounds.
"""

from hemostat._C.quantize import (
    BlockPacked,
    GgufPacked,
    GroupPacked,
    PackedWeight,
    activation,
    awq,
    awq_scale,
    awq_scaled,
    fake_quantize,
    fp4,
    fp8,
    gguf,
    gptq,
    levels,
    mxfp4,
    nf4,
    nvfp4,
    rtn,
    ternary,
)

__all__ = [
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
