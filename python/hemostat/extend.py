"""Models made deeper. Model in, Model out."""

from hemostat._C.extend import duplicate_layers, insert_identity

__all__ = ["duplicate_layers", "insert_identity"]
