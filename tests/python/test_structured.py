"""Smaller models: what falls is what the papers' formulas say, in float64, and what is left computes it."""

from __future__ import annotations

import math

import pytest
import torch

import hemostat
from hemostat import structured

HEAD_DIM, GROUP = 8, 2  # of tiny_model: 4 query heads, 2 key-value heads, 48 channels, 4 blocks


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 256, (6, 24), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def statistics(tiny_model, tokens) -> hemostat.Statistics:
    needs = ["wanda_sp", "flap", "llm_pruner:taylor=param_mix", "gradient_units", "sleb"]
    return hemostat.collect(tiny_model, tokens, needs, progress=False)


def name(block: int, part: str) -> str:
    return f"model.layers.{block}.{'self_attn' if part in 'qkvo' else 'mlp'}.{part}_proj"


def linear_count(model: hemostat.Model) -> int:
    return sum(weight.numel() for _, weight in model.linears())


def masked(model: hemostat.Model, heads: dict[int, set[int]], channels: dict[int, set[int]]) -> hemostat.Model:
    """The model whose o and down do not see what was removed."""
    weights = {}
    for block in range(len(model.blocks)):
        o, down = model.linears()[name(block, "o")].clone(), model.linears()[name(block, "down")].clone()
        for head in heads.get(block, ()):
            o[:, head * HEAD_DIM : (head + 1) * HEAD_DIM] = 0
        down[:, sorted(channels.get(block, ()))] = 0
        weights |= {name(block, "o"): o, name(block, "down"): down}
    return model.replace(weights)


def lowest(scores: torch.Tensor, count: int) -> set[int]:
    return set(scores.argsort(stable=True)[:count].tolist())


def check_equal_to_masked(cut, model, heads, channels, tokens) -> None:
    expected = masked(model, heads, channels)(tokens)
    torch.testing.assert_close(cut(tokens), expected, atol=2e-5, rtol=1e-4)
    cache = hemostat.KvCache(cut, batch=len(tokens))
    stepwise = torch.cat([cut.forward(part, cache=cache) for part in tokens.split([7, 1, 16], 1)], 1)
    torch.testing.assert_close(stepwise, expected, atol=2e-5, rtol=1e-4)


def test_wanda_sp_removes_what_the_formula_says(tiny_model, tokens, statistics):
    cut = structured.wanda_sp(tiny_model, statistics, sparsity=0.5)
    heads, channels = {}, {}
    for block in range(4):
        for part, found in (("o", heads), ("down", channels)):
            weight = tiny_model.linears()[name(block, part)].double()
            score = weight.abs().mean(0) * statistics[name(block, part)].norm.double()
            if part == "o":
                fallen = lowest(score.view(2, -1).sum(1), 1)
                found[block] = {2 * group + i for group in fallen for i in range(GROUP)}
            else:
                found[block] = lowest(score, 24)
        assert (cut.blocks[block].attention.heads, cut.blocks[block].attention.kv_heads) == (2, 1)
        assert cut.blocks[block].mlp.up.weight.shape == (24, 32)
    check_equal_to_masked(cut, tiny_model, heads, channels, tokens)
    assert linear_count(cut) == linear_count(tiny_model) / 2


def standardized(scores: torch.Tensor) -> torch.Tensor:
    return (scores - scores.mean()) / scores.std()


def test_flap_lets_all_blocks_compete(tiny_model, tokens, statistics):
    cut = structured.flap(tiny_model, statistics, sparsity=0.3, compensation="none")
    units = []
    for block in range(4):
        for part in ("o", "down"):
            weight, inputs = tiny_model.linears()[name(block, part)].double(), statistics[name(block, part)]
            variance = inputs.norm.double() ** 2 - inputs.mean.double() ** 2
            score = variance * weight.square().sum(0)
            score = standardized(score.square()).view(2, -1).mean(1) if part == "o" else standardized(score)
            own = sorted((value, block, part, i) for i, value in enumerate(score.tolist()))
            units += own[:-1]  # one stays
    cost = {"o": 6 * HEAD_DIM * 32, "down": 3 * 32}
    gone, heads, channels = 0, {}, {}
    target = 0.3 * linear_count(tiny_model)
    for _, block, part, index in sorted(units):
        if gone + cost[part] / 2 > target:
            break
        gone += cost[part]
        if part == "o":
            heads.setdefault(block, set()).update((2 * index, 2 * index + 1))
        else:
            channels.setdefault(block, set()).add(index)
    assert linear_count(tiny_model) - linear_count(cut) == gone
    check_equal_to_masked(cut, tiny_model, heads, channels, tokens)


def test_flap_adds_the_mean_of_what_it_removes(tiny_model, tokens, statistics):
    plain = structured.flap(tiny_model, statistics, sparsity=0.3, structure="UL-UM", compensation="none")
    cut = structured.flap(tiny_model, statistics, sparsity=0.3, structure="UL-UM")
    down, mean = tiny_model.linears()[name(0, "down")], statistics[name(0, "down")].mean
    kept = plain.blocks[0].mlp.down.weight
    gone = [j for j in range(48) if not (kept == down[:, j : j + 1]).all(0).any()]
    assert len(gone) == 48 - kept.shape[1] > 0
    torch.testing.assert_close(cut.blocks[0].mlp.down.bias, down[:, gone] @ mean[gone])
    assert plain.blocks[0].mlp.down.bias is None
    assert torch.equal(cut.blocks[0].mlp.down.weight, kept)


@pytest.mark.parametrize("structure", ["AL-MM", "UL-MM"])
def test_flap_removes_as_many_heads_as_it_is_told(tiny_model, statistics, structure):
    cut = structured.flap(tiny_model, statistics, sparsity=0.4, structure=structure, remove_heads=4)
    before = sum(block.attention.kv_heads for block in tiny_model.blocks)
    removed = before - sum(block.attention.kv_heads for block in cut.blocks)
    assert removed == 4
    assert linear_count(cut) == pytest.approx(0.6 * linear_count(tiny_model), abs=4 * 3 * 32 / 2)


@pytest.mark.parametrize("taylor", ["param_first", "param_second", "param_mix", "vectorize"])
def test_llm_pruner_groups_what_depends_on_each_other(tiny_model, tokens, statistics, taylor):
    def salience(block, part, dimension):
        linear = name(block, part)
        weight, gradient = tiny_model.linears()[linear].double(), statistics.gradients[linear]
        first, second = weight * gradient.mean.double(), weight**2 * gradient.square.double()
        value = {"param_second": second, "param_mix": first - second / 2}.get(taylor, first)
        return value.sum(dimension).abs() if taylor == "vectorize" else value.abs().sum(dimension)

    cut = structured.llm_pruner(tiny_model, statistics, sparsity=0.5, taylor=taylor)
    heads, channels = {}, {}
    for block in range(4):
        rows = [salience(block, part, 1).view(2, -1).sum(1) for part in "qkv"]
        group = sum(rows) + salience(block, "o", 0).view(2, -1).sum(1)
        heads[block] = {2 * kv + i for kv in lowest(group, 1) for i in range(GROUP)}
        channels[block] = lowest(salience(block, "gate", 1) + salience(block, "up", 1) + salience(block, "down", 0), 24)
    check_equal_to_masked(cut, tiny_model, heads, channels, tokens)


def test_llm_pruner_spares_blocks(tiny_model, statistics):
    cut = structured.llm_pruner(tiny_model, statistics, sparsity=0.3, spare_first=1, spare_last=1)
    widths = [block.mlp.up.weight.shape[0] for block in cut.blocks]
    assert widths[0] == widths[3] == 48
    assert max(widths[1:3]) < 48
    assert linear_count(cut) == pytest.approx(0.7 * linear_count(tiny_model), abs=2 * 3 * 32)


def test_llm_pruner_by_channel_is_a_smaller_hidden_size(tiny_model, tokens, statistics, tmp_path):
    cut = structured.llm_pruner(tiny_model, statistics, sparsity=0.25, granularity="channel")
    assert cut.embedding.shape == (259, 24)
    assert linear_count(cut) == 0.75 * linear_count(tiny_model)
    cut.save(tmp_path / "cut")  # without a warning: its config says it
    assert torch.equal(hemostat.Model.load(tmp_path / "cut")(tokens), cut(tokens))
    scores = sum(
        statistics.gradients[linear]
        .mean.double()
        .mul(weight.double())
        .abs()
        .sum(1 if linear.endswith(("o_proj", "down_proj")) else 0)
        for linear, weight in tiny_model.linears()
    )
    kept = sorted(set(range(32)) - lowest(scores, 8))
    assert torch.equal(cut.embedding, tiny_model.embedding[:, kept])


def test_query_heads_fall_in_equal_number_in_every_group(tiny_model, statistics):
    cut = structured.wanda_sp(tiny_model, statistics, sparsity=0.5, heads="queries")
    for block, before in zip(cut.blocks, tiny_model.blocks, strict=True):
        assert (block.attention.heads, block.attention.kv_heads) == (2, 2)
        kept = block.attention.q.weight.view(2, HEAD_DIM, 32)
        for kv in range(2):
            own = before.attention.q.weight.view(2, 2, HEAD_DIM, 32)[kv]
            assert any(torch.equal(kept[kv], head) for head in own)
        assert torch.equal(block.attention.k.weight, before.attention.k.weight)


def test_least_squares_gives_the_closest_output(tiny_model, statistics):
    plain = structured.wanda_sp(tiny_model, statistics, sparsity=0.5)
    cut = structured.wanda_sp(tiny_model, statistics, sparsity=0.5, compensation="least_squares", damp=0.0)
    weight, gram = tiny_model.linears()[name(1, "down")].double(), statistics[name(1, "down")].gram.double()
    kept_columns = plain.blocks[1].mlp.down.weight
    kept = [j for j in range(48) if (kept_columns == weight[:, j : j + 1].float()).all(0).any()]
    expected = torch.linalg.lstsq(gram[kept][:, kept], gram[kept] @ weight.T).solution.T
    torch.testing.assert_close(cut.blocks[1].mlp.down.weight.double(), expected, atol=1e-4, rtol=1e-3)


def test_the_first_unit_to_fall_costs_least_after_the_best_update(tiny_model, statistics):
    """The closed form of the cost against the quadratic form that it is the minimum of."""
    damp, costs = 0.01, {}
    for block in range(4):
        for part in ("o", "down"):
            weight, gram = tiny_model.linears()[name(block, part)].double(), statistics[name(block, part)].gram.double()
            fisher = statistics.gradients[name(block, part)].row_fisher.double()
            gram = gram + damp * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
            width = GROUP * HEAD_DIM if part == "o" else 1
            for unit in range(len(gram) // width):
                kept = [j for j in range(len(gram)) if j // width != unit]
                change = -weight.clone()
                change[:, kept] += torch.linalg.solve(gram[kept][:, kept], gram[kept] @ weight.T).T
                cost = 0.5 * (fisher @ ((change @ gram) * change).sum(1))
                costs[block, part, unit] = cost.item() / ({"o": 6 * HEAD_DIM, "down": 3}[part] * 32)
    block, part, unit = min(costs, key=costs.get)
    assert part == "down"
    cut = structured.gradient_aware(tiny_model, statistics, sparsity=96 / linear_count(tiny_model), compensation="none")
    kept = cut.blocks[block].mlp.up.weight
    assert [b.mlp.up.weight.shape[0] for b in cut.blocks] == [47 if i == block else 48 for i in range(4)]
    whole = tiny_model.blocks[block].mlp.up.weight
    assert torch.equal(kept, torch.cat([whole[:unit], whole[unit + 1 :]]))


def test_gradient_aware_predicts_better_than_its_peers(tiny_model, tokens, statistics):
    def damage(cut):
        return hemostat.compare(tiny_model, cut, tokens).kl.mean

    ours = damage(structured.gradient_aware(tiny_model, statistics, sparsity=0.3))
    assert ours < damage(structured.wanda_sp(tiny_model, statistics, sparsity=0.3, compensation="least_squares"))
    assert ours < damage(structured.flap(tiny_model, statistics, sparsity=0.3))


class Residuals(hemostat.Observer):
    def __init__(self):
        super().__init__()
        self.states = []

    def hidden_state(self, index, x):
        self.states.append(x.clone().double())


def test_block_influence_is_the_mean_turn(tiny_model, tokens):
    seen = Residuals()
    tiny_model.forward(tokens, observer=seen)
    cosine = torch.nn.functional.cosine_similarity
    expected = [1 - cosine(a, b, dim=-1).mean().item() for a, b in zip(seen.states, seen.states[1:], strict=False)]
    influence = structured.block_influence(tiny_model, tokens)
    assert influence == pytest.approx(expected, abs=1e-6)
    cut = structured.shortgpt(tiny_model, tokens, count=2)
    assert [block.origin for block in cut.blocks] == sorted(sorted(range(4), key=expected.__getitem__)[2:])


@pytest.mark.parametrize("spared", [0, 1])
def test_sleb_drops_the_block_that_costs_least_each_time(tiny_model, tokens, spared):
    def loss(model):
        logits = model(tokens).double()
        return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()

    order = []
    for _ in range(2):
        left = [block for block in range(4) if block not in order]
        candidates = left[spared : len(left) - spared]
        order.append(
            min(candidates, key=lambda block: loss(hemostat.ablate.drop_layers(tiny_model, count=len(order) + 1,
                                                                              order=[*order, block])))
        )  # fmt: skip
    cut = structured.sleb(tiny_model, tokens, count=2, windows=0, spare_first=spared, spare_last=spared)
    assert [block.origin for block in cut.blocks] == [block for block in range(4) if block not in order]


def test_slicegpt_is_the_model_with_its_stream_projected(tiny_checkpoint, tiny_model, tokens):
    """Deletion is a projection on principal components before each sublayer, of transformers' own layers in float64."""
    transformers = pytest.importorskip("transformers")
    module = transformers.AutoModelForCausalLM.from_pretrained(
        tiny_checkpoint, dtype=torch.float64, attn_implementation="eager"
    )
    kept, llama = 24, module.model
    cut = structured.slicegpt(tiny_model, tokens, sliced=0.25)
    assert cut.embedding.shape[1] == kept
    positions = torch.arange(tokens.shape[1])[None]
    mask = torch.full((tokens.shape[1],) * 2, -math.inf, dtype=torch.float64).triu(1)[None, None]

    def projected(x):
        flat = x.flatten(0, 1)
        vectors = torch.linalg.eigh(flat.T @ flat).eigenvectors[:, -kept:]
        return x @ vectors @ vectors.T

    with torch.no_grad():
        x = projected(llama.embed_tokens(tokens))
        rotation = llama.rotary_emb(x, positions)
        for layer in llama.layers:
            attended, _ = layer.self_attn(layer.input_layernorm(x), position_embeddings=rotation, attention_mask=mask)
            x = projected(x + attended)
            x = projected(x + layer.mlp(layer.post_attention_layernorm(x)))
        expected = module.lm_head(llama.norm(x))
    torch.testing.assert_close(cut(tokens).double(), expected, atol=2e-4, rtol=1e-3)


def test_a_layer_norms_mean_is_a_dimension_that_costs_nothing(tokens):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    module = transformers.GPT2LMHeadModel(config).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = hemostat.Model.from_transformers(module)
    text = tokens % 97
    cut = structured.slicegpt(model, text, sliced=1 / 32, round_interval=1)
    assert cut.embedding.shape[1] == 31
    torch.testing.assert_close(cut(text), model(text), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(structured.slicegpt(model, text, sliced=0.25)(text), model(text), atol=1e-2)


def test_a_sliced_model_saves_and_continues_from_a_cache(tiny_model, tokens, tmp_path):
    cut = structured.slicegpt(tiny_model, tokens, sliced=0.25)
    cache = hemostat.KvCache(cut, batch=len(tokens))
    stepwise = torch.cat([cut.forward(part, cache=cache) for part in tokens.split([9, 15], 1)], 1)
    torch.testing.assert_close(stepwise, cut(tokens), atol=2e-5, rtol=1e-4)
    with pytest.warns(UserWarning, match="hemostat loads it by its hemostat.json, transformers does not"):
        cut.save(tmp_path / "sliced")
    loaded = hemostat.Model.load(tmp_path / "sliced")
    assert loaded.blocks[1].mlp_shortcut.shape == (24, 24)
    assert torch.equal(loaded(tokens), cut(tokens))


def test_equal_blocks_load_in_transformers(tiny_model, tokens, statistics, tmp_path):
    transformers = pytest.importorskip("transformers")
    cut = structured.wanda_sp(tiny_model, statistics, sparsity=0.5, compensation="least_squares")
    cut.save(tmp_path / "cut")
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    assert (module.config.num_attention_heads, module.config.intermediate_size) == (2, 24)
    with torch.no_grad():
        torch.testing.assert_close(module(tokens).logits, cut(tokens), atol=1e-4, rtol=1e-4)


def test_unequal_blocks_load_here(tiny_model, tokens, statistics, tmp_path):
    cut = structured.flap(tiny_model, statistics, sparsity=0.3)
    assert len({block.mlp.up.weight.shape[0] for block in cut.blocks}) > 1
    with pytest.warns(UserWarning, match="hemostat loads it by its hemostat.json, transformers does not"):
        cut.save(tmp_path / "cut")
    assert torch.equal(hemostat.Model.load(tmp_path / "cut")(tokens), cut(tokens))


ROWS = ["llm_pruner", "flap", "wanda_sp", "gradient_units", "shortgpt", "sleb", "slicegpt"]


@pytest.mark.parametrize("method", ROWS)
def test_more_severity_never_removes_less(tiny_model, tokens, statistics, method):
    row = next(entry for entry in hemostat.methods() if entry.name == method)
    assert row.kind == "architecture"
    prepared = hemostat.prepare(tiny_model, method, statistics)
    assert torch.equal(prepared.at(0)(tokens), tiny_model(tokens))
    counts = [linear_count(tiny_model)]
    for severity in prepared.axis.default_grid:
        cut = prepared.at(severity)
        counts.append(linear_count(cut))
        assert cut(tokens).isfinite().all()
        assert all(block.attention.heads % block.attention.kv_heads == 0 for block in cut.blocks)
        if prepared.axis.name == "parameters":
            unit = 4 * 3 * 32 if method in ("llm_pruner", "wanda_sp") else 6 * HEAD_DIM * 32
            assert counts[-1] == pytest.approx((1 - severity) * counts[0], abs=unit / 2 + 1)
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda model, s: structured.flap(model, s, sparsity=0.999),
            r"structured\.flap: sparsity is 0\.999, but of this",
        ),
        (lambda model, s: structured.flap(model, s, sparsity=-0.1), r"structured\.flap: sparsity"),
        (lambda model, s: structured.flap(model, s, sparsity=0.1, structure="up"), r"structured\.flap: structure"),
        (lambda model, s: structured.llm_pruner(model, s, sparsity=0.1, spare_first=4), "spare all of the model's 4"),
        (lambda model, s: structured.sleb(model, torch.zeros(1, 8).long(), count=3), r"structured\.sleb: count is 3"),
        (lambda model, s: structured.shortgpt(model, torch.zeros(1, 8).long(), count=4), "shortgpt: count is 4"),
        (lambda model, s: structured.slicegpt(model, torch.zeros(1, 8).long(), sliced=1.0), "slicegpt: sliced is 1"),
        (
            lambda model, s: structured.slicegpt(model, torch.zeros(0, 8).long(), sliced=0.5),
            r"slicegpt: tokens must be \[windows, length\]",
        ),
    ],
)
def test_refusals(tiny_model, statistics, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_model, statistics)


def test_statistics_that_lack_something_are_refused(tiny_model, tokens):
    norms = hemostat.collect(tiny_model, tokens, "wanda", progress=False)
    with pytest.raises(
        ValueError, match=r"structured\.flap: statistics of model\.layers\.0\.self_attn\.o_proj lack mean"
    ):
        structured.flap(tiny_model, norms, sparsity=0.2)
    smaller = structured.wanda_sp(tiny_model, norms, sparsity=0.5)
    with pytest.raises(ValueError, match="are of 32 input features, but it has 16"):
        structured.wanda_sp(smaller, norms, sparsity=0.2)
