"""A weight as the product of two thinner ones."""

from hemostat._C.lowrank import Decomposition, Factors, decompose, rank_for, svd

__all__ = ["Decomposition", "Factors", "decompose", "rank_for", "svd"]
