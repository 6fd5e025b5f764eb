"""The column solver: SparseGPT and GPTQ against the papers' form in float64, their invariants and their errors."""

import pytest
import torch
from column_solver_reference import departures
from solver_references import output_error

import hemostat
from hemostat import prune, quantize
from hemostat.solve import GramFactor


def layer(rows, columns, *, tokens=None, seed=0, dead=()):
    """A weight, and the Gram matrix of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or 2 * columns
    x = torch.randn(tokens, columns, generator=generator) @ (
        torch.eye(columns) + 2 * torch.randn(columns, columns, generator=generator) / columns**0.5
    )
    x *= torch.logspace(-1, 1, columns)[torch.randperm(columns, generator=generator)]
    x[:, list(dead)] = 0
    return torch.randn(rows, columns, generator=generator), x.T @ x / tokens


def assert_solved(result, mask, weight, gram, **options):
    """Each choice is the papers' after the same choices before it, to float32's rounding."""
    mask = mask if mask is None else mask.cpu()
    found = departures(weight.cpu(), gram.cpu(), result.cpu(), mask, **options)
    assert found.choice <= 1e-3 and found.code <= 1e-3 and found.value <= 2e-5, found


@pytest.mark.parametrize("rows,columns,block_size", [(24, 96, 32), (17, 100, 32), (40, 64, 128), (5, 700, 128)])
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.8])
def test_sparsegpt_is_the_papers(device, rows, columns, block_size, sparsity):
    weight, gram = layer(rows, columns, dead=(3,))
    pruned = prune.sparsegpt(weight.to(device), gram.to(device), sparsity=sparsity, block_size=block_size)
    assert_solved(*pruned, weight, gram, sparsity=sparsity, block_size=block_size)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "4:8", "1:2", "3:6", "0:4", "4:4"])
def test_sparsegpt_keeps_n_of_every_m(device, pattern):
    weight, gram = layer(19, 96)
    m = int(pattern.partition(":")[2])
    block_size = 32 // m * m
    pruned = prune.sparsegpt(weight.to(device), gram.to(device), pattern=pattern, block_size=32)
    assert_solved(*pruned, weight, gram, pattern=pattern, block_size=block_size)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("static_groups", [False, True])
@pytest.mark.parametrize("group_size", [None, 8, 32, 48, 96])
def test_gptq_is_the_papers(device, symmetric, act_order, static_groups, group_size):
    """Groups narrower than a block of 32, as wide, wider, and not in step with it."""
    weight, gram = layer(23, 192, seed=1, dead=(0, 100))
    options = dict(bits=3, group_size=group_size, symmetric=symmetric, block_size=32)
    options |= dict(act_order=act_order, static_groups=static_groups)
    rounded = quantize.gptq(weight.to(device), gram.to(device), **options)
    assert_solved(rounded, None, weight, gram, **options)
    packed = quantize.gptq(weight.to(device), gram.to(device), packed=True, **options)
    torch.testing.assert_close(packed.dequantize(), rounded, rtol=0, atol=0)
    assert int(packed.codes.max()) < 8
    assert (packed.order is not None) == (act_order and not static_groups and group_size is not None)
    own = 32 / 23 if packed.order is not None else 0
    ranges = 192 // (group_size or 192)
    assert packed.bits_per_weight == pytest.approx(3 + (16 if symmetric else 32) * ranges / 192 + own)


@pytest.mark.parametrize("act_order", [False, True])
def test_static_groups_are_those_of_the_weight_as_it_is(device, act_order):
    weight, gram = layer(8, 64)
    weight, gram = weight.to(device), gram.to(device)
    options = dict(bits=3, group_size=16, packed=True)
    packed = quantize.gptq(weight, gram, act_order=act_order, static_groups=True, **options)
    nearest = quantize.rtn(weight, **options)
    assert torch.equal(packed.scale, nearest.scale) and torch.equal(packed.zero, nearest.zero)
    assert not torch.equal(packed.codes, nearest.codes)
    assert packed.order is None and packed.bits_per_weight == nearest.bits_per_weight
    factor = GramFactor(gram, act_order=act_order)
    assert torch.equal(quantize.gptq(weight, factor, static_groups=True, **options).codes, packed.codes)


def test_another_choice_is_seen():
    """What assert_solved rests on: one code a step aside, one weight kept for another, a plain rounding."""
    weight, gram = layer(8, 64)
    options = dict(bits=3, group_size=16, block_size=32)
    packed = quantize.gptq(weight, gram, packed=True, **options)
    rounded = packed.dequantize()
    aside = rounded.clone()
    code, scale = int(packed.codes[2, 40]), float(packed.scale[2, 2])
    aside[2, 40] += scale if code < 4 else -scale
    assert departures(weight, gram, aside, **options).code > 0.4
    assert departures(weight, gram, quantize.rtn(weight, bits=3, group_size=16), **options).code > 0.4
    assert departures(weight, gram, rounded + 1e-2 * scale, **options).value > 1e-3
    assert departures(weight, gram, rounded, static_groups=True, **options).value > 1e-3

    pruned = prune.sparsegpt(weight, gram, sparsity=0.5, block_size=64)
    mask = pruned.mask.clone()
    kept, fallen = mask[0].nonzero()[0], (~mask[0]).nonzero()[0]
    mask[0, kept], mask[0, fallen] = False, True
    assert departures(weight, gram, pruned.weight * mask, mask, sparsity=0.5, block_size=64).choice > 1e-2


def test_sparsegpt_rounds_what_it_keeps(device):
    weight, gram = layer(16, 96)
    options = dict(sparsity=0.5, bits=4, group_size=32, block_size=32)
    pruned = prune.sparsegpt(weight.to(device), gram.to(device), **options)
    assert_solved(*pruned, weight, gram, **options)
    for group in pruned.weight.cpu().view(-1, 32):
        assert len(group.unique()) <= 16


@pytest.mark.parametrize("fractional", [2.5, 3.17])
def test_fractions_of_a_bit(fractional):
    weight, gram = layer(8, 64)
    rounded = quantize.gptq(weight, gram, bits=fractional, group_size=None)
    assert all(len(row.unique()) <= round(2**fractional) for row in rounded)


def test_one_factor_serves_every_severity(device):
    weight, gram = layer(32, 128)
    weight, gram = weight.to(device), gram.to(device)
    factor = GramFactor(gram, block_size=64)
    before = factor.matrix.clone()
    for sparsity in (0.2, 0.7):
        once = prune.sparsegpt(weight, factor, sparsity=sparsity)
        again = prune.sparsegpt(weight, gram, sparsity=sparsity, block_size=64)
        torch.testing.assert_close(once, again, rtol=0, atol=0)
    rounded = quantize.gptq(weight, factor, bits=4, group_size=32)
    torch.testing.assert_close(rounded, quantize.gptq(weight, gram, bits=4, group_size=32, block_size=64))
    assert torch.equal(factor.matrix, before)


def test_the_factor_is_the_papers():
    """Its diagonal blocks are those of chol(H^-1)^T."""
    _, gram = layer(1, 80)
    factor = GramFactor(gram, block_size=32, damp=0.05)
    hessian = gram.double() + 0.05 * gram.double().diagonal().mean() * torch.eye(80)
    papers = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    for start in range(0, 80, 32):
        block = slice(start, min(start + 32, 80))
        torch.testing.assert_close(
            factor.matrix[block, block].double().triu(), papers[block, block], rtol=1e-3, atol=1e-4
        )
    assert factor.damp == 0.05 and factor.in_features == 80 and factor.block_size == 32
    assert factor.order is None and factor.dead is None


def test_making_up_for_errors_helps():
    weight, gram = layer(64, 256)
    plain = prune.apply(weight, prune.wanda(weight, gram.diagonal().sqrt(), sparsity=0.5))
    assert output_error(weight, prune.sparsegpt(weight, gram, sparsity=0.5).weight, gram) < 0.8 * output_error(
        weight, plain, gram
    )
    nearest = quantize.rtn(weight, bits=3, group_size=128)
    solved_error = output_error(weight, quantize.gptq(weight, gram, bits=3, group_size=128), gram)
    assert solved_error < 0.8 * output_error(weight, nearest, gram)


def test_nothing_removed_changes_nothing():
    weight, gram = layer(8, 40)
    pruned = prune.sparsegpt(weight, gram, sparsity=0)
    assert torch.equal(pruned.weight, weight) and pruned.mask.all()
    pruned = prune.sparsegpt(weight, gram, sparsity=1)
    assert (pruned.weight == 0).all() and not pruned.mask.any()


def test_more_sparsity_never_hurts_less():
    weight, gram = layer(32, 128)
    factor = GramFactor(gram)
    errors = [
        output_error(weight, prune.sparsegpt(weight, factor, sparsity=s).weight, gram) for s in (0, 0.2, 0.4, 0.6, 0.8)
    ]
    assert errors == sorted(errors)


@pytest.mark.parametrize("tokens", [1, 20])
def test_a_gram_matrix_of_few_tokens(device, tokens):
    """Rank-deficient: with damping it is factored; without, as much is added as it takes, and said."""
    weight, gram = layer(8, 64, tokens=tokens)
    weight, gram = weight.to(device), gram.to(device)
    assert GramFactor(gram).damp == 0.01
    factor = GramFactor(gram, damp=0)
    assert 0 < factor.damp <= 1e-3
    pruned = prune.sparsegpt(weight, factor, sparsity=0.5)
    assert pruned.weight.isfinite().all()
    assert prune.sparsegpt(weight, gram, sparsity=0.5).weight.isfinite().all()


def test_no_damping_saves_an_indefinite_matrix():
    with pytest.raises(hemostat.NumericalError, match="not positive semidefinite"):
        GramFactor(torch.diag(torch.tensor([1.0, -5.0])))
    with pytest.raises(hemostat.NumericalError):
        prune.sparsegpt(torch.ones(2, 2), -torch.eye(2), sparsity=0.5)


def test_features_that_never_were_active_are_removed(device):
    weight, gram = layer(8, 32, dead=(0, 5, 31))
    weight, gram = weight.to(device), gram.to(device)
    for result in (
        prune.sparsegpt(weight, gram, sparsity=0.25).weight,
        quantize.gptq(weight, gram, bits=4, group_size=8),
        quantize.gptq(weight, gram, bits=4, group_size=8, act_order=True),
    ):
        assert (result[:, [0, 5, 31]] == 0).all()
    assert GramFactor(gram).dead.nonzero().flatten().tolist() == [0, 5, 31]
    nothing = prune.sparsegpt(weight, torch.zeros(32, 32, device=device), sparsity=0.5)
    assert (nothing.weight == 0).all()


def test_only_the_lower_triangle_counts():
    weight, gram = layer(8, 48)
    lower = gram.tril() + torch.full_like(gram, 7).triu(1)
    for act_order in (False, True):
        options = dict(bits=3, group_size=None, act_order=act_order)
        torch.testing.assert_close(quantize.gptq(weight, lower, **options), quantize.gptq(weight, gram, **options))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_and_strides(device, dtype):
    weight, gram = layer(24, 64)
    half = weight.to(dtype).to(device)
    gram = gram.to(device)
    pruned = prune.sparsegpt(half, gram, sparsity=0.5)
    assert pruned.weight.dtype == dtype
    whole = prune.sparsegpt(half.float(), gram, sparsity=0.5)
    assert torch.equal(pruned.mask, whole.mask) and torch.equal(pruned.weight, whole.weight.to(dtype))
    strided = half.t().contiguous().t()
    assert torch.equal(prune.sparsegpt(strided, gram.t(), sparsity=0.5).weight, pruned.weight)
    rounded = quantize.gptq(half, gram, bits=4, group_size=16)
    assert rounded.dtype == dtype
    assert torch.equal(quantize.gptq(strided, gram, bits=4, group_size=16), rounded)


def test_empty_and_single():
    assert prune.sparsegpt(torch.zeros(0, 4), torch.eye(4), sparsity=0.5).weight.shape == (0, 4)
    assert prune.sparsegpt(torch.zeros(3, 0), torch.zeros(0, 0), sparsity=0.5).mask.shape == (3, 0)
    assert quantize.gptq(torch.zeros(0, 4), torch.eye(4), bits=4, group_size=2).shape == (0, 4)
    assert quantize.gptq(torch.zeros(3, 0), torch.zeros(0, 0), bits=4, group_size=None).shape == (3, 0)
    assert quantize.gptq(torch.zeros(0, 4), torch.eye(4), bits=4, group_size=2, packed=True).dequantize().shape == (
        0,
        4,
    )
    one = prune.sparsegpt(torch.tensor([[2.0]]), torch.tensor([[3.0]]), sparsity=0.5)
    assert one.weight.item() == 2 and one.mask.item()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_mask(threads):
    weight, gram = layer(100, 256)
    before = torch.get_num_threads()
    expected = prune.sparsegpt(weight, gram, sparsity=0.5)
    torch.set_num_threads(threads)
    try:
        result = prune.sparsegpt(weight, gram, sparsity=0.5)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(result.mask, expected.mask)
    torch.testing.assert_close(result.weight, expected.weight, rtol=1e-4, atol=1e-5)


WEIGHT, GRAM = torch.ones(4, 8), torch.eye(8)
NAN = torch.full((4, 8), float("nan"))


@pytest.mark.parametrize(
    "call,error,message",
    [
        (
            lambda: prune.sparsegpt(WEIGHT, torch.eye(6), sparsity=0.5),
            ValueError,
            "weight has 8 input features, but gram",
        ),
        (lambda: prune.sparsegpt(WEIGHT, torch.ones(8, 4), sparsity=0.5), ValueError, "gram has shape"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM.double(), sparsity=0.5), TypeError, "gram"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=1.5), ValueError, "sparsity is 1.5"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM), ValueError, "neither was given"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=0.5, pattern="2:4"), ValueError, "not both"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, pattern="1:3"), ValueError, "multiple of 3"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, pattern="4"), ValueError, "pattern is"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=0.5, block_size=0), ValueError, "block_size is 0"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=0.5, damp=-1), ValueError, "damp is -1"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=0.5, bits=1), ValueError, "bits is 1"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM, sparsity=0.5, bits=4, group_size=3), ValueError, "does not divide"),
        (lambda: prune.sparsegpt(NAN, GRAM, sparsity=0.5), ValueError, "32 NaN or infinite entries"),
        (lambda: prune.sparsegpt(WEIGHT, GRAM * float("inf"), sparsity=0.5), ValueError, "gram has"),
        (
            lambda: prune.sparsegpt(WEIGHT, GramFactor(GRAM, block_size=2), pattern="2:4"),
            ValueError,
            "blocks of a multiple",
        ),
        (lambda: prune.sparsegpt(WEIGHT.long(), GRAM, sparsity=0.5), TypeError, "weight"),
        (lambda: prune.sparsegpt(WEIGHT[0], GRAM, sparsity=0.5), ValueError, "weight"),
        (lambda: quantize.gptq(WEIGHT, GRAM, bits=9, group_size=None), ValueError, "bits is 9"),
        (lambda: quantize.gptq(WEIGHT, GRAM, bits=4), ValueError, "group_size is 128, which does not divide"),
        (lambda: quantize.gptq(WEIGHT, GRAM, bits=4, group_size="tensor"), ValueError, "tensor"),
        (lambda: quantize.gptq(NAN, GRAM, bits=4, group_size=8), ValueError, "weight has 32 NaN"),
        (lambda: quantize.gptq(WEIGHT, GRAM.bfloat16(), bits=4, group_size=8), TypeError, "must be float32"),
        (lambda: GramFactor(torch.ones(3)), ValueError, "gram"),
        (lambda: GramFactor(GRAM, damp=float("nan")), ValueError, "damp"),
        (lambda: GramFactor(GRAM, block_size=-3), ValueError, "block_size is -3"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_methods_prepare_once(tiny_model, tiny_tokens):
    statistics = hemostat.collect(tiny_model, tiny_tokens)
    prepared = hemostat.prepare(tiny_model, "sparsegpt", statistics)
    assert prepared.at(0) is not None
    for name, weight in prepared.at(0.5).linears():
        gram = statistics[name].gram
        expected = prune.sparsegpt(dict(tiny_model.linears())[name], gram, sparsity=0.5).weight
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)
    pattern = hemostat.prepare(tiny_model, "sparsegpt", statistics, m=4).at(2)
    assert all(((weight.view(-1, 4) != 0).sum(1) <= 2).all() for _, weight in pattern.linears())
    rounded = hemostat.prepare(tiny_model, "gptq", statistics, act_order=True, group_size="row").at(3)
    assert all(len(row.unique()) <= 8 for _, weight in rounded.linears() for row in weight)
    options = dict(act_order=True, static_groups=True, group_size=16)
    for name, weight in hemostat.prepare(tiny_model, "gptq", statistics, **options).at(3).linears():
        expected = quantize.gptq(dict(tiny_model.linears())[name], statistics[name].gram, bits=3, **options)
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="group_size must be row"):
        hemostat.prepare(tiny_model, "gptq", statistics, group_size="tensor")
    with pytest.raises(ValueError, match="group_size = 7"):
        hemostat.prepare(tiny_model, "gptq", statistics, group_size=7)
    with pytest.raises(ValueError, match="statistics"):
        hemostat.prepare(tiny_model, "gptq")


def test_gradients_pass_straight_through_what_gptq_rounds(device):
    weight, gram = torch.randn(6, 16), torch.eye(16)
    weight, gram = weight.to(device).requires_grad_(), gram.to(device)
    target = torch.randn(6, 16, generator=torch.Generator().manual_seed(1)).to(device)
    for rounded in (
        quantize.gptq(weight, gram, bits=4, group_size=8),
        quantize.gptq(weight, hemostat.solve.GramFactor(gram), bits=4, group_size=8),
        quantize.awq(weight, torch.ones(16, device=device), gram, bits=4, group_size=8),
    ):
        weight.grad = None
        (rounded * target).sum().backward()
        assert torch.equal(weight.grad, target)


def test_the_method_rounds_what_sparsegpt_keeps(trained):
    statistics = hemostat.collect(trained.model, trained.tokens[:2], "sparsegpt")
    prepared = hemostat.prepare(trained.model, "sparsegpt", statistics, bits=3, group_size=64)
    assert not prepared.axis.continuous_at_neutral
    assert hemostat.prepare(trained.model, "sparsegpt", statistics).axis.continuous_at_neutral
    damaged = dict(prepared.at(0.5).linears())
    for name, weight in list(trained.model.linears())[:3]:
        expected = prune.sparsegpt(weight, statistics[name].gram, sparsity=0.5, bits=3, group_size=64).weight
        torch.testing.assert_close(damaged[name], expected)


def test_rounding_options_without_bits_are_refused(device):
    weight, gram = torch.randn(4, 8, device=device), torch.eye(8, device=device)
    for options in ({"group_size": 4}, {"symmetric": True}):
        with pytest.raises(ValueError, match="bits is not given"):
            prune.sparsegpt(weight, gram, sparsity=0.5, **options)
