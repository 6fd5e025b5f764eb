"""The solvers of room prune against their papers' formulas in float64."""

import pytest
import torch
from solver_references import admm, authors_admm, correlated_gram, dsnot, output_error, smallest_fall

from hemostat import prune

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

# By what share weights differ wherever the reference chooses between two: more than rounding, whatever the order of
# sums, so that masks are the same on every machine.
APART = 1e-5


def some_weight(rows, columns, dtype=torch.float32):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("choice", "removed", "pattern"),
    [
        ({"sparsity": 0.3}, 0.3, None),
        ({"sparsity": 0.5}, 0.5, None),
        ({"sparsity": 0.8}, 0.8, None),
        ({"pattern": "2:4"}, 0.5, (2, 4)),
        ({"pattern": "1:8"}, 0.875, (1, 8)),
    ],
)
@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_admm(dtype, choice, removed, pattern, scope):
    weight, (_, gram) = some_weight(24, 64, dtype), correlated_gram(64)
    expected, expected_mask, closest = admm(weight, gram, removed, pattern=pattern, scope=scope)
    assert closest > APART
    pruned, mask = prune.admm(weight, gram, scope=scope, **choice)
    assert pruned.dtype == dtype
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(pruned.double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-3)
    ours, theirs = (output_error(weight, w, gram) for w in (pruned, expected.to(dtype)))
    assert ours <= theirs * (1.001 if dtype == torch.float32 else 1.05)


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("features", [96, 160])
def test_admm_is_no_further_off_than_the_authors_code(features, sparsity):
    weight, (_, gram) = some_weight(128, features), correlated_gram(features, tokens=2000)
    ours = output_error(weight, prune.admm(weight, gram, sparsity=sparsity).weight, gram)
    assert ours <= output_error(weight, authors_admm(weight, gram, sparsity), gram)


@pytest.mark.parametrize("iterations", [0, 1, 3, 50])
@pytest.mark.parametrize("damp", [0.0, 1.0])
def test_admm_options(iterations, damp):
    weight, (_, gram) = some_weight(16, 32), correlated_gram(32)
    expected, expected_mask, closest = admm(weight, gram, 0.5, iterations=iterations, damp=damp)
    assert closest > APART
    pruned, mask = prune.admm(weight, gram, sparsity=0.5, iterations=iterations, damp=damp)
    assert torch.equal(mask, expected_mask)
    torch.testing.assert_close(pruned.double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_cycles", [0, 1, 5, 50])
@pytest.mark.parametrize("threshold", [0.1 / 2048, 0.2])
@pytest.mark.parametrize("pattern", [None, (2, 4), (4, 8)])
def test_dsnot(dtype, max_cycles, threshold, pattern):
    weight, (x, _) = some_weight(40, 96, dtype), correlated_gram(96)
    mean, norm = x.mean(0), x.square().mean(0).sqrt()
    text = f"{pattern[0]}:{pattern[1]}" if pattern else None
    initial = prune.wanda(weight, norm, **({"pattern": text} if pattern else {"sparsity": 0.5}))
    found = prune.dsnot(weight, initial, mean, norm, pattern=text, max_cycles=max_cycles, threshold=threshold)
    expected = dsnot(weight, initial, mean, norm, pattern=pattern, max_cycles=max_cycles, threshold=threshold)
    assert torch.equal(found, expected)
    assert torch.equal(found, initial) == (max_cycles == 0)


def test_outlier_ratio_is_the_authors_count():
    weights = [some_weight(30, 40), some_weight(7, 12)]
    norms = [torch.rand(40), torch.rand(12)]
    scores = torch.cat([(w.abs() * n).flatten() for w, n in zip(weights, norms, strict=True)]).double()
    for threshold in (0.0, 1.0, 2.5, 5.0):
        expected = float((scores > scores.mean() * threshold).double().mean())
        assert prune.outlier_ratio(weights, norms, outlier_threshold=threshold) == pytest.approx(expected, abs=1e-12)


def test_owl_is_the_authors_formula():
    ratios = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = (ratios - ratios.min()) / (ratios.max() - ratios.min()) * 0.08 * 2
    kept = spread - spread.mean() + (1 - 0.6)
    assert prune.owl(ratios.tolist(), sparsity=0.6) == pytest.approx((1 - kept).tolist(), abs=1e-12)


def test_the_reference_ranks_as_the_masks_do():
    score = torch.tensor([3.0, 1.0, 1.0, 2.0])
    assert torch.equal(smallest_fall(score, 2), prune.mask(score[None], sparsity=0.5)[0])
