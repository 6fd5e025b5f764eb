"""Gradient statistics against torch's autograd through transformers' whole model; scores of gradients against the
formulas of the papers' code."""

import math

import pytest
import torch
from small_models import SIZES

import hemostat
from hemostat import prune

transformers = pytest.importorskip("transformers")

NEEDS = ["gradient_mean", "gradient_absmean", "gradient_square"]
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied-biases": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "mistral-window": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
}
WINDOWS = 5


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    """A random module, tokens, and the gradients of each window's loss, float64 [windows, out, in] by linear."""
    family, options = FAMILIES[request.param]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    module = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    tokens = torch.randint(97, (WINDOWS, 17))
    return module, tokens, autograd_gradients(module, tokens)


def autograd_gradients(module, tokens):
    linears = {name: child.weight for name, child in module.named_modules() if isinstance(child, torch.nn.Linear)}
    gradients = {name: [] for name in linears}
    for window in tokens:
        module.zero_grad()
        module(window[None], labels=window[None]).loss.backward()
        for name, weight in linears.items():
            gradients[name].append(weight.grad.double())
    module.zero_grad()
    return {name: torch.stack(of_windows) for name, of_windows in gradients.items()}


def close(got, expected):
    assert (got.double() - expected).abs().max() <= 1e-4 * expected.abs().max()


def check(statistics, gradients, linears):
    assert set(statistics.gradients) == set(linears)
    for name in linears:
        found, expected = statistics.gradients[name], gradients[name]
        assert found.count == len(expected)
        assert [found.out_features, found.in_features] == list(expected.shape[1:])
        assert found.mean.dtype == found.absmean.dtype == found.square.dtype == torch.float32
        close(found.mean, expected.mean(0))
        close(found.absmean, expected.abs().mean(0))
        close(found.square, expected.square().mean(0))


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_moments_are_those_of_autograd(case, batch):
    module, tokens, gradients = case
    model = hemostat.Model.from_transformers(module)
    seen = []
    statistics = hemostat.collect(
        model, tokens, NEEDS, batch=batch, progress=lambda done, total: seen.append((done, total))
    )
    check(statistics, gradients, model.linears().names)
    assert statistics.needs == set(NEEDS)
    assert seen[-1] == (WINDOWS, WINDOWS) and len(seen) == math.ceil(WINDOWS / batch)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_merged_and_mapped_moments_are_the_same(case):
    module, tokens, gradients = case
    model = hemostat.Model.from_transformers(module)
    parts = [hemostat.collect(model, part, NEEDS, memory_budget=0) for part in tokens.split([2, 3])]
    check(parts[0].merge(parts[1]), gradients, model.linears().names)


def test_inputs_are_collected_in_the_same_pass(case):
    module, tokens, gradients = case
    model = hemostat.Model.from_transformers(module)
    both = hemostat.collect(model, tokens, [*NEEDS, "column_norm", "gram"])
    check(both, gradients, model.linears().names)
    alone = hemostat.collect(model, tokens, ["column_norm", "gram"])
    assert both.needs == {*NEEDS, "column_norm", "gram"}
    assert both.keys() == alone.keys() and "windows" not in repr(both)
    for name, entry in alone.items():
        torch.testing.assert_close(both[name].norm, entry.norm)
        torch.testing.assert_close(both[name].gram, entry.gram)


@pytest.mark.parametrize("include", [["*.1.mlp.*"], ["lm_head"], ["lm_head", "*.0.self_attn.q_proj", "*.2.*"]])
def test_of_chosen_linears(case, include):
    module, tokens, gradients = case
    model = hemostat.Model.from_transformers(module)
    statistics = hemostat.collect(model, tokens, NEEDS, include=include)
    if module.config.tie_word_embeddings and "lm_head" in include:
        # Autograd's gradient of a tied weight is that of the embedding too: ask for the head's alone.
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())
        gradients = autograd_gradients(module, tokens)
        module.tie_weights()
    check(statistics, gradients, model.linears(include=include).names)


def test_of_factored_and_packed_weights_are_those_of_the_product(case):
    module, tokens, _ = case
    model = hemostat.Model.from_transformers(module)
    for method, severity in (("svd", 0.3), ("rtn", 4)):
        changed = hemostat.prepare(model, method).at(severity)
        dense = changed.replace({name: weight.detach().clone() for name, weight in changed.linears()})
        ours = hemostat.collect(changed, tokens, NEEDS).gradients
        for name, expected in hemostat.collect(dense, tokens, NEEDS).gradients.items():
            close(ours[name].mean, expected.mean.double())
            close(ours[name].square, expected.square.double())


def gblm_metric(weight, inputs, gradients, norm, scale=100):
    """GBLM-Pruner's code: sums over the samples of |scale g| or of (scale g)^2, whose root is then taken; scaler_row is
    the mean over the samples of the sums of squares over their tokens; |W| sqrt(scaler_row) + |W| gradients."""
    scaled = gradients * scale
    of_gradients = scaled.abs().sum(0) if norm == "l1" else scaled.square().sum(0).sqrt()
    scaler_row = inputs.square().sum(1).mean(0)
    return weight.abs() * scaler_row.sqrt() + weight.abs() * of_gradients


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("sparsity", [0.25, 0.5])
def test_gblm_removes_what_the_papers_code_does(case, norm, sparsity):
    module, tokens, gradients = case
    inputs = {}
    hooks = [
        child.register_forward_pre_hook(lambda _, given, name=name: inputs.__setitem__(name, given[0].double()))
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Linear)
    ]
    with torch.no_grad():
        module(tokens)
    for hook in hooks:
        hook.remove()

    model = hemostat.Model.from_transformers(module)
    statistics = hemostat.collect(model, tokens, f"gradient:norm={norm}")
    pruned = hemostat.prepare(model, "gradient", statistics, norm=norm).at(sparsity).linears()
    for name, weight in model.linears():
        metric = gblm_metric(weight.detach().double(), inputs[name], gradients[name], norm)
        removed = int(metric.shape[1] * sparsity)
        ordered = metric.sort(dim=1, stable=True).values
        kept = pruned[name] != 0
        assert ((~kept).sum(1) == removed).all()
        lowest_kept = metric.masked_fill(~kept, math.inf).amin(1)
        assert (lowest_kept >= ordered[:, removed] * (1 - 1e-4)).all()  # the same but for scores equal to rounding


@pytest.mark.parametrize("score", ["taylor", "fisher"])
@pytest.mark.parametrize("scope", ["auto", "row"])
def test_taylor_and_fisher_remove_the_least_important(case, score, scope):
    module, tokens, gradients = case
    model = hemostat.Model.from_transformers(module)
    statistics = hemostat.collect(model, tokens, f"gradient:score={score}")
    assert statistics.needs == {"gradient_mean" if score == "taylor" else "gradient_square"}
    pruned = hemostat.prepare(model, "gradient", statistics, score=score, scope=scope).at(0.5).linears()
    for name, weight in model.linears():
        w, g = weight.detach().double(), gradients[name]
        metric = (w * g.mean(0)).abs() if score == "taylor" else w.square() * g.square().mean(0) / 2
        metric, kept = (x if scope == "row" else x.reshape(1, -1) for x in (metric, pruned[name] != 0))
        removed = metric.shape[1] // 2
        assert ((~kept).sum(1) == removed).all()
        threshold = metric.sort(dim=1).values[:, removed]
        tolerance = 1e-4 * metric.amax(1)
        assert (metric.masked_fill(~kept, math.inf).amin(1) >= threshold - tolerance).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 8), (33, 100)])
def test_scores(dtype, shape):
    generator = torch.Generator().manual_seed(1)
    weight, gradient = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    norm = torch.rand(shape[1], generator=generator)
    w, g = weight.double(), gradient.double()
    exact = {"rtol": 1e-6, "atol": 0, "check_dtype": False}
    torch.testing.assert_close(prune.score_taylor(weight, gradient), (w * g).abs(), **exact)
    torch.testing.assert_close(
        prune.score_fisher(weight, gradient.square()), w**2 * gradient.square().double() / 2, **exact
    )
    gblm = w.abs() * norm.double() + 7 * w.abs() * g.abs()
    torch.testing.assert_close(prune.score_gblm(weight, norm, gradient.abs(), alpha=7), gblm, **exact)
