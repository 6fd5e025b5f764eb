"""Weights and activations on few levels.

With L = round(2**bits) levels, per group of consecutive entries of a row: an asymmetric range is [min(0, min w),
max(0, max w)] with scale (max - min) / (L - 1) and zero round(-min / scale); a symmetric one, as GPTQ's, has scale
2 max|w| / (L - 1) and zero L // 2. A weight's code is clamp(round(w / scale) + zero, 0, L - 1), its value
(code - zero) * scale. Gradients pass straight through.
"""

from hemostat._C.quantize import (
    GroupPacked,
    PackedWeight,
    activation,
    awq,
    awq_scale,
    awq_scaled,
    fake_quantize,
    levels,
    rtn,
)

__all__ = [
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
