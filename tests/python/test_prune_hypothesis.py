"""Room prune on drawn shapes, strides, dtypes and values."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from operator_strategies import (
    about,
    assert_same,
    gram_of,
    layers,
    matrices,
    result_of,
    scopes,
    sparsities,
    tensors,
    with_pattern,
)

from hemostat import prune


@pytest.mark.parametrize("pattern", [False, True])
@about("prune.mask", "prune.magnitude", "prune.wanda", "prune.ria")
@about("prune.score_magnitude", "prune.score_wanda", "prune.score_ria")
@about("prune.taylor", "prune.fisher", "prune.gblm", "prune.score_taylor", "prune.score_fisher", "prune.score_gblm")
@given(st.data())
def test_masks(device, pattern, data):
    weight, n, m = data.draw(with_pattern(matrices()))
    columns = weight.shape[1]
    sparsity, scope = data.draw(sparsities), data.draw(scopes)
    norm = data.draw(tensors(st.just((columns,)))).abs()
    for tensor in (weight, norm):  # scores that leave float32 are refused
        assume(tensor.numel() == 0 or not tensor.abs().max() > 1e15)
    gradient = data.draw(tensors(st.just(tuple(weight.shape)), values=("normal", "ties", "sparse", "zero", "constant")))
    square = gradient.abs()
    choice = {"pattern": f"{n}:{m}"} if pattern else {"sparsity": sparsity}

    masks = {
        "mask": (weight, result_of(prune.mask, weight, scope=scope, device=device, **choice), scope),
        "magnitude": (
            result_of(prune.score_magnitude, weight, device=device),
            result_of(prune.magnitude, weight, scope=scope, device=device, **choice),
            scope,
        ),
        "wanda": (
            result_of(prune.score_wanda, weight, norm, device=device),
            result_of(prune.wanda, weight, norm, device=device, **choice),
            "row",
        ),
        "ria": (
            result_of(prune.score_ria, weight, norm, device=device),
            result_of(prune.ria, weight, norm, scope=scope, device=device, **choice),
            scope,
        ),
        "taylor": (
            result_of(prune.score_taylor, weight, gradient, device=device),
            result_of(prune.taylor, weight, gradient, scope=scope, device=device, **choice),
            scope,
        ),
        "fisher": (
            result_of(prune.score_fisher, weight, square, device=device),
            result_of(prune.fisher, weight, square, scope=scope, device=device, **choice),
            scope,
        ),
        "gblm": (
            result_of(prune.score_gblm, weight, norm, square, device=device),
            result_of(prune.gblm, weight, norm, square, scope=scope, device=device, **choice),
            scope,
        ),
    }
    for name, (score, mask, within) in masks.items():
        assert mask.dtype == torch.bool
        groups = (-1, m) if pattern else (weight.shape[0], columns) if within == "row" else (1, weight.numel())
        if 0 in weight.shape or 0 in groups:
            continue
        score, mask = score.float().reshape(groups), mask.reshape(groups)
        removed = m - n if pattern else prune.removed_count(sparsity, groups[1])
        assert ((~mask).sum(1) == removed).all(), name
        kept = score.masked_fill(~mask, math.inf).amin(1)
        assert (kept >= score.masked_fill(mask, -math.inf).amax(1)).all(), name


@about("prune.channel_permutation")
@given(with_pattern(matrices()))
def test_channel_permutation(device, pattern):
    score, n, m = pattern
    order = prune.channel_permutation(score.to(device), pattern=f"{n}:{m}").cpu()
    assert torch.equal(order.sort().values, torch.arange(score.shape[1]))
    assert torch.equal(order, prune.channel_permutation(score.contiguous().to(device), pattern=f"{n}:{m}").cpu())
    if n and score.numel():
        kept, own = (x.double().reshape(-1, m).topk(n).values.sum() for x in (score[:, order], score))
        assert kept >= own - 1e-6 * score.double().abs().sum()


@about("prune.kept_until", "prune.mask_at")
@given(matrices(), scopes, st.lists(sparsities, min_size=1, max_size=4))
def test_kept_until_is_every_mask(device, score, scope, severities):
    until = result_of(prune.kept_until, score, scope=scope, device=device)
    assert until.dtype == torch.float32
    assert ((until > 0) & (until <= 1)).all()
    before = torch.ones(score.shape, dtype=torch.bool)
    for sparsity in sorted(severities):
        mask = result_of(prune.mask_at, until, sparsity=sparsity, scope=scope, device=device)
        assert_same(mask, prune.mask(score.to(device), sparsity=sparsity, scope=scope).cpu())
        assert not (mask & ~before).any()
        before = mask


@about("prune.apply")
@given(matrices(), st.integers(0, 1000))
def test_apply_leaves_zeros(device, weight, seed):
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    weight = weight.clone()
    weight[~mask] = math.nan
    pruned = result_of(prune.apply, weight, mask, device=device)
    assert pruned.dtype == weight.dtype
    assert_same(pruned[mask], weight[mask])
    assert (pruned[~mask] == 0).all()
    assert_same(prune.apply(pruned, mask), pruned)


@about("prune.removed_count")
@given(sparsities, st.integers(0, 2**40))
def test_removed_count(sparsity, entries):
    removed = prune.removed_count(sparsity, entries)
    assert 0 <= removed <= entries
    assert abs(removed - sparsity * entries) < 1 + 1e-9 * entries


@pytest.mark.parametrize("pattern", [False, True])
@about("prune.admm")
@given(st.data(), st.integers(0, 1000))
def test_admm_adjusts_what_stays(device, pattern, data, seed):
    weight, n, m = data.draw(with_pattern(matrices(values=("normal", "ties", "sparse", "zero", "constant"))))
    sparsity, scope = data.draw(sparsities), data.draw(scopes)
    gram, x = gram_of(weight.shape[1], seed)
    choice = {"pattern": f"{n}:{m}"} if pattern else {"sparsity": sparsity, "scope": scope}
    before = weight.clone()
    pruned, mask = prune.admm(weight.to(device), gram.to(device), **choice)
    pruned, mask = pruned.cpu(), mask.cpu()
    assert pruned.dtype == weight.dtype and mask.dtype == torch.bool
    assert pruned.shape == mask.shape == weight.shape and pruned.is_contiguous() and mask.is_contiguous()
    assert (pruned[~mask] == 0).all() and pruned.isfinite().all()
    assert_same(weight, before)
    if weight.numel() == 0:
        return
    groups = (-1, m) if pattern else (weight.shape[0], -1) if scope == "row" else (1, -1)
    rows = mask.reshape(groups)
    removed = m - n if pattern else prune.removed_count(sparsity, rows.shape[1])
    assert ((~rows).sum(1) == removed).all()
    if removed == 0:
        assert_same(pruned, weight)
    # Never much further off than removing the same weights and leaving the others.
    masked, adjusted = (((w.double() - weight.double()) @ x.double().T).norm() for w in (weight * mask, pruned))
    assert adjusted <= 1.1 * masked + 1e-3 * (1 + weight.double().norm())


@pytest.mark.parametrize("pattern", [False, True])
@about("prune.dsnot")
@given(st.data(), st.integers(0, 1000), st.integers(0, 60))
def test_dsnot_swaps(device, pattern, data, seed, cycles):
    weight, n, m = data.draw(with_pattern(matrices(values=("normal", "ties", "sparse", "zero", "constant"))))
    _, x = gram_of(weight.shape[1], seed)
    mean, norm = x.mean(0).to(device), x.square().mean(0).sqrt().to(device)
    choice = {"pattern": f"{n}:{m}"} if pattern else {"sparsity": data.draw(sparsities)}
    initial = prune.wanda(weight.to(device), norm, **choice)
    options = {"max_cycles": cycles, **({"pattern": f"{n}:{m}"} if pattern else {})}
    mask = prune.dsnot(weight.to(device), initial, mean, norm, **options)
    assert mask.shape == weight.shape and mask.dtype == torch.bool and mask.is_contiguous()
    assert_same(mask.sum(1), initial.sum(1))
    assert ((mask != initial).sum(1) <= 2 * cycles).all()
    assert_same(prune.dsnot(weight.to(device).contiguous(), initial, mean, norm, **options), mask)
    if pattern and weight.numel():
        assert (mask.view(-1, m).sum(1) == n).all()


@about("prune.outlier_ratio", "prune.owl")
@given(st.lists(st.tuples(matrices(), st.integers(0, 99)), min_size=1, max_size=3), st.floats(0, 9), sparsities)
def test_owl_shares_a_sparsity(device, block, threshold, sparsity):
    weights = [weight.to(device) for weight, _ in block]
    norms = [torch.rand(w.shape[1], generator=torch.Generator().manual_seed(seed)).to(device) for w, (_, seed) in
             zip(weights, block, strict=True)]  # fmt: skip
    ratio = prune.outlier_ratio(weights, norms, outlier_threshold=threshold)
    assert 0 <= ratio <= 1
    assert ratio * threshold <= 1 + 1e-6  # Markov
    assert prune.outlier_ratio(weights, norms, outlier_threshold=threshold + 1) <= ratio
    shares = prune.owl([ratio, 0.3, 0.0], sparsity=sparsity)
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) / 3 == pytest.approx(sparsity, abs=1e-12)


@about("prune.sparsegpt")
@given(layers(), sparsities, st.integers(1, 40))
def test_sparsegpt_removes_what_it_says(device, layer, sparsity, block_size):
    weight, gram = layer[0].to(device), layer[1].to(device)
    before = weight.clone()
    pruned, mask = prune.sparsegpt(weight, gram, sparsity=sparsity, block_size=block_size)
    assert pruned.dtype == weight.dtype and pruned.shape == mask.shape == weight.shape
    assert pruned.isfinite().all() and (pruned[~mask] == 0).all()
    for block in mask.split(block_size, dim=1):
        assert int((~block).sum()) == prune.removed_count(sparsity, block.numel())
    assert_same(weight, before)
    assert_same(prune.sparsegpt(weight.contiguous(), gram, sparsity=sparsity, block_size=block_size).mask, mask)
