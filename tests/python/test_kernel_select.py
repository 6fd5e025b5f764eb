"""Kernels of room kernels that select by score: masks and ranks."""

import pytest
import torch
from kernel_references import (
    DTYPES,
    KINDS,
    SHAPES,
    fake_quantize,
    kept_until,
    mask_pattern,
    mask_smallest,
    ops,
    random,
    reference_kept_until,
    reference_mask,
    reference_pattern,
    reference_quantize,
    scores,
)


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_mask_smallest(device, shape, kind, per_row):
    score = scores(kind, shape)
    entries = shape[1] if per_row else score.numel()
    scale = random(shape[1], seed=3).abs() + 0.1
    for column_scale, absolute in [(None, True), (None, False), (scale, True), (scale, False)]:
        for removed in sorted({0, 1, entries // 10, entries // 2, entries - 1, entries}):
            mask = mask_smallest(device, score, column_scale, removed, per_row, absolute)
            assert torch.equal(mask, reference_mask(score, column_scale, removed, per_row, absolute)), removed


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_smallest_of_every_dtype(device, dtype, per_row):
    score = random(65, 333, dtype=dtype)
    scale = random(333, seed=1).abs()
    for column_scale in (None, scale):
        mask = mask_smallest(device, score, column_scale, 111, per_row, True)
        assert torch.equal(mask, reference_mask(score, column_scale, 111, per_row, True))


@pytest.mark.parametrize("kind", KINDS)
def test_mask_of_a_large_tensor(device, kind):
    score = scores(kind, (700, 1001))
    for removed in (1, 70_070, 350_350, 700_000):
        mask = mask_smallest(device, score, None, removed, False, False)
        assert torch.equal(mask, reference_mask(score, None, removed, False, False)), removed


def test_mask_of_a_large_tensor_that_a_sample_misjudges(device):
    # Neighbours are alike, so that a sample of neighbours knows less than its size promises.
    for seed in range(6):
        score = random(1 << 16, 1, seed=seed).expand(-1, 16).reshape(1024, 1024).contiguous()
        for removed in (50_000, 524_288, 1_000_000):
            mask = mask_smallest(device, score, None, removed, False, True)
            assert torch.equal(mask, reference_mask(score, None, removed, False, True))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 8, 12, 16, 24, 64, 1000])
@pytest.mark.parametrize("kind", ["normal", "ties", "signed zeros", "infinite"])
def test_mask_pattern(device, kind, m):
    for columns in (m, 3 * m, 17 * m):
        score = scores(kind, (5, columns))
        scale = random(columns, seed=1).abs() + 0.1
        for n in sorted({0, 1, m // 2, m}):
            for column_scale, absolute in [(None, True), (scale, True), (None, False)]:
                mask = mask_pattern(device, score, column_scale, n, m, absolute)
                assert torch.equal(mask, reference_pattern(score, column_scale, n, m, absolute)), (columns, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (3, 4096), (300, 1001)])
def test_kept_until(device, shape, kind, per_row, dtype):
    score = scores(kind, shape)
    scale = random(shape[1], seed=3).abs() + 0.1
    for column_scale, absolute in [(None, True), (None, False), (scale, True)]:
        found = kept_until(device, score, column_scale, per_row, absolute, dtype)
        assert torch.equal(found, reference_kept_until(score, column_scale, per_row, absolute, dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_row", [True, False])
def test_kept_until_of_half_types(device, dtype, per_row):
    score = random(40, 1000, dtype=dtype)
    found = kept_until(device, score, None, per_row, False, torch.float32)
    assert torch.equal(found, reference_kept_until(score, None, per_row, False, torch.float32))


def test_kept_until_is_every_mask(device):
    score = scores("ties", (9, 200))
    falls = kept_until(device, score, None, True, True, torch.float32)
    for removed in range(0, 201, 25):
        assert torch.equal(falls > removed / 200, mask_smallest(device, score, None, removed, True, True))


def test_every_half_value_is_ordered_and_rounded_right(device):
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        values = bits.view(dtype)
        values = values[values.isfinite()].reshape(-1, 1)
        for per_row in (True, False):
            found = kept_until(device, values.T, None, per_row, False, torch.float32)
            assert torch.equal(found, reference_kept_until(values.T, None, per_row, False, torch.float32))
        # One value a group: its scale and product exercise the rounding back to `dtype`.
        found = fake_quantize(device, values, 256, 1, False)
        assert torch.equal(found, reference_quantize(values, 256, 1, False)[3].to(dtype))


@pytest.mark.parametrize("per_row", [True, False])
def test_nan_scores_are_counted(device, per_row):
    for shape in ((3, 40), (700, 1001)):
        score = random(*shape)
        score[0, 3] = score[2, 5] = float("nan")
        score[1, 1] = float("inf")
        mask = torch.empty(shape, dtype=torch.bool, device=device)
        falls = torch.empty(shape, device=device)
        for removed in (0, 7, shape[1]):
            assert ops.mask_smallest(score.to(device), None, removed, per_row, True, out=mask) == 2
        assert ops.kept_until(score.to(device), None, per_row, True, out=falls) == 2
    score = random(3, 40)
    score[1, 7] = float("nan")
    for n, m in ((2, 4), (2, 5)):
        out = torch.empty(3, 40, dtype=torch.bool, device=device)
        assert ops.mask_pattern(score.to(device), None, n, m, True, out=out) == 1
    scale = torch.ones(40)
    scale[0] = float("inf")  # 0 · Inf
    zeros = torch.zeros(3, 40, device=device)
    assert ops.mask_smallest(zeros, scale.to(device), 7, per_row, True, out=torch.empty_like(zeros).bool()) == 3
