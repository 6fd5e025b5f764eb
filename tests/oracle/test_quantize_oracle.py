"""Room quantize against GPTQ's quantizer (its formula written down again) and PyTorch's own fake quantizer."""

import pytest
import torch

from hemostat import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def some_weight(rows, columns, dtype=torch.float32):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)
    weight[1] = weight[1].abs()
    return weight


def gptq_range(x, bits, symmetric, search=None):
    """Scale and zero point of every row of x, as Frantar et al.'s quantizer finds them.

    search: None, or (grid, maxshrink, norm) of its search for the clip.
    """
    maxq = 2**bits - 1
    low, high = x.amin(1).clamp(max=0), x.amax(1).clamp(min=0)
    if symmetric:
        high = torch.maximum(low.abs(), high)
        low = torch.where(low < 0, -high, low)
    scale = (high - low) / maxq
    zero = torch.full_like(scale, (maxq + 1) / 2) if symmetric else torch.round(-low / scale)
    if search:
        grid, maxshrink, norm = search
        best = torch.full_like(scale, float("inf"))
        for step in range(int(maxshrink * grid)):
            shrink = 1 - step / grid
            tried = (shrink * high - shrink * low) / maxq
            tried_zero = zero if symmetric else torch.round(-shrink * low / tried)
            error = (gptq_values(x, tried, tried_zero, maxq) - x).abs().pow(norm).sum(1)
            better = error < best
            best = torch.where(better, error, best)
            scale = torch.where(better, tried, scale)
            zero = zero if symmetric else torch.where(better, tried_zero, zero)
    return scale, zero, maxq


def gptq_values(x, scale, zero, maxq):
    scale, zero = scale.unsqueeze(1), zero.unsqueeze(1)
    return scale * (torch.clamp(torch.round(x / scale) + zero, 0, maxq) - zero)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [None, 16, 64])
def test_rtn_is_gptqs_quantizer(dtype, bits, symmetric, group_size):
    weight = some_weight(24, 192, dtype)
    groups = weight.float().view(-1, group_size or 192)
    if symmetric:
        # Its range starts at 0 where a group has no negative weight; ours has the sign's side in any case.
        groups = torch.where(groups.amin(1, True) < 0, groups, -groups)
        weight = groups.view(weight.shape).to(dtype)
    expected = gptq_values(groups, *gptq_range(groups, bits, symmetric)).view(weight.shape).to(dtype)
    assert torch.equal(quantize.rtn(weight, bits=bits, group_size=group_size, symmetric=symmetric), expected)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [None, 32])
def test_search_clip_is_gptqs_grid(bits, symmetric, group_size):
    weight = some_weight(20, 128)
    groups = weight.view(-1, group_size or 128)
    if symmetric:
        groups = torch.where(groups.amin(1, True) < 0, groups, -groups)
        weight = groups.view(weight.shape)
    expected = gptq_values(groups, *gptq_range(groups, bits, symmetric, search=(100, 0.8, 2))).view(weight.shape)
    rounded = quantize.rtn(weight, bits=bits, group_size=group_size, symmetric=symmetric, search_clip=True)
    torch.testing.assert_close(rounded, expected)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rtn_is_torchs_fake_quantize_per_channel(bits, symmetric):
    weight = some_weight(24, 192)
    packed = quantize.rtn(weight, bits=bits, symmetric=symmetric, packed=True)
    scale, zero = packed.scale.flatten(), packed.zero.flatten()
    expected = torch.fake_quantize_per_channel_affine(weight, scale, zero.int(), 0, 0, 2**bits - 1)
    # It multiplies by 1/scale, so a weight within rounding of the middle of two levels may go the other way.
    position = weight / packed.scale
    clear = ((position - position.floor()) - 0.5).abs() > 1e-5
    assert float(clear.float().mean()) > 0.99
    assert torch.equal(packed.dequantize()[clear], expected[clear])


@pytest.mark.parametrize("bits", [4, 8])
def test_activation_is_torchs_fake_quantize_per_token(bits):
    x = some_weight(30, 96)
    codes = quantize.rtn(x, bits=bits, packed=True)
    expected = torch.fake_quantize_per_channel_affine(
        x, codes.scale.flatten(), codes.zero.flatten().int(), 0, 0, 2**bits - 1
    )
    position = x / codes.scale
    clear = ((position - position.floor()) - 0.5).abs() > 1e-5
    rounded = quantize.activation(x.view(2, 15, 96), bits=bits).view(30, 96)
    assert torch.equal(rounded[clear], expected[clear])
