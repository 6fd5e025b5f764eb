"""The Gram matrix of a layer's input, factored once for every solution of ``prune.sparsegpt`` and ``quantize.gptq``."""

from hemostat._C.solve import GramFactor

__all__ = ["GramFactor"]
