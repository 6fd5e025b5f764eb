"""What the model reads is changed. Model in, Model out."""

from hemostat._C.context import token_noise

__all__ = ["token_noise"]
