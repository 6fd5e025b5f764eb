"""Which weights of a matrix are removed: scores and masks.

A weight is ``[out_features, in_features]`` in float32, bfloat16 or float16; a mask is bool of the same shape, True =
kept. Scores are ranked in float32; of equal scores those with the lower index are removed first. ``sparsity`` is the
fraction removed, ``pattern`` "n:m" keeps n of every m consecutive weights of a row.
"""

from hemostat._C.prune import (
    apply,
    channel_permutation,
    fisher,
    gblm,
    kept_until,
    magnitude,
    mask,
    mask_at,
    removed_count,
    ria,
    score_fisher,
    score_gblm,
    score_magnitude,
    score_ria,
    score_taylor,
    score_wanda,
    taylor,
    wanda,
)

__all__ = [
    "apply",
    "channel_permutation",
    "fisher",
    "gblm",
    "kept_until",
    "magnitude",
    "mask",
    "mask_at",
    "removed_count",
    "ria",
    "score_fisher",
    "score_gblm",
    "score_magnitude",
    "score_ria",
    "score_taylor",
    "score_wanda",
    "taylor",
    "wanda",
]
