"""GGUF files of every family that has them: written and read again, named as the gguf package names them, read by
transformers where it can, and refused where a file would be read as another model."""

from __future__ import annotations

import math
import re
import warnings
import zlib

import llama_cpp_logits
import numpy as np
import pytest
import torch
from families import (
    CASES,
    EIGHT,
    FACTORS,
    FOUR,
    GEMMA2,
    GEMMA3,
    HEAD,
    LONG,
    OSS,
    TWO_ROPES,
    Case,
    checkpoint,
    rope,
)
from small_models import LINEAR_ROPE, LLAMA3_ROPE

import hemostat
from hemostat import _C

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")  # transformers' GGUF reader imports it

YARN = 1 + 0.1 * math.log(4)  # what a file's factor is beside: of a context that is 4 times as long
HELD = float(np.float32(1.7 / YARN)) * YARN  # 1.7, as a file's float32 gives it back
AS_HEAD = {"query_pre_attn_scalar": 12}  # the only scale that a file means, but for models of 27 billion parameters
FILES = {
    name: CASES[name]
    for name in (
        "llama",
        "llama-head-dim",
        "llama-linear",
        "llama-llama3",
        "mistral-head-dim",
        "qwen2",
        "qwen3",
        "qwen3-old",
        "gemma",
        "phi3",
        "phi3-old",
        "phi3-partial",
        "phi3-longrope",
        "phi3-longrope-old",
        "olmo2-old",
        "granite",
        "granite-old",
        "gpt2",
        "gpt_neox",
        "gpt_neox-sequential-old",
        "mixtral",
        "qwen3_moe-normalized",
    )
} | {
    "llama-yarn": Case("llama", rope("yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn-attention": Case(
        "llama", rope("yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=HELD)
    ),
    "llama-longrope": Case("llama", LONG | rope("longrope", **FACTORS)),
    "mistral-wide-window": Case("mistral", {"sliding_window": 64}),
    "qwen3-linear": Case("qwen3", {"rope_parameters": LINEAR_ROPE}),
    "granite-llama3": Case("granite", {"rope_parameters": LLAMA3_ROPE}),
    "gpt2-head": Case("gpt2", {"n_inner": 48, "tie_word_embeddings": False}),
    "gemma2": Case("gemma2", GEMMA2 | AS_HEAD),
    "gemma2-46": Case("gemma2", GEMMA2 | {"num_hidden_layers": 46, "query_pre_attn_scalar": 8}),
    "gemma3": Case("gemma3_text", GEMMA3 | AS_HEAD | TWO_ROPES | {"final_logit_softcapping": 2.0}),
    "gemma3-pattern": Case("gemma3_text", GEMMA3 | AS_HEAD | {"sliding_window_pattern": 2}),
    "smollm3": Case("smollm3", FOUR),
    "olmoe": Case("olmoe", EIGHT | {"num_key_value_heads": 4}),
    "gpt_oss": Case(
        "gpt_oss",
        OSS | {"swiglu_limit": 7.0} | rope("yarn", factor=4.0, original_max_position_embeddings=16, truncate=False),
    ),
    "gpt_oss-plain": Case("gpt_oss", OSS | {"swiglu_limit": 7.0} | rope()),
}
# What a file would be read as something else for.
REFUSED = {
    "llama-dynamic": "rope_context",
    "llama-yarn": r"inverse_frequencies\.\d",  # beta_fast and beta_slow have keys that llama.cpp does not read
    "mistral": "window",
    "qwen2-window": "window",
    "qwen3-window": "bias",
    "gemma2": "scale",
    "gemma3": "scale",
    "olmo2": "bias",
    "smollm3": "inverse_frequencies",
    "gpt2-inner": "activation",
    "gpt2-unscaled": "scale",
    "gpt2-layer-scale": "scale",
    "gpt_neox-sequential": "bias",
    "mixtral-window": "window",
    "qwen3_moe": "normalize",
    "qwen3_moe-dense-layers": "experts",
    "qwen3_moe-old": "normalize|experts",
    "gpt_oss": "inverse_frequencies|limit",
    "gpt_oss-no-bias": "bias|limit|slope",
}
NO_GGUF = ("opt", "ministral")
TOKENS = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The directory of a case, made once."""
    known = {}

    def make(case: Case):
        if str(case) not in known:
            known[str(case)] = tmp_path_factory.mktemp("families") / case.model_type
            checkpoint(case, known[str(case)])
        return known[str(case)]

    return make


def saved(model: hemostat.Model, path) -> list[str]:
    """What saving says; the file lies at path."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model.save(path)
    return [str(warning.message) for warning in said]


def test_every_family_is_here():
    assert {case.model_type for case in FILES.values()} | set(NO_GGUF) == set(hemostat.families())


@pytest.mark.parametrize("name", FILES)
def test_written_and_read_again(name, made, tmp_path):
    model = hemostat.Model.load(made(FILES[name]))
    saved(model, tmp_path / "model.gguf")
    again = hemostat.Model.load(tmp_path / "model.gguf")
    assert again.linears().names == model.linears().names
    assert again.tied == model.tied and again.config.context == model.config.context
    for tensor, values in model.tensors().items():
        torch.testing.assert_close(again.tensors()[tensor], values, rtol=0, atol=5e-7, msg=tensor)
    torch.testing.assert_close(again.forward(TOKENS), model.forward(TOKENS), rtol=0, atol=2e-5)
    if "longrope" not in name:  # whose divisors are rounded
        saved(again, tmp_path / "again.gguf")
        assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "model.gguf").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_names_and_keys_are_those_of_the_package(name, made, tmp_path):
    saved(hemostat.Model.load(made(FILES[name])), tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    architecture = reader.fields["general.architecture"].contents()
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    blocks = reader.fields[f"{architecture}.block_count"].contents()
    known = {
        gguf.TENSOR_NAMES[tensor].format(bid=block) for tensor in gguf.MODEL_TENSORS[kind] for block in range(blocks)
    }
    rotations = {"rope_freqs", "rope_factors_long", "rope_factors_short"}  # which llama.cpp loads of more architectures
    assert {tensor.name.rsplit(".", 1)[0] for tensor in reader.tensors} - rotations <= known
    keys = {
        value.replace("{arch}", architecture)
        for group in vars(gguf.Keys).values()
        if isinstance(group, type)
        for value in vars(group).values()
        if isinstance(value, str)
    }
    assert {key for key in reader.fields if not key.startswith("GGUF.")} <= keys


SAID = {
    "phi3": "llama.cpp overlooks its windows",
    "phi3-longrope": "llama.cpp takes the long rotations by the context that it makes room for",
    "llama-longrope": "transformers overlooks its scaled rotation",
    "gpt_neox": "llama.cpp computes its GELU by the tanh approximation",
    "gpt_oss": "llama.cpp rounds where YaRN's ramp begins and ends",
    "granite-old": "transformers overlooks its biases",
    "gpt_oss-plain": None,
    "gemma2": None,
    "mixtral": None,
    "phi3-old": None,
}


@pytest.mark.parametrize("name", SAID)
def test_what_others_read_otherwise_is_said(name, made, tmp_path):
    said = " ".join(saved(hemostat.Model.load(made(FILES[name])), tmp_path / "model.gguf"))
    assert said == "" if SAID[name] is None else SAID[name] in said


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_file_would_be_read_otherwise_for(name, made, tmp_path):
    with pytest.raises(ValueError, match=rf"cannot express blocks\.\d\..*({REFUSED[name]})[^=]* = .* would be read as"):
        hemostat.Model.load(made(CASES[name])).save(tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", NO_GGUF)
def test_families_without_an_architecture(name, made, tmp_path):
    with pytest.raises(ValueError, match=f"cannot express a model of the family {name} yet"):
        hemostat.Model.load(made(CASES[name])).save(tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "case, words",
    [
        (Case("gemma", HEAD | {"tie_word_embeddings": False}), "a head of its own in the architecture gemma"),
        (Case("olmo2", {"tie_word_embeddings": True}), "a head that is the embedding in the architecture olmo2"),
        (Case("gpt_neox", {"tie_word_embeddings": True}), "a head that is the embedding in the architecture gptneox"),
        (Case("qwen2", {"rope_parameters": LLAMA3_ROPE}), "inverse_frequencies"),
        (Case("phi3", HEAD), "heads of 12 features"),
        (Case("olmoe", EIGHT | {"num_key_value_heads": 4, "norm_topk_prob": True}), "normalize = true"),
        (CASES["olmoe"], "2 key-value heads for 4 heads in the architecture olmoe"),
        (Case("gemma2", GEMMA2 | AS_HEAD | {"final_logit_softcapping": None}), "head_softcap = nothing"),
        (Case("llama", rope(partial_rotary_factor=0.5)), "partial rotation is not supported"),
    ],
    ids=lambda value: value.model_type if isinstance(value, Case) else "",
)
def test_what_llama_cpp_does_not_load(case, words, tmp_path):
    checkpoint(case, tmp_path / "directory")
    with pytest.raises(ValueError, match=re.escape(words)):
        hemostat.Model.load(tmp_path / "directory").save(tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]


# Of the sizes that transformers' reader takes for granted where it does not read a key.
READ_BY_TRANSFORMERS = {
    "qwen3": Case("qwen3", {"head_dim": 128}),
    "phi3": Case("phi3", {"vocab_size": 32064}),
    "gpt2": Case("gpt2", {"vocab_size": 50257, "n_positions": 1024}),
    "gemma2": Case("gemma2", {"head_dim": 256, "sliding_window": 8, "query_pre_attn_scalar": 256}),
    "gemma3": Case("gemma3_text", {"head_dim": 256, "sliding_window": 8, "query_pre_attn_scalar": 256}),
    "qwen3_moe": Case("qwen3_moe", CASES["qwen3_moe-normalized"].fields | {"moe_intermediate_size": 768}),
}


@pytest.mark.parametrize("name", READ_BY_TRANSFORMERS)
def test_transformers_reads_the_same_logits(name, tmp_path):
    module = checkpoint(READ_BY_TRANSFORMERS[name], tmp_path / "directory")
    saved(hemostat.Model.load(tmp_path / "directory"), tmp_path / "model.gguf")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(TOKENS).logits, module(TOKENS).logits, rtol=0, atol=1e-4)
        torch.testing.assert_close(
            hemostat.Model.load(tmp_path / "model.gguf").forward(TOKENS), module(TOKENS).logits, rtol=0, atol=1e-4
        )


def with_known_weights(model: hemostat.Model) -> hemostat.Model:
    """The same model with weights that depend on their names alone."""
    weights, about = {}, 0 if model.config.family.startswith("gemma") else 1  # where norms lie
    for name, tensor in model.tensors().items():
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        weights[name] = 0.25 * noise + (about if tensor.dim() == 1 and name.endswith(".weight") else 0)
    return hemostat.Model.from_tensors(_C.family_config(model), weights)


@pytest.mark.parametrize("name", llama_cpp_logits.LOGITS)
def test_llama_cpp_computes_the_same_logits(name, made, tmp_path):
    saved(with_known_weights(hemostat.Model.load(made(FILES[name]))), tmp_path / "model.gguf")
    tokens = torch.tensor([llama_cpp_logits.TOKENS])
    logits = hemostat.Model.load(tmp_path / "model.gguf").forward(tokens)[0, -1]
    theirs = torch.tensor(llama_cpp_logits.LOGITS[name])
    # llama.cpp takes GELU from a table in half precision.
    by_table = name.startswith(("gemma", "gpt2", "gpt_neox"))
    torch.testing.assert_close(logits[: len(theirs)], theirs, rtol=0, atol=5e-3 if by_table else 1e-4)


WIDE = {"hidden_size": 64, "intermediate_size": 64}  # whole blocks along every row
BLOCKS = {
    "phi3": Case("phi3", WIDE),
    "gpt2": Case("gpt2", {"n_embd": 64}),
    "mixtral": Case("mixtral", WIDE | {"num_local_experts": 4}),
    "gpt_oss": Case("gpt_oss", OSS | WIDE | {"swiglu_limit": 7.0, "head_dim": 16} | rope()),
}


class TestBlocks:
    @pytest.fixture(params=BLOCKS)
    def model(self, request, made):
        return hemostat.Model.load(made(BLOCKS[request.param]))

    def test_linears_of_one_tensor_stay_in_their_blocks(self, model, tmp_path):
        rounded = hemostat.prepare(model, "gguf", family="legacy").at(4.5)
        assert saved(rounded, tmp_path / "model.gguf") == [] or model.config.family != "mixtral"
        tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
        down = tensors.get("blk.0.ffn_down.weight") or tensors["blk.0.ffn_down_exps.weight"]
        assert down.tensor_type.name == "Q4_0"
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert again.bytes == rounded.bytes
        for (name, weight), (_, before) in zip(again.linears(), rounded.linears(), strict=True):
            assert torch.equal(weight, before), name
        assert torch.equal(again.forward(TOKENS), rounded.forward(TOKENS))

        values = gguf.quants.dequantize(down.data, down.tensor_type)
        parts = [weight for name, weight in rounded.linears() if re.search(r"layers\.0\.|h\.0\.", name)]
        ours = [part for part in parts if list(part.shape) == list(values.shape[-2:])]
        assert any(np.array_equal(part.numpy(), whole) for part in ours for whole in (values, *values))

    def test_of_different_types_the_tensor_is_dense(self, model, tmp_path):
        first = model.linears().names[1 if model.config.family in ("phi3", "gpt2") else -1]
        rounded = hemostat.prepare(model, "gguf", include=first, family="legacy").at(4.5)
        said = saved(rounded, tmp_path / "model.gguf")
        assert any("1 of its tensors hold linears of different types, and so are F32" in sentence for sentence in said)
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert torch.equal(dict(again.linears())[first], dict(rounded.linears())[first])
        torch.testing.assert_close(again.forward(TOKENS), rounded.forward(TOKENS), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_dtype(self, model, tmp_path, dtype):
        model = model.to(dtype)
        saved(model, tmp_path / "model.gguf")
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert again.dtype == dtype
        for name, values in model.tensors().items():
            assert torch.equal(again.tensors()[name], values), name
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
        assert kinds["blk.0.attn_output.weight"] == {torch.bfloat16: "BF16", torch.float16: "F16"}[dtype]
        precise = ("_norm.weight", ".bias", "sinks.weight", "gate_inp.weight", "position_embd.weight")
        assert all(kind == "F32" for name, kind in kinds.items() if name.endswith(precise))


def test_mxfp4(made, tmp_path):
    """As gpt-oss's published files hold experts: read without being unpacked, and written as they are."""
    model = hemostat.Model.load(made(BLOCKS["gpt_oss"]))
    saved(model, tmp_path / "plain.gguf")
    reader, path = gguf.GGUFReader(tmp_path / "plain.gguf"), tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "gpt-oss")
    for key, field in reader.fields.items():
        if key.startswith("gpt-oss."):
            writer.add_key_value(key, field.contents(), field.types[0])
    mxfp4, stored = gguf.GGMLQuantizationType.MXFP4, {}
    for tensor in reader.tensors:
        if tensor.name.endswith("_exps.weight"):
            stored[tensor.name] = gguf.quants.quantize(np.array(tensor.data), mxfp4)
            writer.add_tensor(tensor.name, stored[tensor.name], raw_dtype=mxfp4)
        else:
            writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    packed, dense = hemostat.Model.load(path), hemostat.Model.load(path, dtype=torch.float32)
    assert packed.bytes < dense.bytes == 4 * dense.parameters
    assert torch.equal(packed.forward(TOKENS), dense.forward(TOKENS))
    values = gguf.quants.dequantize(stored["blk.2.ffn_down_exps.weight"], mxfp4)
    down = [weight for name, weight in packed.linears() if re.search(r"layers\.2\.mlp\.experts\..*down_proj", name)]
    assert torch.equal(torch.stack(down), torch.from_numpy(values.copy()))

    saved(packed, tmp_path / "again.gguf")
    again = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    for name, blocks in stored.items():
        assert again[name].tensor_type == mxfp4
        assert np.array_equal(again[name].data, blocks), name
