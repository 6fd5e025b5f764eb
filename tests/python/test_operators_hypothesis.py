"""What holds for every public operator on drawn arguments; and decode, metrics and models on drawn values."""

import importlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_strategies import (
    OPERATORS,
    TESTED,
    about,
    any_arguments,
    assert_same,
    sparsities,
    statistics_of,
    tensors,
)

import hemostat
from hemostat import context, decode, metrics

# Decode.


@about("decode.temperature")
@given(tensors(st.lists(st.integers(0, 9), min_size=1, max_size=3)), st.floats(0.01, 100), st.integers(0, 8))
def test_temperature(device, logits, temperature, removed):
    logits = logits.clone()
    logits[..., :removed] = -math.inf
    expected = (logits.float() / temperature).to(logits.dtype)
    if (expected.isinf() & logits.isfinite()).any():
        with pytest.raises(hemostat.NumericalError, match="so small that"):
            decode.temperature(logits.to(device), temperature)
        return
    scaled = decode.temperature(logits.to(device), temperature)
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


RANKED = ["structured.wanda_sp", "structured.flap", "structured.llm_pruner", "structured.gradient_aware"]


@about(*RANKED)
@pytest.mark.parametrize("name", RANKED)
@given(
    sparsity=st.floats(0, 1),
    heads=st.sampled_from(["groups", "queries"]),
    compensation=st.sampled_from(["none", "bias", "least_squares"]),
)
def test_heads_and_channels(tiny_model, tiny_tokens, name, sparsity, heads, compensation):
    options = {"sparsity": sparsity, "heads": heads, "compensation": compensation}
    one, other = statistics_of(tiny_model), tiny_tokens[:1]
    try:
        cut = OPERATORS[name](tiny_model, one, **options)
    except ValueError as error:
        assert "can be removed" in str(error)
        assert sparsity > 0.7  # of each block a channel stays, and a group of heads or a query of each group
        return
    assert cut.forward(other).isfinite().all()
    removed = 1 - sum(weight.numel() for _, weight in cut.linears()) / sum(w.numel() for _, w in tiny_model.linears())
    assert removed == pytest.approx(sparsity, abs=0.05)


@about("structured.block_influence", "structured.shortgpt", "structured.sleb", "structured.slicegpt")
@given(count=st.integers(0, 3), sliced=st.floats(0, 0.9))
def test_depth_and_width(tiny_model, tiny_tokens, count, sliced):
    tokens, layers = tiny_tokens[:1, :16], len(tiny_model.blocks)
    assert len(hemostat.structured.block_influence(tiny_model, tokens)) == layers
    shorter = hemostat.structured.shortgpt(tiny_model, tokens, count=count)
    assert len(shorter.blocks) == layers - count
    shorter = hemostat.structured.sleb(tiny_model, tokens, count=min(count, layers - 2))
    assert len(shorter.blocks) == layers - min(count, layers - 2)
    narrower = hemostat.structured.slicegpt(tiny_model, tokens, sliced=sliced, round_interval=4)
    assert narrower.embedding.shape[1] == 32 - 4 * round(sliced * 8)
    assert narrower.forward(tokens).isfinite().all()


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
    for module in ("test_prune_hypothesis", "test_quantize_hypothesis", "test_lowrank_noise_hypothesis"):
        importlib.import_module(module)
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
