"""Room prune: exact counts, ties, patterns, kept_until, errors."""

import doctest
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hemostat
from hemostat import prune

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def reference_mask(score, removed, scope):
    """The lowest `removed` of every scope fall, ties in index order: a stable sort, from the contract's words."""
    rows = score.float() if scope == "row" else score.float().reshape(1, -1)
    order = torch.sort(rows, dim=1, stable=True).indices
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask.scatter_(1, order[:, :removed], False)
    return mask.view(score.shape)


def reference_pattern(score, n, m):
    groups = score.float().reshape(-1, m)
    return reference_mask(groups, m - n, "row").view(score.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (64, 129), (257, 100)])
@pytest.mark.parametrize("scope", ["row", "tensor"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_mask(device, dtype, shape, scope, sparsity):
    score = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).to(device)
    entries = score.shape[1] if scope == "row" else score.numel()
    mask = prune.mask(score, sparsity=sparsity, scope=scope)
    assert mask.dtype == torch.bool and mask.is_contiguous()
    assert torch.equal(mask.cpu(), reference_mask(score.cpu(), math.floor(Fraction(str(sparsity)) * entries), scope))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_fall_in_index_order(device, dtype):
    score = torch.randint(0, 3, (33, 65), generator=torch.Generator().manual_seed(1)).to(dtype).to(device)
    for scope, entries in (("row", 65), ("tensor", 33 * 65)):
        mask = prune.mask(score, sparsity=0.4, scope=scope)
        assert torch.equal(mask.cpu(), reference_mask(score.cpu(), entries * 2 // 5, scope))
    equal = torch.ones(2, 10, device=device, dtype=dtype)
    assert prune.mask(equal, sparsity=0.3).tolist() == [[False] * 3 + [True] * 7] * 2


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "0:4", "4:4", "1:1"])
def test_pattern(device, pattern):
    n, m = map(int, pattern.split(":"))
    weight = torch.randn(19, 24, generator=torch.Generator().manual_seed(2)).to(device)
    weight[:, ::3] = 0.5  # ties
    mask = prune.magnitude(weight, pattern=pattern)
    assert torch.equal(mask.cpu(), reference_pattern(weight.cpu().abs(), n, m))
    assert bool((mask.view(-1, m).sum(1) == n).all())


def test_magnitude_ranks_the_whole_tensor_unless_told(device):
    weight = torch.tensor([[5.0, -4.0, 3.0, -2.0], [0.1, -0.2, 0.3, 0.4]], device=device)
    assert prune.magnitude(weight, sparsity=0.5).tolist() == [[True] * 4, [False] * 4]
    assert prune.magnitude(weight, sparsity=0.5, scope="row").tolist() == [
        [True, True, False, False],
        [False, False, True, True],
    ]


def test_scores_and_masks_agree(device):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(31, 48, generator=generator).to(device)
    norm = torch.rand(48, generator=generator).to(device)
    assert torch.equal(prune.score_magnitude(weight), weight.abs())
    assert torch.equal(prune.score_wanda(weight, norm), weight.abs() * norm)
    assert torch.equal(prune.magnitude(weight, sparsity=0.3), prune.mask(weight.abs(), sparsity=0.3, scope="tensor"))
    assert torch.equal(prune.wanda(weight, norm, sparsity=0.3), prune.mask(weight.abs() * norm, sparsity=0.3))
    assert torch.equal(prune.wanda(weight, norm, pattern="2:4"), prune.mask(weight.abs() * norm, pattern="2:4"))
    ria = prune.score_ria(weight, norm)
    assert torch.equal(prune.ria(weight, norm, sparsity=0.3), prune.mask(ria, sparsity=0.3))
    assert torch.equal(
        prune.ria(weight, norm, sparsity=0.3, scope="tensor"), prune.mask(ria, sparsity=0.3, scope="tensor")
    )
    assert torch.equal(prune.ria(weight, norm, pattern="2:4"), prune.mask(ria, pattern="2:4"))
    gradient = torch.randn(31, 48, generator=generator).to(device)
    square = gradient.square()
    taylor, fisher = (weight * gradient).abs(), weight * square * weight * 0.5
    assert torch.equal(prune.taylor(weight, gradient, sparsity=0.3), prune.mask(taylor, sparsity=0.3, scope="tensor"))
    assert torch.equal(prune.taylor(weight, gradient, sparsity=0.3, scope="row"), prune.mask(taylor, sparsity=0.3))
    assert torch.equal(prune.fisher(weight, square, sparsity=0.3), prune.mask(fisher, sparsity=0.3, scope="tensor"))
    assert torch.equal(prune.fisher(weight, square, pattern="2:4"), prune.mask(fisher, pattern="2:4"))
    assert torch.equal(
        prune.gblm(weight, norm, gradient.abs(), alpha=0, sparsity=0.3), prune.wanda(weight, norm, sparsity=0.3)
    )
    gblm = prune.score_gblm(weight, norm, gradient.abs(), alpha=3)
    assert torch.equal(prune.gblm(weight, norm, gradient.abs(), alpha=3, sparsity=0.3), prune.mask(gblm, sparsity=0.3))


def test_ria_ranks_zeros_lowest_and_leaves_activations_out_at_alpha_0(device):
    weight = torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]], device=device)
    norm = torch.tensor([1.0, 0.0, 4.0], device=device)
    assert prune.score_ria(weight, norm).tolist() == [[0.0, 0.0, pytest.approx(2 * (1 / 3 + 1))], [0.0] * 3]
    assert torch.equal(prune.score_ria(weight, norm, alpha=0), prune.score_ria(weight, torch.ones_like(norm)))
    with pytest.raises(
        hemostat.NumericalError, match="score_ria: weight times activation_norm is too large: 2 entries"
    ):
        prune.score_ria(weight * 1e-38, norm.fill_(3e38), alpha=30)


@pytest.mark.parametrize("pattern", ["2:4", "1:2", "5:8", "0:4", "4:4"])
def test_channel_permutation_keeps_no_less(device, pattern):
    n, m = map(int, pattern.split(":"))
    score = torch.rand(40, 48, generator=torch.Generator().manual_seed(7)).to(device)
    for view in (score, score.half(), (score * 4).round(), -score, score * 1e38, torch.zeros_like(score)):
        order = prune.channel_permutation(view, pattern=pattern)
        assert order.dtype == torch.int64 and order.device == score.device
        assert torch.equal(order.sort().values.cpu(), torch.arange(48))
        kept = [view.double()[:, c][prune.mask(view[:, c], pattern=pattern)].sum() for c in (order, torch.arange(48))]
        assert kept[0] >= kept[1] - 1e-6 * view.double().abs().sum()
        if n in (0, m):
            assert torch.equal(order.cpu(), torch.arange(48))


@pytest.mark.parametrize("method", ["wanda", "ria"])
def test_permuted_groups_hold_and_keep_more(tiny_model, tiny_tokens, method):
    statistics = hemostat.collect(tiny_model, tiny_tokens, needs=[method])
    plain = hemostat.prepare(tiny_model, method, statistics, m=4).at(2)
    permuted = hemostat.prepare(tiny_model, method, statistics, m=4, permute=True).at(2)
    kept = dict(plain.linears())
    for name, weight in permuted.linears():
        score = getattr(prune, f"score_{method}")(dict(tiny_model.linears())[name], statistics[name].norm)
        order = prune.channel_permutation(score, pattern="2:4")
        assert bool((weight[:, order].reshape(-1, 4).ne(0).sum(1) <= 2).all())
        assert score[weight != 0].sum() >= score[kept[name] != 0].sum() * (1 - 1e-6)
    with pytest.raises(ValueError, match=rf"prepare\({method}\): permute regroups the columns of n:m pruning"):
        hemostat.prepare(tiny_model, method, statistics, permute=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_matter(device, dtype):
    base = torch.randn(40, 96, generator=torch.Generator().manual_seed(4)).to(dtype).to(device)
    norm = torch.rand(40, device=device)
    for view in (base.t(), base[::2, 1::3], base[:, 8:40], base[:1].expand(6, -1)):
        dense = view.contiguous()
        assert torch.equal(prune.magnitude(view, sparsity=0.4), prune.magnitude(dense, sparsity=0.4))
        assert torch.equal(prune.kept_until(view), prune.kept_until(dense))
    assert torch.equal(
        prune.wanda(base.t(), norm, sparsity=0.4), prune.wanda(base.t().contiguous(), norm, sparsity=0.4)
    )


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(device, shape):
    weight = torch.empty(shape, device=device)
    assert prune.magnitude(weight, sparsity=0.5).shape == shape
    assert prune.magnitude(weight, pattern="2:4").shape == shape
    assert prune.wanda(weight, torch.ones(shape[1], device=device), sparsity=0.5).shape == shape
    assert prune.ria(weight, torch.ones(shape[1], device=device), sparsity=0.5).shape == shape
    assert prune.score_ria(weight, torch.ones(shape[1], device=device)).shape == shape
    assert prune.taylor(weight, weight, sparsity=0.5).shape == shape
    assert prune.fisher(weight, weight, pattern="2:4").shape == shape
    assert prune.gblm(weight, torch.ones(shape[1], device=device), weight, sparsity=0.5).shape == shape
    assert prune.channel_permutation(weight, pattern="2:4").tolist() == list(range(shape[1]))
    assert prune.kept_until(weight).shape == shape
    assert prune.mask_at(prune.kept_until(weight), sparsity=0.5).shape == shape
    assert prune.apply(weight, torch.empty(shape, dtype=torch.bool, device=device)).shape == shape


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_a_product_within_rounding_of_an_integer_is_that_integer(numerator, entries):
    for sparsity in (numerator / 1000, 1 - (1000 - numerator) / 1000):
        assert prune.removed_count(sparsity, entries) == math.floor(Fraction(numerator, 1000) * entries)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**24))
def test_more_severity_never_removes_less(first, second, entries):
    low, high = sorted((first, second))
    assert 0 <= prune.removed_count(low, entries) <= prune.removed_count(high, entries) <= entries


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.floats(0, 1, width=32), st.integers(0, 2**31))
def test_masks_are_nested_and_exact(columns, rows, sparsity, seed):
    score = torch.randint(0, 9, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    mask = prune.mask(score, sparsity=sparsity)
    assert bool(((~mask).sum(1) == prune.removed_count(sparsity, columns)).all())
    assert torch.equal(mask, prune.mask_at(prune.kept_until(score), sparsity=sparsity))
    sparser = prune.mask(score, sparsity=min(1.0, sparsity + 0.2))
    assert not bool((sparser & ~mask).any())


@pytest.mark.parametrize("scope", ["row", "tensor"])
def test_kept_until_is_one_comparison(device, scope):
    score = torch.randint(0, 50, (30, 100), generator=torch.Generator().manual_seed(5)).float().to(device)
    until = prune.kept_until(score, scope=scope)
    assert until.dtype == torch.float32
    assert float(until.max()) == 1.0
    for percent in range(101):
        mask = prune.mask(score, sparsity=percent / 100, scope=scope)
        assert torch.equal(until > percent / 100, mask)
        assert torch.equal(prune.mask_at(until, sparsity=percent / 100, scope=scope), mask)


def test_kept_until_tells_ranks_apart_beyond_float32(device):
    score = torch.arange(2**24 + 8, device=device).remainder_(65536).to(torch.float32).view(8, -1)
    assert prune.kept_until(score).dtype == torch.float32
    until = prune.kept_until(score, scope="tensor")
    assert until.dtype == torch.float64
    assert until.unique().numel() == score.numel()
    with pytest.raises(TypeError, match="out is float32, but must be float64"):
        prune.kept_until(score, scope="tensor", out=torch.empty_like(score))


def test_out_is_returned(device):
    weight = torch.randn(6, 8, device=device)
    norm = torch.rand(8, device=device)
    for call in (
        lambda **out: prune.magnitude(weight, sparsity=0.5, **out),
        lambda **out: prune.magnitude(weight, pattern="2:4", **out),
        lambda **out: prune.wanda(weight, norm, sparsity=0.5, **out),
        lambda **out: prune.ria(weight, norm, sparsity=0.5, **out),
        lambda **out: prune.taylor(weight, weight, sparsity=0.5, **out),
        lambda **out: prune.fisher(weight, weight**2, pattern="2:4", **out),
        lambda **out: prune.gblm(weight, norm, weight.abs(), sparsity=0.5, **out),
        lambda **out: prune.mask(weight, sparsity=0.5, **out),
        lambda **out: prune.mask_at(prune.kept_until(weight), sparsity=0.5, **out),
    ):
        out = torch.empty(6, 8, dtype=torch.bool, device=device)
        assert call(out=out) is out
        assert torch.equal(out, call())
    out = torch.empty(6, 8, device=device)
    assert prune.kept_until(weight, out=out) is out
    assert torch.equal(out, prune.kept_until(weight))


def test_apply(device):
    weight = torch.tensor([[1.0, float("nan"), -2.0]], device=device, requires_grad=True)
    mask = torch.tensor([[True, False, False]], device=device)
    pruned = prune.apply(weight, mask)
    assert pruned.tolist() == [[1.0, 0.0, 0.0]]
    pruned.sum().backward()
    assert weight.grad.tolist() == [[1.0, 0.0, 0.0]]
    with torch.no_grad():
        assert prune.apply(weight, mask, out=weight) is weight
    assert weight.tolist() == [[1.0, 0.0, 0.0]]


def test_ria_counts_what_its_sums_cannot_take(device):
    weight = torch.ones(4, 4, device=device)
    weight[0, 0], weight[2, 1] = float("nan"), float("inf")
    norm = torch.ones(4, device=device)
    with pytest.raises(ValueError, match="hemostat.prune.ria: weight has 2 NaN or infinite entries"):
        prune.ria(weight, norm, sparsity=0.5)
    with pytest.raises(ValueError, match="hemostat.prune.score_ria: weight has 2 NaN or infinite entries"):
        prune.score_ria(weight, norm)
    assert prune.ria(weight, norm, sparsity=0.5, check_finite=False).shape == weight.shape
    with pytest.raises(ValueError, match="channel_permutation: score has 2 NaN or infinite entries"):
        prune.channel_permutation(weight, pattern="2:4")
    huge = torch.full((4, 4), 3e38, device=device)  # finite, though their sums are not
    assert int(prune.ria(huge, norm, sparsity=0.5).sum()) == 8


def test_infinite_scores_are_ranked(device):
    score = torch.tensor([[float("inf"), 1.0, float("-inf"), 2.0]], device=device)
    assert prune.mask(score, sparsity=0.5).tolist() == [[True, False, False, True]]


def test_nan_is_counted_and_named(device):
    weight = torch.ones(4, 4, device=device)
    weight[0, 0] = weight[2, 1] = float("nan")
    norm = torch.ones(4, device=device)
    for name, call in (
        ("magnitude: weight", lambda **o: prune.magnitude(weight, sparsity=0.5, **o)),
        ("magnitude: weight", lambda **o: prune.magnitude(weight, pattern="2:4", **o)),
        ("wanda: weight", lambda **o: prune.wanda(weight, norm, sparsity=0.5, **o)),
        ("taylor: weight times gradient", lambda **o: prune.taylor(weight, weight + 1, sparsity=0.5, **o)),
        ("fisher: weight times gradient_square", lambda **o: prune.fisher(weight, weight, sparsity=0.5, **o)),
        ("gblm: weight times gradient_norm", lambda **o: prune.gblm(weight, norm, weight, sparsity=0.5, **o)),
        ("mask: score", lambda **o: prune.mask(weight, sparsity=0.5, **o)),
        ("kept_until: score", lambda **o: prune.kept_until(weight, **o)),
    ):
        with pytest.raises(ValueError, match=f"hemostat.prune.{name} has 2 NaN entries"):
            call()
        assert call(check_finite=False).shape == weight.shape


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "sparsity is 1.5, but must be from 0 to 1", lambda w: prune.magnitude(w, sparsity=1.5)),
        (ValueError, "sparsity is -0.1", lambda w: prune.magnitude(w, sparsity=-0.1)),
        (ValueError, "sparsity is nan", lambda w: prune.mask(w, sparsity=float("nan"))),
        (ValueError, "give sparsity or pattern, neither", lambda w: prune.magnitude(w)),
        (ValueError, "give sparsity or pattern, not both", lambda w: prune.mask(w, sparsity=0.5, pattern="2:4")),
        (ValueError, 'pattern is "2-4"', lambda w: prune.mask(w, pattern="2-4")),
        (ValueError, 'pattern is "5:4"', lambda w: prune.mask(w, pattern="5:4")),
        (ValueError, 'pattern is "-1:4"', lambda w: prune.mask(w, pattern="-1:4")),
        (ValueError, 'pattern is "2:0"', lambda w: prune.mask(w, pattern="2:0")),
        (ValueError, 'pattern is "2:4x"', lambda w: prune.mask(w, pattern="2:4x")),
        (ValueError, "multiple of 5, but weight has 8", lambda w: prune.magnitude(w, pattern="2:5")),
        (ValueError, "ria: alpha is -1, but must be 0 or more", lambda w: prune.ria(w, w[0], alpha=-1, sparsity=0.5)),
        (ValueError, "score_ria: alpha is inf", lambda w: prune.score_ria(w, w[0].abs(), alpha=math.inf)),
        (ValueError, "ria: give sparsity or pattern, neither", lambda w: prune.ria(w, w[0].abs())),
        (ValueError, "ria: activation_norm has 4 entries, but weight has 8", lambda w: prune.ria(w, w[0, :4].abs())),
        (ValueError, r"taylor: gradient has shape \[4\], but", lambda w: prune.taylor(w, w[0, :4], sparsity=0.5)),
        (ValueError, "fisher: gradient_square has shape", lambda w: prune.score_fisher(w, w[:, :4])),
        (TypeError, "gblm: gradient_norm is float64", lambda w: prune.gblm(w, w[0].abs(), w.double(), sparsity=0.5)),
        (ValueError, "gblm: alpha is nan", lambda w: prune.gblm(w, w[0].abs(), w, alpha=math.nan, sparsity=0.5)),
        (ValueError, "taylor: give sparsity or pattern, neither", lambda w: prune.taylor(w, w)),
        (ValueError, "multiple of 3, but score has 8", lambda w: prune.channel_permutation(w, pattern="2:3")),
        (ValueError, 'permutation: pattern is "2"', lambda w: prune.channel_permutation(w, pattern="2")),
        (ValueError, 'scope is "layer"', lambda w: prune.magnitude(w, sparsity=0.5, scope="layer")),
        (ValueError, r"weight has shape \[8\]", lambda w: prune.magnitude(w[0], sparsity=0.5)),
        (ValueError, r"weight has shape \[1, 4, 8\]", lambda w: prune.magnitude(w[None], sparsity=0.5)),
        (TypeError, "weight is int64", lambda w: prune.magnitude(w.long(), sparsity=0.5)),
        (TypeError, "weight is float64", lambda w: prune.magnitude(w.double(), sparsity=0.5)),
        (
            ValueError,
            "hemostat.prune.wanda: activation_norm has 5 entries, but weight has 8 input features",
            lambda w: prune.wanda(w, w.new_ones(5), sparsity=0.5),
        ),
        (ValueError, r"activation_norm has shape \[1, 8\]", lambda w: prune.wanda(w, w.new_ones(1, 8), sparsity=0.5)),
        (ValueError, "activation_norm has 8 NaN, infinite", lambda w: prune.wanda(w, -w.new_ones(8), sparsity=0.5)),
        (TypeError, "activation_norm is int64", lambda w: prune.wanda(w, w.new_ones(8).long(), sparsity=0.5)),
        (TypeError, "out is float32, but must be bool", lambda w: prune.magnitude(w, sparsity=0.5, out=w)),
        (ValueError, r"out has shape \[4, 4\]", lambda w: prune.magnitude(w, sparsity=0.5, out=w[:, :4] > 0)),
        (
            ValueError,
            "out must be contiguous",
            lambda w: prune.magnitude(w, sparsity=0.5, out=(w.T.contiguous() > 0).T),
        ),
        (ValueError, "mask has shape", lambda w: prune.apply(w, w[:2] > 0)),
        (TypeError, "mask must be bool", lambda w: prune.apply(w, w)),
        (ValueError, "sparsity is 2", lambda w: prune.mask_at(w, sparsity=2)),
        (ValueError, "entries is -1", lambda w: prune.removed_count(0.5, -1)),
    ],
)
def test_bad_input(device, error, message, call):
    with pytest.raises(error, match=message) as raised:
        call(torch.ones(4, 8, device=device))
    assert "C++" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_devices_must_agree():
    weight = torch.ones(4, 8, device="cuda")
    with pytest.raises(ValueError, match="activation_norm is on cpu, but weight is on cuda:0"):
        prune.wanda(weight, torch.ones(8), sparsity=0.5)
    with pytest.raises(ValueError, match="out is on cpu, but must be on cuda:0"):
        prune.magnitude(weight, sparsity=0.5, out=torch.empty(4, 8, dtype=torch.bool))


def test_meta_out_is_refused():
    with pytest.raises(ValueError, match="out is on meta, but must be on cpu"):
        prune.magnitude(torch.ones(4, 8), sparsity=0.5, out=torch.empty(4, 8, dtype=torch.bool, device="meta"))


def test_threads_do_not_matter():
    weight = torch.randn(512, 700, generator=torch.Generator().manual_seed(6)).round_(decimals=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = prune.magnitude(weight, sparsity=0.37), prune.kept_until(weight, scope="tensor")
        torch.set_num_threads(max(2, before))
        many = prune.magnitude(weight, sparsity=0.37), prune.kept_until(weight, scope="tensor")
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one, many))


def test_a_parameter_can_be_pruned():
    weight = torch.nn.Parameter(torch.randn(4, 8))
    assert not prune.magnitude(weight, sparsity=0.5).requires_grad
    assert not prune.kept_until(weight).requires_grad


@pytest.mark.parametrize("room", ["prune", "quantize", "lowrank", "noise", "decode"])
def test_every_public_name_has_an_example_that_runs(room):
    module = getattr(hemostat, room)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for name in module.__all__:
        member = getattr(module, name)
        assert member.__doc__, name
        if isinstance(member, type):
            continue
        for section in ("Args:", "Returns:", "Raises:"):
            assert section in member.__doc__, f"{name} lacks {section}"
        example = doctest.DocTestParser().get_doctest(member.__doc__, {}, f"{room}.{name}", None, 0)
        assert example.examples, name
        assert runner.run(example).failed == 0, name
