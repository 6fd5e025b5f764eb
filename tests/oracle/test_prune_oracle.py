"""Room prune against the rules that the papers' own code applies, written down again from their formulas."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

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


def relative_importance(weight, scaler_row, alpha):
    """Zhang et al.: each |W| as a share of its column and of its row, times sqrt(scaler_row) ** alpha."""
    magnitude = weight.float().abs()
    share = magnitude / magnitude.sum(dim=0) + magnitude / magnitude.sum(dim=1).reshape(-1, 1)
    return share.nan_to_num(0) * scaler_row.sqrt().reshape(1, -1) ** alpha  # 0 / 0 where a row or column is zero


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_ria(dtype, shape, alpha):
    for weight, scaler_row in cases(shape, dtype):
        metric = relative_importance(weight, scaler_row, alpha)
        assert torch.equal(prune.score_ria(weight, scaler_row.sqrt(), alpha=alpha), metric)
        for sparsity in (0.25, 0.5, 0.6, 0.9):
            # The paper's code removes all up to and with the score at that place of the sorted list, so one more.
            removed = math.floor(weight.numel() * sparsity + 1e-9)
            threshold = torch.sort(metric.flatten()).values[removed]
            mask = prune.ria(weight, scaler_row.sqrt(), alpha=alpha, sparsity=sparsity, scope="tensor")
            assert int((~mask).sum()) == removed
            assert not (mask & (metric < threshold)).any() and not (~mask & (metric > threshold)).any()

            rows = prune.ria(weight, scaler_row.sqrt(), alpha=alpha, sparsity=sparsity, scope="row")
            order = torch.sort(metric, dim=-1, stable=True).indices
            fallen = order[:, : math.floor(metric.shape[1] * sparsity + 1e-9)]
            assert torch.equal(rows, torch.ones_like(rows).scatter_(1, fallen, False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (1, 2)])
def test_ria_n_of_m(dtype, n, m):
    for weight, scaler_row in cases((128, 576), dtype):
        mask = prune.ria(weight, scaler_row.sqrt(), pattern=f"{n}:{m}")
        assert torch.equal(mask, n_of_m(relative_importance(weight, scaler_row, 0.5), n, m))


def test_ria_of_a_matrix_of_many_parts_has_the_papers_sums():
    weight = torch.randn(600, 1111, generator=torch.Generator().manual_seed(3))
    scaler_row = torch.rand(1111, generator=torch.Generator().manual_seed(4))
    expected = relative_importance(weight.double(), scaler_row, 0.5)
    torch.testing.assert_close(prune.score_ria(weight, scaler_row.sqrt()), expected, rtol=1e-6, atol=0)


def kept_sum(score, order, n, m):
    return score[:, order].reshape(-1, m).topk(n, dim=1).values.double().sum()


def papers_permutation(score, n, m):
    """Zhang et al.: deal the columns out by their sums, then a linear sum assignment for each place, scored by the
    sum that each group keeps with each column in that place."""
    groups = score.shape[1] // m
    by_sum = score.sum(0).argsort(stable=True).reshape(m, groups)
    order = torch.stack([columns if i % 2 == 0 else columns.flip(0) for i, columns in enumerate(by_sum)], dim=1)
    for place in range(m):
        kept = torch.zeros(groups, groups, dtype=torch.float64)
        for group in range(groups):
            for other in range(groups):
                columns = order[group].clone()
                columns[place] = order[other, place]
                kept[group, other] = score[:, columns].topk(n, dim=1).values.double().sum()
        order[:, place] = order[torch.from_numpy(linear_sum_assignment(kept.numpy(), maximize=True)[1]), place]
    return order.flatten()


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 2), (3, 4), (4, 8), (1, 5)])
# Rows enough that no two assignments are equally good: after a tie the procedure may go another way.
@pytest.mark.parametrize(("rows", "groups"), [(32, 12), (100, 12), (40, 1), (40, 2), (64, 40)])
def test_channel_permutation(n, m, rows, groups):
    generator = torch.Generator().manual_seed(n * m + rows)
    columns = groups * m
    score = torch.rand(rows, columns, generator=generator) * torch.rand(columns, generator=generator).exp() ** 3
    order = prune.channel_permutation(score, pattern=f"{n}:{m}")
    assert torch.equal(order.sort().values, torch.arange(columns))
    kept, papers = kept_sum(score, order, n, m), kept_sum(score, papers_permutation(score, n, m), n, m)
    own = kept_sum(score, torch.arange(columns), n, m)
    torch.testing.assert_close(kept, max(papers, own), rtol=1e-6, atol=0)
    if groups > 2:
        assert kept > own
