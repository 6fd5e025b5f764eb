"""hemostat.collect against the formulas on the inputs that transformers' linears see."""

import pytest
import torch

import hemostat

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def linear_inputs(tiny_checkpoint, tiny_tokens):
    """Each linear's input, float64 [tokens, in_features], from transformers' own forward."""
    module = transformers.AutoModelForCausalLM.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    seen = {}

    def record(name):
        return lambda _, inputs: seen.__setitem__(name, inputs[0].detach().double().flatten(0, -2))

    for name, child in module.named_modules():
        if isinstance(child, torch.nn.Linear) and name != "lm_head":
            child.register_forward_pre_hook(record(name))
    with torch.no_grad():
        module(tiny_tokens.cpu())
    return seen


@pytest.fixture(scope="module")
def statistics(tiny_model, tiny_tokens):
    return hemostat.collect(tiny_model, tiny_tokens)


def close(got, expected, relative=1e-5):
    assert (got.cpu().double() - expected).abs().max() <= relative * expected.abs().max()


def test_matches_the_formulas(statistics, linear_inputs):
    assert set(statistics) == set(linear_inputs)
    for name, x in linear_inputs.items():
        found = statistics[name]
        assert found.count == len(x)
        close(found.gram, x.T @ x / len(x))
        close(found.norm, x.square().mean(0).sqrt())
        close(found.absmean, x.abs().mean(0))
        close(found.mean, x.mean(0))
        close(found.absmax, x.abs().amax(0))


def test_gram_is_float32_and_symmetric(statistics):
    for found in statistics.values():
        assert found.gram.dtype == found.norm.dtype == found.absmax.dtype == found.absmean.dtype == torch.float32
        assert torch.equal(found.gram, found.gram.T)


def test_merging_parts_gives_the_whole(tiny_model, tiny_tokens, statistics):
    parts = hemostat.collect(tiny_model, tiny_tokens[:3]).merge(hemostat.collect(tiny_model, tiny_tokens[3:]))
    for name, whole in statistics.items():
        assert parts[name].count == whole.count
        close(parts[name].gram, whole.gram.cpu().double())
        close(parts[name].norm, whole.norm.cpu().double())
        close(parts[name].absmax, whole.absmax.cpu().double())


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_batches_change_nothing_but_rounding(tiny_model, tiny_tokens, statistics, batch):
    for name, found in hemostat.collect(tiny_model, tiny_tokens, batch=batch).items():
        close(found.gram, statistics[name].gram.cpu().double())


def test_no_memory_gives_the_same(tiny_model, tiny_tokens, statistics):
    for name, found in hemostat.collect(tiny_model, tiny_tokens, memory_budget=0).items():
        assert torch.equal(found.gram.cpu(), statistics[name].gram.cpu())


def test_collects_only_what_is_needed(tiny_model, tiny_tokens):
    norms = hemostat.collect(tiny_model, tiny_tokens, needs=["column_norm"])
    assert norms.needs == {"column_norm"}
    found = next(iter(norms.values()))
    with pytest.raises(ValueError, match="gram was not collected"):
        _ = found.gram
    assert found.norm.shape == (found.in_features,)


def test_refuses_to_merge_what_differs(tiny_model, tiny_tokens, statistics):
    with pytest.raises(ValueError, match="merge"):
        statistics.merge(hemostat.collect(tiny_model, tiny_tokens, needs=["column_norm"]))
    with pytest.raises(ValueError, match="merge"):
        statistics.merge(hemostat.collect(tiny_model, tiny_tokens, include=["*.q_proj"]))
