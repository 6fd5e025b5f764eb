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


def test_statistics_of_a_layer_of_ones_own():
    x = torch.randn(3, 50, 12, generator=torch.Generator().manual_seed(0))
    found = hemostat.InputStatistics(12)
    found.add(x[:2])
    found.add(x[2].bfloat16())
    tokens = torch.cat([x[:2].flatten(0, 1), x[2].bfloat16().float()]).double()
    assert found.count == 150 and found.needs == {"column_norm", "absmax", "absmean", "gram", "mean"}
    close(found.gram, tokens.T @ tokens / 150)
    close(found.norm, tokens.square().mean(0).sqrt())
    close(found.absmean, tokens.abs().mean(0))
    assert torch.equal(found.absmax.double(), tokens.abs().amax(0))
    mapped = hemostat.InputStatistics(12, needs=["gram"], memory_budget=0)
    mapped.add(tokens)
    close(mapped.gram, found.gram.double())


def test_statistics_of_a_layer_refuse_what_they_cannot_take():
    with pytest.raises(ValueError, match="in_features is 0, but takes at least 1"):
        hemostat.InputStatistics(0)
    with pytest.raises(ValueError, match='no statistic is named "hessian"'):
        hemostat.InputStatistics(4, needs=["hessian"])
    found = hemostat.InputStatistics(4)
    with pytest.raises(ValueError, match="x has 5 features, but takes 4"):
        found.add(torch.ones(2, 5))
    with pytest.raises(TypeError, match="takes a floating dtype"):
        found.add(torch.ones(2, 4, dtype=torch.int64))
    assert found.count == 0


def test_gradients_are_collected_where_asked_for(tiny_model, tiny_tokens, statistics):
    assert statistics.gradients == {} and "gradient_mean" not in statistics.needs
    collected = hemostat.collect(tiny_model, tiny_tokens, ["gradient_square", "absmax"], include="*.q_proj")
    assert collected.needs == {"gradient_square", "absmax"}
    assert list(collected.gradients) == collected.keys()
    found = collected.gradients["model.layers.0.self_attn.q_proj"]
    assert found.needs == {"gradient_square"} and found.count == len(tiny_tokens)
    assert bool((found.square >= 0).all()) and float(found.square.sum()) > 0
    with pytest.raises(ValueError, match="gradient_mean was not collected"):
        _ = found.mean
    assert repr(found) == f"GradientStatistics([32, 32], {len(tiny_tokens)} windows: gradient_square)"
    alone = hemostat.collect(tiny_model, tiny_tokens, "gradient:score=fisher", include="*.q_proj")
    assert torch.equal(alone.gradients["model.layers.0.self_attn.q_proj"].square, found.square)
    assert repr(alone) == f"Statistics(4 linears, {len(tiny_tokens)} windows: gradient_square)"


def test_gradients_need_something_to_predict_and_blocks_of_their_own(tiny_model, tiny_tokens):
    with pytest.raises(ValueError, match="windows of at least 2 tokens, one to predict, but these have 1"):
        hemostat.collect(tiny_model, tiny_tokens[:, :1], "gradient")
    repeated = hemostat.extend.duplicate_layers(tiny_model, count=1)
    with pytest.raises(ValueError, match="the model repeats the block of"):
        hemostat.collect(repeated, tiny_tokens, "gradient")


def test_gradients_go_straight_through_quantized_inputs(tiny_model, tiny_tokens):
    treated = hemostat.prepare(tiny_model, "activation").at(8)
    found = hemostat.collect(treated, tiny_tokens, "gradient_mean").gradients
    assert all(float(entry.mean.abs().sum()) > 0 for entry in found.values())


def test_methods_refuse_gradients_that_lack_or_differ(tiny_model, tiny_tokens, statistics):
    with pytest.raises(ValueError, match="no gradients were collected for"):
        hemostat.prepare(tiny_model, "gradient", statistics)
    squares = hemostat.collect(tiny_model, tiny_tokens, "gradient_square")
    with pytest.raises(ValueError, match=r"the statistics of '.*' have no gradient_mean; collect it"):
        hemostat.prepare(tiny_model, "gradient", squares, score="taylor")
    with pytest.raises(ValueError, match="gradient needs gradient_mean, which the statistics lack"):
        hemostat.sweep(tiny_model, "gradient", tiny_tokens, statistics=squares, score="taylor")
    with pytest.raises(ValueError, match="merge: other has statistics of .* too"):
        squares.merge(statistics)
    with pytest.raises(ValueError, match=r"needs statistics \(gradient_square\)"):
        hemostat.prepare(tiny_model, "gradient", score="fisher")


def test_the_text_itself_can_be_kept_for_methods_that_run_the_model(tiny_model, tiny_tokens):
    tokens = tiny_tokens[:3, :16]
    kept = hemostat.collect(tiny_model, tokens, needs="tokens")
    assert kept.needs == {"tokens"} and torch.equal(kept.tokens, tokens) and len(kept) == 0
    kept.merge(hemostat.collect(tiny_model, tokens[:1], needs="tokens"))
    assert torch.equal(kept.tokens, torch.cat([tokens, tokens[:1]]))
    assert hemostat.collect(tiny_model, tokens, needs=["mean"]).tokens is None
    with pytest.raises(ValueError, match="windows of another length"):
        kept.merge(hemostat.collect(tiny_model, tokens[:, :8], needs="tokens"))
    with pytest.raises(ValueError, match="tokens is the text, not of an input"):
        hemostat.InputStatistics(4, needs=["tokens"])
