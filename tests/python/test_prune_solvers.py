"""Room prune's solvers, and the methods built on them: invariants and error messages."""

import doctest

import pytest
import torch
from solver_references import correlated_gram, least_squares, output_error

import hemostat
from hemostat import prune

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def subject(device):
    """A weight, and the Gram matrix, mean and root mean square of its inputs."""
    x, gram = correlated_gram(48)
    weight = torch.randn(40, 48, generator=torch.Generator().manual_seed(3))
    return tuple(t.to(device) for t in (weight, gram, x.mean(0), x.square().mean(0).sqrt()))


def test_docstrings():
    assert doctest.testmod(prune).failed == 0


# ADMM.


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.77, 0.9, 1.0])
@pytest.mark.parametrize("scope", ["tensor", "row"])
def test_admm_removes_the_count_and_what_it_removes_is_zero(subject, sparsity, scope):
    weight, gram, *_ = subject
    pruned, mask = prune.admm(weight, gram, sparsity=sparsity, scope=scope)
    removed = (~mask).sum() if scope == "tensor" else (~mask).sum(1)
    entries = weight.numel() if scope == "tensor" else weight.shape[1]
    assert (removed == prune.removed_count(sparsity, entries)).all()
    assert (pruned[~mask] == 0).all() and pruned.isfinite().all()


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "0:4"])
def test_admm_keeps_n_of_every_m(subject, pattern):
    n, m = map(int, pattern.split(":"))
    weight, gram, *_ = subject
    pruned, mask = prune.admm(weight, gram, pattern=pattern)
    assert (mask.view(-1, m).sum(1) == n).all()
    assert (pruned[~mask] == 0).all()


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_admm_adjusts_what_stays(subject, sparsity):
    weight, gram, _, norm = subject
    pruned, mask = prune.admm(weight, gram, sparsity=sparsity)
    error = output_error(weight, pruned, gram)
    only_masked = output_error(weight, prune.apply(weight, mask), gram)
    wanda = output_error(weight, prune.apply(weight, prune.wanda(weight, norm, sparsity=sparsity)), gram)
    least = output_error(weight.cpu(), least_squares(weight.cpu(), gram.cpu(), mask.cpu()), gram.cpu())
    assert least <= error * (1 + 1e-6)
    assert error < 0.6 * only_masked and error < 0.5 * wanda


def test_more_iterations_come_closer_to_the_least_error_of_their_mask(subject):
    weight, gram, *_ = subject
    excess = []
    for iterations in (10, 20, 100):
        pruned, mask = prune.admm(weight, gram, sparsity=0.6, damp=0.0, iterations=iterations)
        least = output_error(weight.cpu(), least_squares(weight.cpu(), gram.cpu(), mask.cpu()), gram.cpu())
        excess.append(output_error(weight, pruned, gram) / least)
    assert excess[0] > excess[1] > excess[2] >= 1 - 1e-6


def test_admm_without_iterations_masks_by_wandas_score(subject):
    weight, gram, *_ = subject
    pruned, mask = prune.admm(weight, gram, sparsity=0.5, iterations=0)
    score = prune.score_wanda(weight, gram.diagonal().sqrt())
    assert torch.equal(mask, prune.mask(score, sparsity=0.5, scope="tensor"))
    torch.testing.assert_close(pruned, prune.apply(weight, mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_admm_leaves_the_weight_where_nothing_falls(subject, dtype):
    weight, gram = subject[0].to(dtype), subject[1]
    for choice in ({"sparsity": 0.0}, {"sparsity": 1e-6}, {"pattern": "4:4"}):
        pruned, mask = prune.admm(weight, gram, **choice)
        assert torch.equal(pruned, weight) and mask.all()
        assert pruned.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize("dtype", DTYPES)
def test_admm_takes_any_strides_and_dtype(subject, dtype):
    weight, gram = subject[0].to(dtype), subject[1]
    result = prune.admm(weight, gram, sparsity=0.5)
    assert result.weight.dtype == dtype and result.weight.is_contiguous()
    wide = torch.zeros(80, 96, dtype=dtype, device=weight.device)
    wide[::2, ::2] = weight
    strided = prune.admm(wide[::2, ::2], gram, sparsity=0.5)
    assert torch.equal(strided.mask, result.mask) and torch.equal(strided.weight, result.weight)


def test_dead_inputs_lose_their_weights_first(subject):
    weight, gram, *_ = subject
    gram = gram.clone()
    gram[[3, 17]], gram[:, [3, 17]] = 0, 0
    pruned, mask = prune.admm(weight, gram, sparsity=2 / 48)
    assert not mask[:, [3, 17]].any() and int(mask.sum()) == 40 * 46
    alive = [j for j in range(48) if j not in (3, 17)]
    torch.testing.assert_close(pruned[:, alive], weight[:, alive], rtol=1e-5, atol=1e-5)
    nothing, mask = prune.admm(weight, torch.zeros_like(gram), sparsity=0.5)
    assert torch.equal(mask, prune.magnitude(weight, sparsity=0.5))
    torch.testing.assert_close(nothing, prune.apply(weight, mask))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (1, 1)])
def test_small_weights(device, shape):
    weight, gram = torch.ones(shape, device=device), torch.eye(shape[1], device=device)
    mean = torch.ones(shape[1], device=device)
    pruned, mask = prune.admm(weight, gram, sparsity=1.0)
    assert pruned.shape == mask.shape == shape and not mask.any() and not pruned.any()
    assert torch.equal(prune.dsnot(weight, mask, mean, 2 * mean), mask)
    assert prune.outlier_ratio([weight], [mean], outlier_threshold=0.5) == (1.0 if weight.numel() else 0.0)


# DSnoT.


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_dsnot_brings_the_mean_output_closer(subject, sparsity):
    weight, _, mean, norm = subject
    initial = prune.wanda(weight, norm, sparsity=sparsity)
    mask = prune.dsnot(weight, initial, mean, norm, max_cycles=2)
    assert torch.equal(mask.sum(1), initial.sum(1))
    before, after = ((weight * ~m) @ mean for m in (initial, mask))
    assert float(after.abs().mean()) < 0.8 * float(before.abs().mean())


def test_dsnot_keeps_a_pattern(subject):
    weight, _, mean, norm = subject
    initial = prune.wanda(weight, norm, pattern="2:4")
    mask = prune.dsnot(weight, initial, mean, norm, pattern="2:4")
    assert (mask.view(-1, 4).sum(1) == 2).all()
    assert not torch.equal(mask, initial)
    before, after = ((weight * ~m) @ mean for m in (initial, mask))
    assert (after.abs() <= before.abs() * (1 + 1e-5)).sum() > 0.5 * len(weight)
    assert (after.sign() == before.sign()).all()


def test_dsnot_leaves_what_is_right_already(subject):
    weight, _, mean, norm = subject
    initial = prune.wanda(weight, norm, sparsity=0.5)
    assert torch.equal(prune.dsnot(weight, initial, torch.zeros_like(mean), norm), initial)
    assert torch.equal(prune.dsnot(weight, initial, mean, norm, threshold=1e9), initial)
    for same in (torch.ones_like(initial), torch.zeros_like(initial)):
        assert torch.equal(prune.dsnot(weight, same, mean, norm), same)


# OWL.


def test_owl_spares_blocks_with_more_outliers():
    ratios = [0.01, 0.05, 0.02, 0.03]
    for sparsity in (0.0, 0.02, 0.3, 0.5, 0.97, 1.0):
        shares = prune.owl(ratios, sparsity=sparsity)
        assert sum(shares) / 4 == pytest.approx(sparsity)
        assert all(0 <= share <= 1 for share in shares)
        if 0 < sparsity < 1:
            assert sorted(shares) == [shares[1], shares[3], shares[2], shares[0]]
    assert max(prune.owl(ratios, sparsity=0.5)) - min(prune.owl(ratios, sparsity=0.5)) == pytest.approx(0.16)
    assert prune.owl([0.5, 0.5], sparsity=0.3) == [0.3, 0.3]
    assert prune.owl([0.5, 0.1], sparsity=0.3, lamda=0.0) == [0.3, 0.3]
    assert prune.owl([], sparsity=0.3) == []


def test_no_block_loses_less_at_a_larger_sparsity():
    shares = [prune.owl([0.01, 0.05, 0.02], sparsity=step / 50) for step in range(51)]
    for fewer, more in zip(shares, shares[1:], strict=False):
        assert all(a <= b for a, b in zip(fewer, more, strict=True))


# Errors.


def refusals():
    weight, gram, mean = torch.ones(2, 4), torch.eye(4), torch.ones(4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    nan = torch.full((2, 4), torch.nan)
    room = "hemostat.prune."
    yield (
        lambda: prune.admm(weight, torch.eye(3), sparsity=0.5),
        (room + "admm: gram is of 3 features, but weight has 4 input features"),
    )
    yield (
        lambda: prune.admm(weight, torch.ones(4), sparsity=0.5),
        (room + r"admm: gram has shape \[4\], but must be \[in_features, in_features\]"),
    )
    yield lambda: prune.admm(weight, gram), room + "admm: give sparsity or pattern, neither was given"
    yield lambda: prune.admm(weight, gram, sparsity=1.5), room + "admm: sparsity is 1.5, but must be from 0 to 1"
    yield lambda: prune.admm(weight, gram, pattern="2:3"), room + 'admm: pattern "2:3" needs rows of a multiple of 3'
    yield lambda: prune.admm(weight, gram, sparsity=0.5, damp=-1), room + "admm: damp is -1, but must be 0 or more"
    yield lambda: prune.admm(weight, gram, sparsity=0.5, iterations=-1), room + "admm: iterations is -1"
    yield lambda: prune.admm(weight, gram, sparsity=0.5, scope="column"), room + 'admm: scope is "column"'
    yield lambda: prune.admm(nan, gram, sparsity=0.5), room + "admm: weight has 8 NaN or infinite entries"
    yield lambda: prune.admm(weight, gram * torch.nan, sparsity=0.5), room + "admm: gram has 16 NaN or infinite"
    yield lambda: prune.admm(weight, -gram, sparsity=0.5), room + "admm: gram has 4 negative diagonal entries"
    yield (
        lambda: prune.dsnot(weight, mask, mean[:3], mean),
        (room + "dsnot: activation_mean has 3 entries, but weight has 4 input features"),
    )
    yield (
        lambda: prune.dsnot(weight, mask[:1], mean, mean),
        (room + r"dsnot: mask has shape \[1, 4\], but weight has \[2, 4\]"),
    )
    yield lambda: prune.dsnot(weight, mask, mean, mean, pattern="2:4"), room + "dsnot: mask does not keep 2 of every 4"
    yield lambda: prune.dsnot(weight, mask, mean, mean, max_cycles=-1), room + "dsnot: max_cycles is -1"
    yield lambda: prune.dsnot(weight, mask, mean, mean, threshold=-1), room + "dsnot: threshold is -1"
    yield lambda: prune.dsnot(weight, mask, mean, -mean), room + "dsnot: activation_norm has 4 NaN"
    yield lambda: prune.dsnot(nan, mask, mean, mean), room + "dsnot: weight has 8 NaN or infinite entries"
    yield lambda: prune.outlier_ratio([], []), room + "outlier_ratio: weights are 0 and activation_norms 0"
    yield lambda: prune.outlier_ratio([weight], [mean, mean]), room + "outlier_ratio: weights are 1"
    yield lambda: prune.outlier_ratio([weight], [mean], outlier_threshold=-1), room + "outlier_ratio: outlier_threshold"
    yield lambda: prune.outlier_ratio([nan], [mean]), room + r"outlier_ratio: weights\[0\] has 8 NaN"
    yield lambda: prune.owl([0.1], sparsity=2), room + "owl: sparsity is 2, but must be from 0 to 1"
    yield lambda: prune.owl([0.1], sparsity=0.5, lamda=-1), room + "owl: lamda is -1, but must be 0 or more"
    yield lambda: prune.owl([0.1, torch.nan], sparsity=0.5), room + r"owl: ratios\[1\] is nan, but must be finite"


@pytest.mark.parametrize("case", range(len(list(refusals()))))
def test_bad_arguments_are_named(case):
    call, message = list(refusals())[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_dtypes_are_named():
    weight, mean = torch.ones(2, 4), torch.ones(4)
    with pytest.raises(TypeError, match="hemostat.prune.admm: gram is float64, but must be float32"):
        prune.admm(weight, torch.eye(4, dtype=torch.float64), sparsity=0.5)
    with pytest.raises(TypeError, match="hemostat.prune.dsnot: mask must be bool, true = kept"):
        prune.dsnot(weight, weight, mean, mean)


def test_a_matrix_that_no_damping_saves():
    gram = torch.eye(4) - 3 * torch.ones(4, 4) + 3 * torch.diag(torch.ones(4))
    with pytest.raises(hemostat.NumericalError, match="hemostat.prune.admm: gram is not positive semidefinite"):
        prune.admm(torch.ones(2, 4), gram, sparsity=0.5)


# Methods.


@pytest.mark.parametrize(
    "spec", ["admm", "admm:m=4", "admm:scope=row", "dsnot", "dsnot:initial=magnitude", "dsnot:m=4"]
)
def test_a_method_is_its_operator_on_every_linear(tiny_model, statistics, spec):
    method, _, option = spec.partition(":")
    choice = {"pattern": "2:4"} if option == "m=4" else {"sparsity": 0.5}
    damaged = dict(hemostat.prepare(tiny_model, spec, statistics).at(2 if option == "m=4" else 0.5).linears())
    for name, weight in tiny_model.linears():
        found = statistics[name]
        if method == "admm":
            scope = {"scope": "row"} if option == "scope=row" else {}
            expected = prune.admm(weight, found.gram.to(weight.device), **choice, **scope).weight
        else:
            initial = (
                prune.magnitude(weight, **choice, **({} if "pattern" in choice else {"scope": "row"}))
                if option == "initial=magnitude"
                else prune.wanda(weight, found.norm, **choice)
            )
            mask = prune.dsnot(weight, initial, found.mean, found.norm, pattern=choice.get("pattern"))
            expected = prune.apply(weight, mask)
        torch.testing.assert_close(damaged[name], expected)
        assert not torch.equal(damaged[name], weight)


@pytest.mark.parametrize("inner", ["wanda", "magnitude", "admm", "magnitude:scope=row"])
def test_owl_gives_each_block_its_own_sparsity(tiny_model, statistics, inner):
    damaged = hemostat.prepare(tiny_model, "owl", statistics, inner=inner, lamda=0.2).at(0.5)
    blocks = [f"model.layers.{index}.*" for index in range(len(tiny_model.blocks))]
    ratios = []
    for block in blocks:
        linears = list(tiny_model.linears(include=block))
        ratios.append(prune.outlier_ratio([w for _, w in linears], [statistics[name].norm for name, _ in linears]))
    shares = prune.owl(ratios, sparsity=0.5, lamda=0.2)
    assert max(shares) - min(shares) == pytest.approx(0.4)
    changed = dict(damaged.linears())
    for block, share in zip(blocks, shares, strict=True):
        alone = hemostat.prepare(tiny_model, inner, statistics, include=block).at(share)
        for name, weight in alone.linears(include=block):
            torch.testing.assert_close(changed[name], weight)


def test_owl_leaves_blocks_without_a_chosen_linear(tiny_model, statistics):
    damaged = hemostat.prepare(tiny_model, "owl", statistics, include="*.[13].mlp.*").at(0.5)
    before, after = dict(tiny_model.linears()), dict(damaged.linears())
    for name, weight in before.items():
        assert torch.equal(weight, after[name]) == (".1.mlp." not in name and ".3.mlp." not in name), name


def test_owl_needs_what_its_inner_method_needs(tiny_model, tiny_tokens):
    own = hemostat.collect(tiny_model, tiny_tokens[:1], needs="owl")
    assert own.needs == {"column_norm"}
    with pytest.raises(ValueError, match="admm.: the statistics of 'model.layers.0.self_attn.q_proj' have no gram"):
        hemostat.prepare(tiny_model, "owl:inner=admm", own)
    assert hemostat.collect(tiny_model, tiny_tokens[:1], needs="owl:inner=admm").needs == {"column_norm", "gram"}
    report = hemostat.scan(tiny_model, tiny_tokens, methods=["owl:inner=admm"], severities=[0.5])
    assert len(report.trials) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("owl:inner=rtn", "owl.: inner is 'rtn', but must be one that removes single weights"),
        ("owl:inner=owl", "owl.: inner is 'owl'"),
        ("owl:inner=svd", "owl.: inner is 'svd'"),
        ("owl:inner=wanda:m=4", "owl.: inner is 'wanda:m=4', whose axis is n instead of sparsity"),
        ("owl:lamda=-1", "lamda is -1"),
        ("owl:outlier_threshold=-1", "outlier_threshold is -1"),
        ("owl:inner=nothing", "nothing"),
        ("owl:include=nothing", "leave no linear layer"),
        ("owl:include=lm_head", "lm_head"),
        ("admm:iterations=-1", "iterations is -1"),
        ("admm:damp=-1", "damp is -1"),
        ("admm:m=5", "m = 5 does not divide"),
        ("dsnot:max_cycles=-1", "max_cycles is -1"),
        ("dsnot:m=5", "m = 5 does not divide"),
    ],
)
def test_bad_options_are_refused(tiny_model, statistics, spec, message):
    with pytest.raises(ValueError, match=message):
        hemostat.prepare(tiny_model, spec, statistics)
