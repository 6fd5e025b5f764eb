"""Parts of a model left out. Model in, Model out."""

from hemostat._C.ablate import drop_layers

__all__ = ["drop_layers"]
