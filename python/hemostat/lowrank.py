"""A weight as the product of two thinner ones."""

from hemostat._C.lowrank import (
    Decomposition,
    Factors,
    asvd,
    decompose,
    decompose_asvd,
    decompose_svd_llm,
    rank_for,
    svd,
    svd_llm,
)

__all__ = [
    "Decomposition",
    "Factors",
    "asvd",
    "decompose",
    "decompose_asvd",
    "decompose_svd_llm",
    "rank_for",
    "svd",
    "svd_llm",
]
