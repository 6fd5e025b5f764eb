"""What happens to logits before a token is chosen."""

from hemostat._C.decode import temperature

__all__ = ["temperature"]
