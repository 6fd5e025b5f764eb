"""Damage measured on logits, token by token. Logarithms are natural."""

from hemostat._C.metrics import TokenDivergence, divergence, expected_calibration_error, unigram_nll

__all__ = ["TokenDivergence", "divergence", "expected_calibration_error", "unigram_nll"]
