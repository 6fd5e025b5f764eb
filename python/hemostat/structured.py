"""Smaller models: heads, channels, blocks or dimensions taken out. Model in, Model out."""

from hemostat._C.structured import (
    block_influence,
    flap,
    gradient_aware,
    llm_pruner,
    shortgpt,
    sleb,
    slicegpt,
    wanda_sp,
)

__all__ = ["block_influence", "flap", "gradient_aware", "llm_pruner", "shortgpt", "sleb", "slicegpt", "wanda_sp"]
