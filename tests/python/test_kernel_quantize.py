"""Kernels of room kernels that round to levels."""

import pytest
import torch
from kernel_references import (
    DTYPES,
    FORMATS,
    fake_quantize,
    ops,
    random,
    reference_quantize,
)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 7, 16, 256, 65536])
@pytest.mark.parametrize("dtype", DTYPES)
def test_quantize(device, dtype, levels, symmetric):
    for shape, group_size in [
        ((1, 1), 1),
        ((5, 48), 48),
        ((7, 384), 128),
        ((3, 9000), 9000),
        ((3, 30), 3),
        ((6, 70), 0),
    ]:
        weights = [
            random(*shape),
            random(*shape).abs(),
            -random(*shape).abs(),
            torch.zeros(shape),
            random(*shape) * 1e-4,
        ]
        for weight in (weight.to(dtype) for weight in weights):
            codes, scale, zero, values = reference_quantize(weight, levels, group_size, symmetric)
            assert torch.equal(fake_quantize(device, weight, levels, group_size, symmetric), values.to(dtype))
            if levels > 256:
                continue
            found = ops.quantize(weight.to(device), levels, group_size, symmetric)
            assert [tensor.dtype for tensor in found] == [torch.uint8, torch.float32, torch.float32, torch.int64]
            assert torch.equal(found[0].cpu().float(), codes)
            assert torch.equal(found[1].cpu(), scale) and torch.equal(found[2].cpu(), zero)
            assert found[3] == 0


def test_quantize_in_place(device):
    weight = random(6, 64).to(device)
    expected = fake_quantize(device, weight, 8, 16, True)
    assert ops.fake_quantize(weight, 8, 16, True, out=weight) == 0
    assert torch.equal(weight.cpu(), expected)


def test_quantize_at_the_ends_of_the_range(device):
    largest, least = torch.finfo(torch.float32).max, 2.0**-149
    for symmetric in (False, True):
        weight = torch.tensor(
            [[0.0, 0.0, 0.0, 0.0], [largest / 2, -largest / 2, 1.0, 0.0], [least, -least, 0.0, least]]
        )
        found = fake_quantize(device, weight, 16, 4, symmetric)
        assert found.isfinite().all()
        assert torch.equal(found[0], torch.zeros(4))
        assert (found - weight).abs().max() <= largest / 2 / 15 * 2
        assert (found[2].abs() <= least).all()


def test_values_that_are_not_finite_are_counted(device):
    weight = random(8, 64)
    weight[0, 0], weight[3, 63], weight[3, 1] = float("nan"), float("inf"), -float("inf")
    for group_size in (0, 16, 64):
        for symmetric in (False, True):
            out = torch.empty(8, 64, device=device)
            assert ops.fake_quantize(weight.to(device), 16, group_size, symmetric, out=out) == 3
            assert ops.quantize(weight.to(device), 16, group_size, symmetric)[3] == 3


def reference_search_clip(weight, levels, group_size, symmetric):
    """Scale and zero [groups, 1], and each group's squared error, in float64 sums."""
    groups = weight.float().reshape(1 if group_size == 0 else weight.numel() // group_size, -1)
    highest, lowest = groups.amax(1, True).clamp(min=0), groups.amin(1, True).clamp(max=0)
    if symmetric:
        highest = torch.maximum(highest, -lowest)
        lowest = -highest
    best = None
    for step in range(80):
        shrink = 1 - step / 100
        scale = (highest * shrink - lowest * shrink) / (levels - 1)
        scale[scale == 0] = 1
        zero = torch.full_like(scale, levels // 2) if symmetric else (lowest * -shrink / scale).round()
        values = ((groups / scale).round().add(zero).clamp(0, levels - 1) - zero) * scale
        error = (values - groups).double().square().sum(1, True)
        if best is None:
            best = [scale, zero, error]
        else:
            better = error < best[2]
            best = [torch.where(better, new, old) for new, old in zip((scale, zero, error), best, strict=True)]
    return best


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("levels", [4, 11, 256])
def test_search_clip(device, dtype, levels, symmetric):
    for shape, group_size in [
        ((1, 1), 1),
        ((5, 48), 48),
        ((7, 256), 32),
        ((3, 9000), 9000),
        ((3, 30), 3),
        ((6, 70), 0),
    ]:
        weight = random(*shape).to(dtype)
        weight[0] = weight[0].abs()
        scale, zero, invalid = ops.search_clip(weight.to(device), levels, group_size, symmetric)
        assert scale.dtype == zero.dtype == torch.float32 and invalid == 0
        expected = reference_search_clip(weight, levels, group_size, symmetric)
        scale, zero = scale.cpu().view(-1, 1), zero.cpu().view(-1, 1)
        groups = weight.float().reshape(len(scale), -1)
        values = ((groups / scale).round().add(zero).clamp(0, levels - 1) - zero) * scale
        error = (values - groups).double().square().sum(1, True)
        # Two ranges may be equally good to rounding; all others are the same, bit for bit.
        same = (scale == expected[0]) & (zero == expected[1])
        assert float(same.float().mean()) > 0.95
        torch.testing.assert_close(error, expected[2], rtol=1e-5, atol=1e-30)


def test_search_clip_counts_what_is_not_finite(device):
    weight = random(8, 64)
    weight[0, 0], weight[3, 63], weight[3, 1] = float("nan"), float("inf"), -float("inf")
    for group_size in (0, 16, 64):
        assert ops.search_clip(weight.to(device), 16, group_size, False)[2] == 3


@pytest.mark.parametrize("name", FORMATS)
def test_block_float(device, name):
    """One block for the whole tensor is one row of it; in place, and what is not finite."""
    weight = random(6, 64).to(device)
    out, row = torch.empty_like(weight), torch.empty(1, 384, device=device)
    assert ops.block_float(weight, name, 0, out=out) == 0
    assert ops.block_float(weight.view(1, 384), name, 384, out=row) == 0
    assert torch.equal(out, row.view(6, 64))
    codes, scale, *_ = ops.block_float_encode(weight, name, 0)
    assert codes.shape[0] == 6 and scale.shape == (1, 1)
    assert torch.equal(scale, ops.block_float_encode(weight.view(1, 384), name, 384)[1])
    in_place = weight.clone()
    assert ops.block_float(in_place, name, 0, out=in_place) == 0 and torch.equal(in_place, out)
    weight[0, 0], weight[3, 63], weight[3, 1] = float("nan"), float("inf"), -float("inf")
    for block_size in (0, 16, 64):
        assert ops.block_float(weight, name, block_size, out=out) == 3
        assert ops.block_float_encode(weight, name, block_size)[3] == 3
