"""Room prune against the rules that the papers' own code applies, written down again from their formulas."""

import math

import pytest
import torch

from hemostat import prune

SHAPES = [(1, 8), (16, 64), (33, 100), (128, 576)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def cases(shape, dtype):
    """Weights and the mean square of each input, once in general position and once full of ties."""
    generator = torch.Generator().manual_seed(sum(shape))
    weight = torch.randn(shape, generator=generator).to(dtype)
    scaler_row = torch.rand(shape[1], generator=generator) * 3
    yield weight, scaler_row
    yield (weight * 2).round() / 2, (scaler_row * 2).round() / 2


def wanda_rows(weight, scaler_row, sparsity):
    """Sun et al.: sort |W| sqrt(scaler_row) of each row, stably; the first int(columns * sparsity) are pruned."""
    metric = weight.abs() * scaler_row.reshape(1, -1).sqrt()
    order = torch.sort(metric, dim=-1, stable=True).indices
    pruned = torch.zeros_like(metric, dtype=torch.bool)
    pruned.scatter_(1, order[:, : int(metric.shape[1] * sparsity)], True)
    return ~pruned


def n_of_m(metric, n, m):
    """Every m columns lose the m - n smallest; of equal ones the first, where the papers' topk leaves it open."""
    pruned = torch.zeros_like(metric, dtype=torch.bool)
    for first in range(0, metric.shape[1], m):
        order = torch.sort(metric[:, first : first + m].float(), dim=1, stable=True).indices
        pruned.scatter_(1, first + order[:, : m - n], True)
    return ~pruned


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.6, 0.875, 1.0])
def test_wanda(dtype, shape, sparsity):
    for weight, scaler_row in cases(shape, dtype):
        mask = prune.wanda(weight, scaler_row.sqrt(), sparsity=sparsity)
        assert torch.equal(mask, wanda_rows(weight, scaler_row, sparsity))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 8), (16, 64), (128, 576)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 2)])
def test_wanda_n_of_m(dtype, shape, n, m):
    for weight, scaler_row in cases(shape, dtype):
        mask = prune.wanda(weight, scaler_row.sqrt(), pattern=f"{n}:{m}")
        assert torch.equal(mask, n_of_m(weight.abs() * scaler_row.sqrt(), n, m))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(16, 64), (128, 576)])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8)])
def test_n_of_m_without_ties_is_topk(dtype, shape, n, m):
    # Distinct in every dtype: a permutation of few numbers in each group.
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(shape[0], shape[1] // m, m, generator=generator).argsort(-1).add(1).to(dtype).view(shape)
    pruned = torch.zeros(shape, dtype=torch.bool)
    for first in range(0, shape[1], m):
        smallest = torch.topk(weight[:, first : first + m].float(), m - n, dim=1, largest=False).indices
        pruned.scatter_(1, first + smallest, True)
    assert torch.equal(prune.magnitude(weight, pattern=f"{n}:{m}"), ~pruned)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77, 0.9])
def test_magnitude(dtype, shape, sparsity):
    for weight, _ in cases(shape, dtype):
        metric = weight.abs()
        removed = math.floor(weight.numel() * sparsity + 1e-9)
        mask = prune.magnitude(weight, sparsity=sparsity)
        assert int((~mask).sum()) == removed
        # The papers' code takes the score at that place of the sorted list as its threshold and removes all up to and
        # with it: never less than we do, and where no score equals the threshold, one more.
        threshold = torch.sort(metric.flatten()).values[removed]
        assert bool((metric < threshold).logical_and(mask).sum() == 0)
        assert bool((metric > threshold).logical_and(~mask).sum() == 0)
        ties = (metric == threshold).flatten()
        fallen = ties.logical_and(~mask.flatten())
        assert torch.equal(fallen[ties], torch.arange(int(ties.sum())) < int(fallen.sum()))
