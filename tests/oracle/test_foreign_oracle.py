"""Architectures that hemostat does not know, against transformers itself: logits, gradients, inputs of linears, saving;
and one that it does know, against its own interpreter.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any, NamedTuple

import pytest
import torch
from foreign_modules import FOREIGN, VOCABULARY, deepseek_v3
from small_models import SIZES

import hemostat

transformers = pytest.importorskip("transformers")

TOKENS = torch.randint(0, VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(1))


class Made(NamedTuple):
    module: Any
    model: hemostat.Model

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """As transformers computes them in evaluation mode."""
        both = {"decoder_input_ids": tokens} if self.module.config.is_encoder_decoder else {}
        self.module.eval()
        try:
            return self.module(tokens, **both).logits
        finally:
            self.module.train()


@pytest.fixture(scope="module")
def makes():
    """Makes each once."""

    @functools.cache
    def make(name: str) -> Made:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = FOREIGN[name](transformers).train()
        return Made(module, hemostat.Model.from_module(module))

    return make


@pytest.fixture(params=FOREIGN)
def made(request, makes) -> Made:
    return makes(request.param)


@pytest.fixture(scope="module")
def collected(makes):
    @functools.cache
    def collect(name: str, *needs: str) -> hemostat.Statistics:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of what is never called, which has a test of its own
            return hemostat.collect(makes(name).model, TOKENS, list(needs) or None, progress=False)

    return collect


def layers(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    head = module.get_output_embeddings()
    return {
        name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear) and part is not head
    }


def experts(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{i}": each
        for name, parameter in module.named_parameters()
        if name.endswith(("gate_up_proj", "down_proj")) and parameter.dim() == 3
        for i, each in enumerate(parameter)
    }


def test_logits(made):
    torch.testing.assert_close(made.model(TOKENS), made.logits(TOKENS), rtol=1e-5, atol=1e-5)


def test_the_module_stays_as_it_is(made):
    before = {name: (tensor, tensor.clone()) for name, tensor in made.module.state_dict(keep_vars=True).items()}
    hemostat.compare(made.model, hemostat.prepare(made.model, "rtn").at(3), TOKENS, progress=False)
    after = made.module.state_dict(keep_vars=True)
    assert all(after[name] is tensor and torch.equal(tensor, values) for name, (tensor, values) in before.items())
    assert made.module.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in made.module.modules())


def test_linears_are_views_of_its_layers(made):
    expected = {name: layer.weight for name, layer in layers(made.module).items()} | experts(made.module)
    assert set(made.model.linears().names) == set(expected)
    for name, weight in made.model.linears():
        assert weight.data_ptr() == expected[name].data_ptr() and torch.equal(weight, expected[name])


def test_the_head_comes_by_include_alone(made):
    assert "lm_head" not in made.model.linears().names
    assert made.model.linears(include="lm_head").names == ["lm_head"]


def test_replaced_weights_are_what_transformers_computes(made):
    changed = hemostat.prepare(made.model, "magnitude").at(0.5)
    weights = dict(changed.linears())
    module = type(made.module)(made.module.config)
    module.load_state_dict(made.module.state_dict())
    with torch.no_grad():
        for name, layer in layers(module).items():
            layer.weight.copy_(weights[name])
        for name, expert in experts(module).items():
            expert.copy_(weights[name])
    torch.testing.assert_close(changed(TOKENS), Made(module, changed).logits(TOKENS), rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_module(made):
    made.module.zero_grad()
    made.logits(TOKENS).square().mean().backward()
    expected = {name: parameter.grad for name, parameter in made.module.named_parameters()}
    made.module.zero_grad()
    made.model(TOKENS).square().mean().backward()
    for name, parameter in made.module.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7)
    made.module.zero_grad()


@pytest.mark.parametrize("name", FOREIGN)
def test_statistics_are_of_what_each_layer_reads(name, makes, collected):
    made, statistics = makes(name), collected(name)
    read: dict[str, list[torch.Tensor]] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: read.setdefault(name, []).append(given[0].detach().flatten(0, -2))
        )
        for name, layer in layers(made.module).items()
    ]
    with torch.no_grad():
        made.logits(TOKENS)
    for hook in hooks:
        hook.remove()
    for linear in layers(made.module):
        if linear not in read:
            assert statistics[linear].count == 0
            continue
        x = torch.cat(read[linear]).double()
        assert statistics[linear].count == len(x)
        torch.testing.assert_close(statistics[linear].gram.double(), x.T @ x / len(x), rtol=1e-4, atol=1e-6)


def test_linears_that_read_one_tensor_share_its_statistics(collected):
    latent, text = collected("deepseek_v3"), "model.layers.0."
    for names in (("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"), ("mlp.gate_proj", "mlp.up_proj")):
        first, second = (latent[text + name] for name in names)
        assert first is second
    assert latent[text + "self_attn.q_b_proj"] is not latent[text + "self_attn.q_a_proj"]


def test_experts_have_statistics_of_their_own_tokens(makes, collected):
    module, statistics = makes("deepseek_v3").module, collected("deepseek_v3")
    block, names = module.model.layers[1].mlp, "model.layers.1.mlp.experts"
    given: list[Any] = []
    hook = block.experts.register_forward_pre_hook(lambda _, args: given.append(args))
    with torch.no_grad():
        makes("deepseek_v3").logits(TOKENS)
    hook.remove()
    (x, chosen, _), *_ = given
    for expert in range(len(block.experts.gate_up_proj)):
        rows = x[(chosen == expert).any(-1)].double()
        inputs = statistics[f"{names}.gate_up_proj.{expert}"]
        assert inputs.count == len(rows) == statistics[f"{names}.down_proj.{expert}"].count
        torch.testing.assert_close(inputs.gram.double(), rows.T @ rows / len(rows), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_experts_are_seen_however_they_are_computed(implementation, makes, collected):
    module = deepseek_v3(transformers)
    module.load_state_dict(makes("deepseek_v3").module.state_dict())
    module.set_experts_implementation(implementation)
    model = hemostat.Model.from_module(module)
    statistics = hemostat.collect(model, TOKENS, progress=False)
    for name, inputs in collected("deepseek_v3").items():
        assert statistics[name].count == inputs.count
        torch.testing.assert_close(statistics[name].gram, inputs.gram, rtol=1e-4, atol=1e-6)
    treated = [hemostat.prepare(each, "activation").at(4) for each in (model, makes("deepseek_v3").model)]
    torch.testing.assert_close(treated[0](TOKENS), treated[1](TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FOREIGN)
def test_gradient_statistics(name, makes, collected):
    made = makes(name)
    gradients = collected(name, "gradient_mean", "gradient_square").gradients
    parameters = {name: layer.weight for name, layer in layers(made.module).items()}
    sums = dict.fromkeys(parameters, 0.0)
    for window in TOKENS:
        made.module.zero_grad()
        logits = made.logits(window[None])[0, :-1]
        torch.nn.functional.cross_entropy(logits, window[1:]).backward()
        sums = {name: sums[name] + weight.grad.double() for name, weight in parameters.items()}
    made.module.zero_grad()
    for linear, total in sums.items():
        torch.testing.assert_close(gradients[linear].mean.double(), total / len(TOKENS), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", FOREIGN)
def test_saved_and_loaded_by_transformers(name, makes, tmp_path):
    changed = hemostat.prepare(makes(name).model, "magnitude").at(0.5)
    changed.save(tmp_path / "saved")
    loaded = type(makes(name).module).from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(Made(loaded, changed).logits(TOKENS), changed(TOKENS), rtol=1e-5, atol=1e-5)
    again = hemostat.Model.load(tmp_path / "saved", foreign=True)
    torch.testing.assert_close(again(TOKENS), changed(TOKENS), rtol=1e-5, atol=1e-5)
    changed.save(tmp_path / "saved")  # where a model of no family of ours is
    assert not [path for path in tmp_path.iterdir() if path.name != "saved"]


def test_damage_is_transformers(made):
    damaged = hemostat.prepare(made.model, "rtn").at(3)
    damage = hemostat.compare(made.model, damaged, TOKENS, progress=False)
    targets = TOKENS[:, 1:].flatten()
    nll = [
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), targets).item()
        for logits in (made.logits(TOKENS), damaged(TOKENS))
    ]
    assert damage.nll_baseline == pytest.approx(nll[0], rel=1e-5)
    assert damage.delta_nll == pytest.approx(nll[1] - nll[0], abs=1e-5)


# Each linear of a foreign module has noise of its own, where q, k and v of a block share theirs; others take blocks.
DIFFERENT = ("activation_noise", "owl", "gradient_aware")


@pytest.fixture(scope="module")
def both_ways():
    sizes = SIZES | {"hidden_size": 64, "intermediate_size": 128}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, initializer_range=0.05)).eval()
    return hemostat.Model.from_transformers(module), hemostat.Model.from_module(module)


@pytest.mark.parametrize(
    "method",
    [
        method.name
        for method in hemostat.methods()
        if method.kind in ("weights", "factors", "activations", "input", "decoding") and method.name not in DIFFERENT
    ],
)
def test_a_family_both_ways_has_one_damage(method, both_ways):
    options = {"group_size": 32} if method in ("rtn", "gptq", "awq") else {}
    damages = []
    for model in both_ways:
        statistics = hemostat.collect(model, TOKENS, [method], progress=False) if find(method).needs else None
        prepared = hemostat.prepare(model, method, statistics, **options)
        grid = prepared.axis.default_grid
        damages.append(hemostat.compare(model, prepared.at(grid[len(grid) // 2]), TOKENS, progress=False))
    assert damages[1].delta_nll == pytest.approx(damages[0].delta_nll, rel=1e-3, abs=2e-5)
    assert damages[1].kl.mean == pytest.approx(damages[0].kl.mean, rel=1e-3, abs=1e-6)


def find(name: str) -> hemostat.Method:
    return next(method for method in hemostat.methods() if method.name == name)
