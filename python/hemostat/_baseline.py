"""What a caller is warned of: a baseline that is finite, and yet tells little."""

from __future__ import annotations

import math
import warnings

import torch

from hemostat import _C

__all__ = ["BaselineWarning", "warn_of_baseline", "warn_of_unknown_floor"]


class BaselineWarning(UserWarning):
    """The baseline predicts the text no better than counting its tokens does, so that damage to it says nothing about
    what is safe; or how much damage numerics alone do is unknown.
    """


def warn_of_baseline(damage: _C.Damage) -> None:
    """Warns the caller's caller where the baseline is no better than the unigram model."""
    if damage.no_better_than_unigram:
        counting = "" if damage.unigram_nll is None else f" against {math.exp(damage.unigram_nll):.4g}"
        warnings.warn(
            "the baseline predicts this text no better than counting its tokens does (perplexity "
            f"{damage.perplexity_baseline:.4g}{counting}), so damage to it says nothing about what is safe: is this "
            "the right model, and text of the kind that it was trained on?",
            BaselineWarning,
            stacklevel=3,
        )


def warn_of_unknown_floor(model: _C.Model, floor: _C.NoiseFloor | None) -> None:
    """Warns the caller's caller where there is no noise floor."""
    if floor is None:
        other = "bfloat16" if model.dtype == torch.float32 else "float32"
        warnings.warn(
            f"in {other} the baseline is not finite, so the noise floor is unknown: no damage is marked as within it",
            BaselineWarning,
            stacklevel=3,
        )
