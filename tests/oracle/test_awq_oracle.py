"""AWQ against its paper's search on inputs, with the authors' quantizer, in float64."""

import pytest
import torch
from solver_references import awq_clip, awq_scale, correlated_gram, output_error, pseudo_quantize

from hemostat import quantize


def subject(rows=48, columns=64, seed=0):
    x, gram = correlated_gram(columns, seed=seed)
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * columns**-0.5
    return weight, x, x.abs().mean(0), gram


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group_size", [16, 64])
@pytest.mark.parametrize("seed", range(3))
def test_scale_and_weight(bits, group_size, seed):
    weight, x, absmean, gram = subject(seed=seed)
    scale, errors = awq_scale([weight.double()], x.double(), bits, group_size)
    found = quantize.awq_scale([weight], absmean, gram, bits=bits, group_size=group_size)
    torch.testing.assert_close(found.double(), scale, rtol=1e-4, atol=0)
    rounded = quantize.awq(weight, absmean, gram, bits=bits, group_size=group_size)
    assert output_error(weight, rounded, gram) == pytest.approx(min(errors), rel=1e-2)
    expected = pseudo_quantize(weight * found, bits, group_size) / found
    assert float((rounded - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("bits", [2, 4])
def test_weights_on_one_input_share_the_scale(bits):
    weight, x, absmean, gram = subject()
    weights = [weight[:10] * 3, weight[10:16], weight[16:]]
    scale, _ = awq_scale([w.double() for w in weights], x.double(), bits, 16)
    found = quantize.awq_scale(weights, absmean, gram, bits=bits, group_size=16)
    torch.testing.assert_close(found.double(), scale, rtol=1e-4, atol=0)


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("group_size", [16, 32])
def test_clip(bits, group_size):
    weight, x, absmean, gram = subject(seed=1)
    scale = quantize.awq_scale([weight], absmean, gram, bits=bits, group_size=group_size)
    limit = awq_clip((weight * scale).double(), (x / scale).double(), bits, group_size)
    limit = limit.repeat_interleave(group_size, 1)
    expected = pseudo_quantize(torch.clamp(weight * scale, -limit, limit), bits, group_size) / scale
    found = quantize.awq(weight, absmean, gram, bits=bits, group_size=group_size, search_clip=True)
    # A range clipped on both sides has its zero point halfway between two codes: rounding decides in few groups.
    assert float(((found - expected).abs() > 1e-4).double().mean()) < 0.05
    assert bool((limit < (weight * scale).abs()).any())  # something was clipped
