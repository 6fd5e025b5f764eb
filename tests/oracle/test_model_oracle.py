"""Checkpoints that transformers makes, with random weights: equal logits with and without a cache, equal gradients, and
what we save loads in transformers to the same logits."""

from __future__ import annotations

import json

import pytest
import torch
from small_models import LINEAR_ROPE, LLAMA3_ROPE, SIZES

import hemostat

transformers = pytest.importorskip("transformers")

FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-head-dim": ("Llama", {"head_dim": 12}),
    "llama-gelu": ("Llama", {"hidden_act": "gelu"}),
    "llama-gelu-tanh": ("Llama", {"hidden_act": "gelu_pytorch_tanh"}),
    "llama-theta": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama-linear-rope": ("Llama", {"rope_parameters": LINEAR_ROPE}),
    "llama-llama3-rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
    "llama-many-heads": ("Llama", {"num_key_value_heads": 4}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
}


def made(name: str):
    family, options = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **options})
    config._attn_implementation = "eager"
    module = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            if parameter.dim() == 1:  # norms and biases that are not 1 and 0
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "embed" not in parameter_name:
                parameter.mul_(6)
    return module


@pytest.fixture(params=FAMILIES)
def module(request):
    return made(request.param)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, SIZES["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(1))


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def saved(module, directory, **options):
    module.save_pretrained(directory, **options)
    return directory


@torch.no_grad()
def test_logits_are_equal(module, tokens, tmp_path):
    model = hemostat.Model.load(saved(module, tmp_path / "checkpoint"))
    theirs = module(tokens).logits
    assert theirs.std() > 0.1
    assert_same(model.forward(tokens), theirs)


@torch.no_grad()
def test_logits_are_equal_with_a_cache(module, tokens, tmp_path):
    model = hemostat.Model.load(saved(module, tmp_path / "checkpoint"))
    cache = hemostat.KvCache(model, batch=tokens.size(0))
    pieces = [model.forward(piece, cache=cache) for piece in tokens.split([7, 1, 1, 9, 6], dim=1)]
    assert_same(torch.cat(pieces, 1), module(tokens).logits)


def test_gradients_are_equal(module, tokens):
    model = hemostat.Model.from_transformers(module)

    def gradients(logits):
        module.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}

    ours, theirs = gradients(model.forward(tokens)), gradients(module(tokens).logits)
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@torch.no_grad()
def test_what_is_saved_loads_in_transformers(module, tokens, tmp_path):
    model = hemostat.Model.load(saved(module, tmp_path / "theirs"))
    model.save(tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same(again(tokens).logits, module(tokens).logits)
    assert torch.equal(hemostat.Model.load(tmp_path / "ours").forward(tokens), model.forward(tokens))


@torch.no_grad()
@pytest.mark.parametrize("method, severity", [("drop_layers", 1 / 3), ("duplicate_layers", 2 / 3), ("rtn", 4)])
def test_damaged_models_load_in_transformers(module, tokens, method, severity, tmp_path):
    model = hemostat.Model.load(saved(module, tmp_path / "theirs"))
    damaged = hemostat.prepare(model, method).at(severity)
    damaged.save(tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same(again(tokens).logits, damaged.forward(tokens))


@torch.no_grad()
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_half_types(dtype, tolerance, tokens, tmp_path):
    model = hemostat.Model.load(saved(made("llama").to(dtype), tmp_path / "checkpoint"))
    assert model.dtype == dtype
    module = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint", dtype=torch.float32)
    theirs = module(tokens).logits
    difference = (model.forward(tokens).float() - theirs).norm() / theirs.norm()
    assert difference < tolerance
    assert_same(hemostat.Model.load(tmp_path / "checkpoint", dtype=torch.float32).forward(tokens), theirs)


@torch.no_grad()
def test_shards(tokens, tmp_path):
    module = made("llama")
    saved(module, tmp_path / "checkpoint", max_shard_size="20KB")
    assert len(list((tmp_path / "checkpoint").glob("*.safetensors"))) > 1
    assert_same(hemostat.Model.load(tmp_path / "checkpoint").forward(tokens), module(tokens).logits)


@torch.no_grad()
@pytest.mark.parametrize(
    "name, older",
    [
        ("llama-theta", {"rope_theta": 500.0, "rope_scaling": None}),
        ("llama-linear-rope", {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}),
        (
            "llama-llama3-rope",
            {
                "rope_theta": 1000.0,
                "rope_scaling": {k: v for k, v in LLAMA3_ROPE.items() if k != "rope_theta"},
            },
        ),
    ],
)
def test_the_spelling_of_transformers_4(name, older, tokens, tmp_path):
    module = made(name)
    saved(module, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config | older))
    assert_same(hemostat.Model.load(tmp_path / "checkpoint").forward(tokens), module(tokens).logits)
