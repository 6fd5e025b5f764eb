"""Damage measured on logits, token by token, and on continuations. Logarithms are natural."""

from hemostat._C.metrics import (
    GenerationDivergence,
    TokenDivergence,
    divergence,
    expected_calibration_error,
    generation_divergence,
    unigram_nll,
)

__all__ = [
    "GenerationDivergence",
    "TokenDivergence",
    "divergence",
    "expected_calibration_error",
    "generation_divergence",
    "unigram_nll",
]
