"""Random damage to weights."""

from hemostat._C.noise import apply, direction, gaussian, isotropic

__all__ = ["apply", "direction", "gaussian", "isotropic"]
