"""Random damage to weights and to the inputs of linear layers."""

from hemostat._C.noise import activation_noise, apply, bit_flip, direction, gaussian, isotropic, stuck_at

__all__ = ["activation_noise", "apply", "bit_flip", "direction", "gaussian", "isotropic", "stuck_at"]
