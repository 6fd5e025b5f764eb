"""Every public operator on drawn shapes, strides, dtypes and values: what holds for all of them, and each one's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_strategies import (
    any_arguments,
    group_sizes,
    matrices,
    operators,
    parameters,
    scopes,
    sparsities,
    tensors,
    with_pattern,
)

import hemostat
from hemostat import context, decode, lowrank, metrics, noise, prune, quantize

OPERATORS = operators()
TESTED = set()


def about(*names):
    """Says which operators a test is about."""
    TESTED.update(names)
    return lambda test: test


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def result_of(operator, *arguments, device, exact=True, **options):
    """What the operator returns: contiguous, whatever the strides, and the same in out=. No argument is changed."""
    arguments = [argument.to(device) for argument in arguments]
    before = [argument.clone() for argument in arguments]
    result = operator(*arguments, **options)
    dense = operator(*(argument.contiguous() for argument in arguments), **options)
    if exact:
        assert_same(result, dense)
    else:
        torch.testing.assert_close(result, dense)
    assert result.device == arguments[0].device and result.shape == arguments[0].shape
    assert result.is_contiguous()
    if "out" in parameters(operator):
        out = torch.full_like(result, 1)
        assert operator(*arguments, out=out, **options) is out
        assert_same(out, result)
    for argument, copy in zip(arguments, before, strict=True):
        assert_same(argument, copy)
    return result.cpu()


# Prune.


@pytest.mark.parametrize("pattern", [False, True])
@about("prune.mask", "prune.magnitude", "prune.wanda", "prune.score_magnitude", "prune.score_wanda")
@given(st.data())
def test_masks(device, pattern, data):
    weight, n, m = data.draw(with_pattern(matrices()))
    columns = weight.shape[1]
    sparsity, scope = data.draw(sparsities), data.draw(scopes)
    norm = data.draw(tensors(st.just((columns,)))).abs()
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


# Quantize.


def in_range(x, levels):
    """x, small enough that its lowest level, which may be −max|x| · levels/(levels − 1), is finite."""
    return x * ((levels - 1) / levels) * (1 - 2 * torch.finfo(x.dtype).eps)


@pytest.mark.parametrize("symmetric", [False, True])
@about("quantize.rtn", "quantize.fake_quantize", "quantize.levels")
@given(st.data())
def test_rounding_to_levels(device, symmetric, data):
    bits, search = data.draw(st.one_of(st.integers(2, 8), st.floats(2, 8))), data.draw(st.booleans())
    weight = in_range(data.draw(matrices()), quantize.levels(bits))
    options = {"bits": bits, "group_size": data.draw(group_sizes(weight.shape[1])), "symmetric": symmetric}

    rounded = result_of(quantize.rtn, weight, device=device, search_clip=search, **options)
    packed = quantize.rtn(weight.to(device), packed=True, search_clip=search, **options)
    levels = quantize.levels(bits)
    assert rounded.dtype == weight.dtype and rounded.isfinite().all()
    assert_same(packed.dequantize().cpu(), rounded)
    assert packed.codes.numel() == 0 or int(packed.codes.max()) < levels
    assert levels == round(2**bits)
    assert (rounded[weight == 0] == 0).all()
    if not search:
        assert_same(result_of(quantize.fake_quantize, weight, device=device, **options), rounded)
    if search or weight.numel() == 0:
        return

    scale = packed.scale.cpu().double()
    if options["group_size"] != "tensor":
        scale = scale.repeat_interleave(weight.shape[1] // scale.shape[1], 1)
    # Half a step, or one where the zero point was rounded or the top level of a symmetric range is clamped, and then
    # the result's own rounding.
    own = weight.double().abs() * torch.finfo(weight.dtype).eps + torch.finfo(weight.dtype).tiny
    assert ((rounded.double() - weight.double()).abs() <= scale * (1 + 1e-4) + own).all()
    if not symmetric and weight.dtype == torch.float32:
        again = quantize.rtn(rounded.to(device), **options).cpu()
        torch.testing.assert_close(again, rounded, rtol=1e-5, atol=0)


@pytest.mark.parametrize("symmetric", [False, True])
@about("quantize.activation")
@given(tensors(st.lists(st.integers(0, 9), min_size=1, max_size=4)), st.one_of(st.integers(2, 8), st.floats(2, 8)))
def test_activation_rounds_each_token_alone(device, symmetric, x, bits):
    x = in_range(x, quantize.levels(bits))
    rounded = result_of(quantize.activation, x, bits=bits, symmetric=symmetric, device=device)
    assert rounded.dtype == x.dtype and rounded.isfinite().all()
    if x.numel():
        tokens = x.reshape(-1, x.shape[-1])
        assert_same(rounded.view(tokens.shape), quantize.rtn(tokens.to(device), bits=bits, symmetric=symmetric).cpu())


FORMATS = {
    "nf4": 1,
    "fp4": 1,
    "fp8": 1,
    "mxfp4": 32,
    "nvfp4": 16,
    "ternary": 1,
}  # what the columns must be a multiple of


@pytest.mark.parametrize("name", FORMATS)
@about(*(f"quantize.{name}" for name in FORMATS))
@given(st.data())
def test_block_formats(device, name, data):
    multiple, operator = FORMATS[name], OPERATORS[f"quantize.{name}"]
    weight = data.draw(
        tensors(st.tuples(st.integers(0, 6), st.integers(0, 4 if multiple > 1 else 33).map(multiple.__mul__)))
    )
    divisors = [b for b in range(1, weight.shape[1] + 1) if weight.shape[1] % b == 0] or [1]
    options = {
        "nf4": {"block_size": data.draw(st.sampled_from(divisors))},
        "fp4": {"block_size": data.draw(st.sampled_from(divisors))},
        "fp8": {"format": data.draw(st.sampled_from(["e4m3", "e5m2"]))},
        "ternary": {"group_size": data.draw(group_sizes(weight.shape[1]))},
    }.get(name, {})
    rounded = result_of(operator, weight, device=device, **options)
    assert rounded.dtype == weight.dtype and rounded.isfinite().all()
    assert (rounded[weight == 0] == 0).all()
    packed = operator(weight.to(device), packed=True, **options)
    assert_same(packed.dequantize().cpu(), rounded)
    assert packed.bits_per_weight >= {"fp8": 8, "ternary": 1.6}.get(name, 4)
    assert (rounded.double() * weight.double() >= 0).all()
    if weight.numel() and weight.abs().max() > 1e-30:
        # Scales of fewer bits, and the nearest element of a coarser format, may lie above what they round.
        above = {"fp8": 1 + 2**-6, "mxfp4": 1.2, "nvfp4": 1 + 2**-4}.get(name, 1) * (1 + torch.finfo(weight.dtype).eps)
        assert rounded.double().abs().max() <= above * weight.double().abs().max()
    if name in ("nf4", "fp4", "fp8") and weight.numel():  # at most half the widest gap of the block's largest
        largest = (
            weight.double().abs().unflatten(1, (-1, options.get("block_size", weight.shape[1]))).amax(2, keepdim=True)
        )
        gap = {"nf4": 0.16, "fp4": 1 / 6, "fp8": 1 / 8}[name]  # of -1 … -0.696; 2/3 … 1; 1.75 … 2 halved in e5m2
        error = (rounded.double() - weight.double()).abs().view(largest.shape[0], largest.shape[1], -1)
        own = torch.finfo(weight.dtype).eps * largest + torch.finfo(weight.dtype).tiny
        assert (error <= gap * largest + own + 1e-37).all()


# Low rank.


@about("lowrank.svd", "lowrank.decompose", "lowrank.rank_for")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), sparsities)
def test_svd_is_the_closest_product(device, weight, removed):
    before = weight.clone()
    factors = lowrank.svd(weight.to(device), removed=removed)
    rank = lowrank.rank_for(removed, *weight.shape)
    assert factors.a.shape == (weight.shape[0], rank) and factors.b.shape == (rank, weight.shape[1])
    assert factors.a.dtype == factors.b.dtype == factors.weight.dtype == weight.dtype
    assert factors.a.is_contiguous() and factors.b.is_contiguous()
    assert factors.a.numel() + factors.b.numel() <= max((1 - removed) * weight.numel() + 1e-6, sum(weight.shape))
    assert_same(weight, before)
    once = lowrank.decompose(weight.to(device)).at(removed)
    assert_same(once.a, factors.a)
    assert_same(once.b, factors.b)
    least = float(torch.linalg.svdvals(weight.double())[rank:].square().sum().sqrt())  # Eckart and Young
    error = float((factors.a.cpu().double() @ factors.b.cpu().double() - weight.double()).norm())
    size = float(weight.double().norm())
    assert least - 1e-5 * size <= error <= least + 4 * torch.finfo(weight.dtype).eps * size + 1e-5 * size


# Noise.


@about("noise.gaussian", "noise.apply", "noise.direction")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), st.floats(0, 4), st.integers(0, 2**40))
def test_gaussian_is_its_formula(device, weight, sigma, seed):
    noisy = result_of(noise.gaussian, weight, sigma=sigma, seed=seed, device=device, exact=False)
    z = noise.direction(list(weight.shape), seed=seed, device=str(device))
    assert z.dtype == torch.float32 and z.isfinite().all()
    assert_same(z.cpu(), noise.direction(list(weight.shape), seed=seed))
    assert noisy.dtype == weight.dtype
    assert_same(result_of(noise.apply, weight, z, sigma=sigma, device=device, exact=False), noisy)
    if weight.numel():
        exact = weight.double() + sigma * weight.double().std(correction=0) * z.cpu().double()
        torch.testing.assert_close(noisy, exact.to(weight.dtype), rtol=torch.finfo(weight.dtype).eps, atol=1e-5)
    if sigma == 0:
        assert_same(noisy, weight)


@about("noise.isotropic")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), st.floats(0, 4), st.integers(0, 2**40))
def test_isotropic_noise_has_its_norm(device, weight, norm, seed):
    noisy = result_of(noise.isotropic, weight, norm=norm, seed=seed, device=device, exact=False)
    assert noisy.dtype == weight.dtype
    if weight.numel():
        added = float((noisy.double() - weight.double()).norm())
        rounding = torch.finfo(weight.dtype).eps * float(noisy.double().norm() + weight.double().norm())
        assert abs(added - norm) <= 1e-4 * norm + rounding + torch.finfo(weight.dtype).smallest_normal
    if norm == 0:
        assert_same(noisy, weight)


# Decode.


@about("decode.temperature")
@given(tensors(st.lists(st.integers(0, 9), min_size=1, max_size=3)), st.floats(0.01, 100), st.integers(0, 8))
def test_temperature(device, logits, temperature, removed):
    logits = logits.clone()
    logits[..., :removed] = -math.inf
    scaled = decode.temperature(logits.to(device), temperature)
    expected = (logits.float() / temperature).to(logits.dtype)
    assert scaled.dtype == logits.dtype
    torch.testing.assert_close(scaled.cpu(), expected, rtol=torch.finfo(logits.dtype).eps, atol=0)
    assert_same(decode.temperature(logits.to(device), 1.0).cpu(), logits)
    out = torch.empty(logits.shape, dtype=logits.dtype, device=device)
    assert decode.temperature(logits.to(device), temperature, out=out) is out
    assert_same(out, scaled)


# Metrics.


@about("metrics.divergence")
@given(st.data())
def test_divergence_of_two_distributions(device, data):
    tokens, vocab = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=2)), data.draw(st.integers(1, 40))
    draw = tensors(st.just((*tokens, vocab)), values=("normal", "ties", "sparse", "zero", "constant", "subnormal"))
    a, b = data.draw(draw), data.draw(draw)
    targets = torch.randint(vocab, tokens, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    found = metrics.divergence(a.to(device), b.to(device), targets.to(device))

    p, q = (torch.log_softmax(x.double(), -1) for x in (a, b))
    assert found.kl.shape == targets.shape and found.agree.dtype == torch.bool
    torch.testing.assert_close(found.kl.cpu().double(), (p.exp() * (p - q)).sum(-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        found.nll_damaged.cpu().double(), -q.gather(-1, targets[..., None])[..., 0], rtol=1e-5, atol=1e-5
    )
    assert (found.kl >= 0).all() and (found.kl_reverse >= 0).all()
    assert (found.entropy_baseline.cpu() <= math.log(vocab) + 1e-5).all()
    assert ((found.top5_overlap >= 0) & (found.top5_overlap <= 1)).all()
    assert_same(found.agree, found.top1_baseline == found.top1_damaged)
    same = metrics.divergence(a.to(device), a.to(device), targets.to(device))
    assert (same.kl == 0).all() and same.agree.all() and (same.top5_overlap == 1).all()


@about("metrics.expected_calibration_error")
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1), st.integers(1, 40))
def test_calibration_error(device, tokens, bins):
    confidence = torch.tensor([c for c, _ in tokens], device=device)
    right = torch.tensor([r for _, r in tokens], device=device)
    error = metrics.expected_calibration_error(confidence, right, bins=bins)
    assert 0 <= error <= 1
    assert metrics.expected_calibration_error(confidence.flip(0), right.flip(0), bins=bins) == pytest.approx(error)
    assert metrics.expected_calibration_error(right.float(), right, bins=bins) == 0
    whole = abs(float(confidence.double().mean()) - float(right.double().mean()))
    assert error >= whole - 1e-9  # one bin is the coarsest


@about("metrics.unigram_nll")
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=20), st.data())
def test_unigram(device, counts, data):
    targets = data.draw(st.lists(st.integers(0, len(counts) - 1), min_size=1))
    nll = metrics.unigram_nll(torch.tensor(counts, device=device), torch.tensor(targets, device=device))
    total = sum(counts) + len(counts)
    assert nll == pytest.approx(sum(-math.log((counts[t] + 1) / total) for t in targets) / len(targets), rel=1e-9)


@about("metrics.generation_divergence")
@given(st.lists(st.tuples(*[st.lists(st.integers(0, 3), max_size=9)] * 2), min_size=1, max_size=5))
def test_generation_divergence(pairs):
    baseline, damaged = ([list(text) for text in side] for side in zip(*pairs, strict=True))
    found = metrics.generation_divergence(baseline, damaged)
    longest = max(len(text) for pair in pairs for text in pair)
    positions = [
        longest if a == b else next(i for i in range(longest + 1) if a[: i + 1] != b[: i + 1]) for a, b in pairs
    ]
    assert list(found.positions) == positions
    assert found.first_divergence == pytest.approx(sum(positions) / len(positions))
    assert found.exact_match == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    for value in (found.repetition, found.distinct_1, found.distinct_2):
        assert value is None or math.isnan(value) or 0 <= value <= 1
    same = metrics.generation_divergence(baseline, baseline)
    assert same.exact_match == 1 and same.first_divergence == max(map(len, baseline))


# Models.


@about("ablate.drop_layers", "extend.duplicate_layers", "extend.insert_identity", "normalize.drop_norms")
@about("normalize.norm_count")
@pytest.mark.parametrize(
    "name", ["ablate.drop_layers", "extend.duplicate_layers", "extend.insert_identity", "normalize.drop_norms"]
)
@given(count=st.integers(-2, 12))
def test_parts_of_a_model(tiny_model, tiny_tokens, name, count):
    norms, layers = hemostat.normalize.norm_count(tiny_model), len(tiny_model.blocks)
    most = {"ablate.drop_layers": layers - 1, "normalize.drop_norms": norms}.get(name, layers)
    if not 0 <= count <= most:
        with pytest.raises(ValueError, match=f"hemostat.{name}"):
            OPERATORS[name](tiny_model, count=count)
        return
    changed = OPERATORS[name](tiny_model, count=count)
    grown = {"ablate.drop_layers": -count, "normalize.drop_norms": 0}.get(name, count)
    assert len(changed.blocks) == layers + grown
    assert len(tiny_model.blocks) == layers and hemostat.normalize.norm_count(tiny_model) == norms
    before, after = tiny_model.forward(tiny_tokens[:1]), changed.forward(tiny_tokens[:1])
    assert after.shape == before.shape and after.isfinite().all()
    if count == 0 or name == "extend.insert_identity":
        torch.testing.assert_close(after, before)


@about("context.token_noise")
@given(sparsities, st.sampled_from(["replace", "drop", "swap"]), st.integers(0, 2**62))
def test_token_noise(tiny_model, tiny_tokens, rate, kind, seed):
    tokens = tiny_tokens[:2]
    noisy = context.token_noise(tiny_model, rate=rate, kind=kind, seed=seed).forward(tokens)
    assert noisy.isfinite().all()
    assert_same(context.token_noise(tiny_model, rate=rate, kind=kind, seed=seed).forward(tokens), noisy)
    if rate == 0:
        assert_same(noisy, tiny_model.forward(tokens))


# All of them.


def test_every_operator_has_a_test():
    assert TESTED == set(OPERATORS)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
def test_whatever_is_given_is_taken_or_refused(tiny_model, name, data):
    """Nothing but ValueError, TypeError and NumericalError; arguments stay as they were."""
    arguments = data.draw(any_arguments(OPERATORS[name], tiny_model))
    before = {key: value.detach().clone() for key, value in arguments.items() if isinstance(value, torch.Tensor)}
    try:
        OPERATORS[name](**arguments)
    except (ValueError, TypeError, hemostat.NumericalError) as error:
        assert "\n\n" not in str(error) or isinstance(error, TypeError)
    for key, value in before.items():
        if key != "out" and not value.is_meta:
            assert_same(arguments[key].detach().to_dense(), value.to_dense())
