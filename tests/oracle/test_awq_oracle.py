"""AWQ against its paper's search on inputs, with the authors' quantizer, in float64."""

import pytest
import torch
from solver_references import awq_clip, awq_scales, correlated_gram, output_error, pseudo_quantize

from hemostat import quantize


def subject(rows=48, columns=64, seed=0):
    x, gram = correlated_gram(columns, seed=seed)
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * columns**-0.5
    return weight, x, x.abs().mean(0), gram


# Errors closer than this are equal to rounding: a code at a tie moves them by less.
EQUALLY_GOOD = 1 + 1e-4


def position(found, scales):
    """Which of the paper's scales it is."""
    (place,) = [i for i, scale in enumerate(scales) if torch.allclose(found.double(), scale, rtol=1e-4, atol=0)]
    return place


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [16, 64])
@pytest.mark.parametrize("seed", range(3))
def test_scale_and_weight(bits, group_size, seed):
    weight, x, absmean, gram = subject(seed=seed)
    scales, errors = awq_scales([weight.double()], x.double(), bits, group_size)
    found = quantize.awq_scale([weight], absmean, gram, bits=bits, group_size=group_size)
    chosen = errors[position(found, scales)]
    assert chosen <= min(errors) * EQUALLY_GOOD
    rounded = quantize.awq(weight, absmean, gram, bits=bits, group_size=group_size)
    assert output_error(weight, rounded, gram) == pytest.approx(chosen, rel=1e-2)
    expected = pseudo_quantize(weight * found, bits, group_size) / found
    assert float((rounded - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_on_one_input_share_the_scale(bits):
    weight, x, absmean, gram = subject()
    weights = [weight[:10] * 3, weight[10:16], weight[16:]]
    scales, errors = awq_scales([w.double() for w in weights], x.double(), bits, 16)
    found = quantize.awq_scale(weights, absmean, gram, bits=bits, group_size=16)
    assert errors[position(found, scales)] <= min(errors) * EQUALLY_GOOD


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("group_size", [16, 32])
def test_clip(bits, group_size):
    weight, x, absmean, gram = subject(seed=1)
    scale = quantize.awq_scale([weight], absmean, gram, bits=bits, group_size=group_size)
    scaled, inputs = (weight * scale).double(), (x / scale).double()
    limit, least = awq_clip(scaled, inputs, bits, group_size)
    found = quantize.awq(weight, absmean, gram, bits=bits, group_size=group_size, search_clip=True)
    # Each group does as little harm as with the best of the paper's clips.
    change = ((found * scale).double() - scaled).view(len(weight), -1, group_size)
    error = torch.einsum("tgi,ogi->otg", inputs.view(len(x), -1, group_size), change).square().mean(1)
    assert bool((error <= least * (1 + 1e-3)).all())
    assert bool((limit.repeat_interleave(group_size, 1) < scaled.abs()).any())  # something was clipped
