"""A method of one's own: coarser mantissas in the MLPs, as a number format with fewer bits would leave them.

    hemostat scan smollm2 --plugin examples/plugin.py --methods short_mantissa,magnitude

sweeps it beside hemostat's own methods.
"""

import torch

import hemostat

AXIS = hemostat.Axis(
    name="mantissa",
    unit="bits",
    neutral=23,  # a float32's
    minimum=0,
    maximum=23,
    farthest=0,
    kind="integer",
    default_grid=[8, 6, 4, 3, 2, 1],
)


@hemostat.method("short_mantissa", axis=AXIS)
def short_mantissa(model, statistics, *, layers: str = "*.mlp.*"):
    """Round the weights' mantissas to fewer bits."""

    def at(bits: int) -> hemostat.Model:
        return model.replace({name: rounded(weight, bits) for name, weight in model.linears(include=layers)})

    return at


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest values whose mantissas have ``bits`` bits after the point."""
    mantissa, exponent = torch.frexp(weight.float())  # |mantissa| in 1/2 … 1
    steps = 2.0 ** (bits + 1)
    return torch.ldexp(torch.round(mantissa * steps) / steps, exponent).to(weight.dtype)
