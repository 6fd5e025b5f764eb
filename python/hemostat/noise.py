"""Random damage to weights."""

from hemostat._C.noise import apply, direction, gaussian

__all__ = ["apply", "direction", "gaussian"]
