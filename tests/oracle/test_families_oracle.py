"""Every family against transformers: logits with and without a cache, gradients, what routers choose, what is saved,
names."""

from __future__ import annotations

import functools
import json
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from families import CASES, Case, checkpoint
from safetensors.torch import load_file, save_file
from small_models import SIZES

import hemostat

transformers = pytest.importorskip("transformers")

MIXTURES = [name for name, case in CASES.items() if case.model_type in ("mixtral", "qwen3_moe", "olmoe", "gpt_oss")]

# Stored together, and the names of each after the tensor's.
FUSED = {
    "attn.c_attn": [".q", ".k", ".v"],
    "self_attn.qkv_proj": [".q", ".k", ".v"],
    "attention.query_key_value": [".q", ".k", ".v"],
    "mlp.gate_up_proj": [".gate", ".up"],
    "experts.gate_up_proj": [".gate", ".up"],
}
ROUTERS = ("mlp.gate.weight", "block_sparse_moe.gate.weight", "mlp.router.weight")


class Made(NamedTuple):
    case: Case
    directory: Path
    module: Any  # of transformers
    model: hemostat.Model  # loaded from the directory
    stretches: bool  # its frequencies depend on the length, beyond 32 tokens

    @property
    def texts(self) -> list[torch.Tensor]:
        return [drawn(24), drawn(48)] if self.stretches else [drawn(24)]


def drawn(length: int) -> torch.Tensor:
    """Two random texts, the padding token among them: its row of the embedding gets no gradient in transformers."""
    return torch.randint(0, 97, (2, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def makes(tmp_path_factory):
    """Makes each case once."""

    @functools.cache
    def make(name: str) -> Made:
        case, directory = CASES[name], tmp_path_factory.mktemp(name) / "theirs"
        module = checkpoint(case, directory)
        kind = case.fields.get("rope_parameters", {}).get("rope_type")
        return Made(case, directory, module, hemostat.Model.load(directory), kind in ("dynamic", "longrope"))

    return make


@pytest.fixture(params=CASES)
def made(request, makes) -> Made:
    return makes(request.param)


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def assert_one_model(ours: hemostat.Model, theirs: hemostat.Model, texts: list[torch.Tensor]) -> None:
    """The same tensors; where they lie in memory may decide how a product of few rows rounds."""
    expected = theirs.tensors()
    assert ours.tensors().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.tensors().items())
    for tokens in texts:
        torch.testing.assert_close(ours.forward(tokens), theirs.forward(tokens), rtol=0, atol=1e-5)


def from_pretrained(directory: Path):
    return transformers.AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in load_file(directory / "model.safetensors").items()}


@torch.no_grad()
def test_logits(made):
    for tokens in made.texts:
        assert_same(made.model.forward(tokens), made.module(tokens).logits)


@torch.no_grad()
def test_logits_with_a_cache(made):
    tokens = made.texts[-1]
    if made.stretches:  # keys in the cache stay as they were rotated, so that another division gives other logits
        pieces = tokens.split([10, 1, 1, 19, 1, 1, 1, 14], dim=1)
        theirs = transformers.DynamicCache(config=made.module.config)
        expected = torch.cat([made.module(piece, cache=theirs, use_cache=True).logits for piece in pieces], 1)
    else:
        pieces = tokens.split([10, 1, 1, 1, 11], dim=1)
        expected = made.module(tokens).logits
    cache = hemostat.KvCache(made.model, batch=tokens.size(0))
    assert_same(torch.cat([made.model.forward(piece, cache=cache) for piece in pieces], 1), expected)
    assert len(cache) == tokens.size(1)


def test_gradients(made):
    module, tokens = made.module, drawn(24)
    model = hemostat.Model.from_transformers(module)

    def gradients(logits):
        module.zero_grad()
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
        found = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
        module.zero_grad()
        return found

    ours, theirs = gradients(model.forward(tokens)), gradients(module(tokens).logits)
    for name, gradient in theirs.items():
        difference = (ours[name] - gradient).abs().max()
        assert difference <= max(1e-3 * gradient.abs().max(), 1e-6), name


class Routing(hemostat.Observer):
    def __init__(self):
        super().__init__()
        self.chosen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def routing(self, block, experts, weights):
        self.chosen[block] = experts.clone(), weights.clone()


@torch.no_grad()
@pytest.mark.parametrize("made", MIXTURES, indirect=True)
def test_routers(made):
    tokens, config, seen = drawn(24), made.module.config, Routing()
    made.model.forward(tokens, observer=seen)
    blocks = [i for i, layer in enumerate(made.module.model.layers) if hasattr(layer.mlp, "experts")]
    assert sorted(seen.chosen) == blocks
    theirs = made.module(tokens, output_router_logits=True).router_logits
    for block, logits in zip(blocks, theirs, strict=True):
        experts, order = seen.chosen[block][0].sort()
        assert torch.equal(experts, logits.topk(config.num_experts_per_tok).indices.sort().values)
        weights = logits.softmax(-1).gather(1, experts)
        if getattr(config, "norm_topk_prob", True):
            weights /= weights.sum(-1, keepdim=True)
        torch.testing.assert_close(seen.chosen[block][1].gather(1, order), weights, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_is_saved(made, tmp_path):
    made.model.save(tmp_path)  # a warning would be an error
    assert shapes(tmp_path) == shapes(made.directory)
    theirs, ours = from_pretrained(tmp_path), hemostat.Model.load(tmp_path)
    assert_one_model(ours, made.model, made.texts)
    for tokens in made.texts:
        assert_same(theirs(tokens).logits, made.module(tokens).logits)


@torch.no_grad()
def test_to_transformers(made):
    theirs = made.model.to_transformers()
    assert type(theirs) is type(made.module)
    for tokens in made.texts:
        assert_same(theirs(tokens).logits, made.module(tokens).logits)


@torch.no_grad()
def test_pickling(made):
    assert_one_model(pickle.loads(pickle.dumps(made.model)), made.model, made.texts)


@torch.no_grad()
def test_a_dropped_block(made, tmp_path):
    tokens = drawn(24)
    dropped = hemostat.ablate.drop_layers(made.model, count=1)
    if made.case.fields.get("scale_attn_by_inverse_layer_idx"):  # no config says what a block's place was
        with pytest.warns(UserWarning, match=r"hemostat\.json"):
            dropped.save(tmp_path)
    else:
        dropped.save(tmp_path)
        assert_same(from_pretrained(tmp_path)(tokens).logits, dropped.forward(tokens))
    assert_one_model(hemostat.Model.load(tmp_path), dropped, [tokens])


def is_linear(tensor: str, dimensions: int) -> bool:
    """Whether a tensor of a checkpoint or a module holds linears of a block; routers are none of linears()."""
    return bool(re.search(r"\.(layers|h)\.\d", tensor)) and dimensions > 1 and not tensor.endswith((*ROUTERS, "_bias"))


def test_linears(made):
    linears, expected = made.model.linears(), []
    for tensor, shape in shapes(made.directory).items():
        if is_linear(tensor, len(shape)):
            name = tensor.removesuffix(".weight")
            parts = next((parts for end, parts in FUSED.items() if name.endswith(end)), [""])
            experts = [f".experts.{i}." for i in range(shape[0])] if len(shape) == 3 else [".experts."]
            expected += [name.replace(".experts.", expert) + part for expert in experts for part in parts]
    assert sorted(linears.names) == sorted(expected)
    entries = sum(p.numel() for name, p in made.module.named_parameters() if is_linear(name, p.dim()))
    assert sum(weight.numel() for _, weight in linears) == entries


@torch.no_grad()
@pytest.mark.parametrize(
    "name, prefix, buffers",
    [
        ("gpt2", "transformer.", {"h.1.attn.bias": (1, 1, 64, 64)}),
        (
            "gpt_neox",
            "",
            {
                "gpt_neox.layers.1.attention.bias": (1, 1, 64, 64),
                "gpt_neox.layers.1.attention.masked_bias": (),
                "gpt_neox.layers.1.attention.rotary_emb.inv_freq": (2,),
            },
        ),
    ],
)
def test_tensors_as_first_published(name, prefix, buffers, makes, tmp_path):
    made = makes(name)
    stored = load_file(made.directory / "model.safetensors")
    tensors = {key.removeprefix(prefix): tensor for key, tensor in stored.items()}
    save_file(tensors | {key: torch.ones(shape) for key, shape in buffers.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((made.directory / "config.json").read_bytes())
    assert_same(hemostat.Model.load(tmp_path).forward(drawn(24)), made.module(drawn(24)).logits)


@pytest.mark.parametrize("names", ["as stored", "as in memory"])
def test_the_language_model_of_a_multimodal_checkpoint(names, tmp_path):
    text = SIZES | CASES["gemma3"].fields | {"final_logit_softcapping": None}  # which that class does not read
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=vision | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    module = transformers.Gemma3ForConditionalGeneration(config).eval()
    module.save_pretrained(tmp_path / "both")
    if names == "as in memory":  # as transformers 5 names what it holds, and some checkpoints what they store
        tensors = {
            name: tensor.contiguous() for name, tensor in module.state_dict().items() if name != "lm_head.weight"
        }
        save_file(tensors, tmp_path / "both" / "model.safetensors")
    tokens = drawn(24)
    with pytest.warns(UserWarning, match="tensors of multi_modal_projector and vision_tower are left out"):
        model = hemostat.Model.load(tmp_path / "both")
    with torch.no_grad():
        expected = module(tokens).logits
    assert_same(model(tokens), expected)
    model.save(tmp_path / "text")
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert type(alone).__name__ == "Gemma3ForCausalLM"
    with torch.no_grad():
        assert_same(alone(tokens).logits, expected)


def test_experts_in_mxfp4(tmp_path):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    case = Case("gpt_oss", CASES["gpt_oss"].fields | {"hidden_size": 64, "intermediate_size": 32})
    module = checkpoint(case, tmp_path / "packed")
    path = tmp_path / "packed" / "model.safetensors"
    generator = torch.Generator().manual_seed(2)
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(path).items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stored[name] = tensor.to(torch.bfloat16)
            continue
        experts, rows, columns = tensor.shape[0], tensor.shape[2], tensor.shape[1]
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), generator=generator).byte()
        scales = torch.randint(118, 126, (experts, rows, columns // 32), generator=generator).byte()
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        module.get_parameter(name).data = convert_moe_packed_tensors(blocks, scales).float()
    save_file(stored, path)
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16().float()

    model = hemostat.Model.load(tmp_path / "packed")
    assert model.dtype == torch.bfloat16
    assert model.save(tmp_path / "whole") is None
    again = load_file(tmp_path / "whole" / "model.safetensors")
    for name, parameter in module.state_dict().items():
        assert torch.equal(again[name].float(), parameter), name
    assert "quantization_config" not in json.loads((tmp_path / "whole" / "config.json").read_text())
    tokens = drawn(24)
    with torch.no_grad():
        assert_same(model.to(torch.float32)(tokens), module(tokens).logits)
