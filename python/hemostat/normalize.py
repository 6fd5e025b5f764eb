"""Normalization changed. Model in, Model out."""

from hemostat._C.normalize import drop_norms, norm_count

__all__ = ["drop_norms", "norm_count"]
