"""Kernels of room kernels that round to levels."""

import pytest
import torch
from kernel_references import (
    DTYPES,
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
