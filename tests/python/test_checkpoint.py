"""Checkpoints that are broken, or that ask for what isn't supported: refused by name, and nothing is left behind."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import hemostat


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def set_config(checkpoint, **fields):
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refused(checkpoint, *words):
    with pytest.raises(ValueError) as error:
        hemostat.Model.load(checkpoint)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_no_config(checkpoint):
    (checkpoint / "config.json").unlink()
    refused(checkpoint, "config.json", str(checkpoint))


def test_config_that_is_no_json(checkpoint):
    (checkpoint / "config.json").write_text("{")
    refused(checkpoint, "config.json", "not valid JSON")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"model_type": "mamba"}, ["model_type", "mamba", "llama, mistral", "gpt_oss"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["architectures"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish"]),
        ({"rope_scaling": {"rope_type": "proportional", "factor": 2.0}}, ["rope_scaling", "proportional"]),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.4}}, ["partial_rotary_factor"]),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, ["rope_parameters", "mrope_section"]),
        ({"pretraining_tp": 2}, ["pretraining_tp", "2"]),
        ({"rope_interleaved": True}, ["rope_interleaved"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"logit_scale": 0.5}, ["logit_scale", "0.5", "only 1"]),
        ({"some_future_field": 0.5}, ["some_future_field", "0.5", "not supported"]),
        ({"sliding_window": 8}, ["sliding_window"]),
        ({"layer_types": ["sliding_attention"] * 4}, ["layer_types"]),
        ({"hidden_size": 0}, ["hidden_size", "0"]),
        ({"hidden_size": "32"}, ["hidden_size"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads"]),
        ({"rms_norm_eps": -1}, ["rms_norm_eps"]),
        ({"vocab_size": None}, ["vocab_size", "missing"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings"]),
        ({"eos_token_id": "</s>"}, ["eos_token_id", "</s>", "token ID"]),
        ({"eos_token_id": [1, "2"]}, ["eos_token_id"]),
        ({"eos_token_id": -2}, ["eos_token_id", "-2"]),
        ({"bos_token_id": [1, 2]}, ["bos_token_id", "[1,2]", "one token ID"]),
        ({"bos_token_id": True}, ["bos_token_id", "true"]),
        ({"rope_scaling": {"rope_type": "default", "factor": 2.0}}, ["rope_scaling", "factor"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 1e4}}, ["differ"]),
        ({"use_mrope": True}, ["use_mrope", "true", "only false"]),
        ({"logits_scaling": 8}, ["logits_scaling", "8", "only 1"]),
        ({"final_logit_softcapping": 30.0}, ["final_logit_softcapping", "30"]),
        ({"query_pre_attn_scalar": 256}, ["query_pre_attn_scalar", "256"]),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantized", "gptq", "full precision"]),
        ({"use_sliding_window": True, "sliding_window": 8}, ["sliding_window", "8"]),
        ({"num_local_experts": 8}, ["num_local_experts"]),
        ({"hidden_size": 64, "head_dim": 8}, ["shape", "model.embed_tokens.weight", "[259, 32]"]),
        ({"num_hidden_layers": 5}, ["model.layers.4.", "missing"]),
        ({"num_hidden_layers": 3}, ["model.layers.3.", "no place"]),
        ({"attention_bias": True}, ["bias", "missing"]),
        ({"tie_word_embeddings": False}, ["lm_head.weight", "missing"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_fields_are_honoured_or_refused_by_name(checkpoint, fields, words):
    set_config(checkpoint, **fields)
    refused(checkpoint, *words)


@pytest.mark.parametrize(
    "fields",
    [
        {"transformers_version": "4.40.0", "use_cache": False, "initializer_range": 0.1},
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}},
        {"pretraining_tp": 1, "attention_dropout": 0.1, "pad_token_id": 0},
        {"eos_token_id": [1, 2], "bos_token_id": None},
        {"some_future_field": None},
        {"_attn_implementation_autoset": True, "use_mrope": False, "_commit_hash": "abc"},
        {"use_sliding_window": False, "sliding_window": 8, "max_window_layers": 28},
        {"sliding_window": None, "use_sliding_window": True, "layer_types": ["full_attention"] * 4},
        {"sliding_window": 64},
        {"max_window_layers": 28, "attention_chunk_size": None},
        {"rope_scaling": {"rope_type": "default", "factor": 1.0}},
        {"rope_scaling": {"type": "linear", "factor": 1.0}},
        {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_scaling": {"rope_type": "default", "original_max_position_embeddings": 64}},
        {"original_max_position_embeddings": 32},
        {"logits_scaling": 1, "logit_scale": 1.0, "embedding_multiplier": 1.0, "residual_multiplier": 1.0},
        {"attention_multiplier": 8**-0.5, "query_pre_attn_scalar": 8, "head_dim": 8},
        {"final_logit_softcapping": None, "attn_logit_softcapping": None, "quantization_config": None},
        {"qkv_bias": False, "use_qkv_bias": False, "use_qk_norm": False, "bias": False, "lm_head_bias": False},
        {"layer_norm_eps": 1e-5, "hidden_activation": "silu", "partial_rotary_factor": 1.0, "rotary_pct": 1.0},
        {"num_experts": 0, "num_experts_per_tok": 2, "output_router_logits": False, "router_aux_loss_coef": 0.001},
        {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1, "min_length": 0, "num_beams": 1},
        {"embd_pdrop": 0.1, "attn_pdrop": 0.1, "classifier_dropout": None, "hidden_dropout_prob": 0.1},
        {"torch_dtype": "auto"},
        {"torch_dtype": "float64", "dtype": None},
        {"dtype": "torch.bfloat16"},
        {"dtype": "int8"},
        {"dtype": {"": "bfloat16"}},
        {"eos_token_id": -1, "bos_token_id": -1},
        {"eos_token_id": None},
        {"eos_token_id": [], "bos_token_id": [1]},
        {"architectures": ["LlamaModel"]},
        {"architectures": None},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_change_nothing_pass(checkpoint, fields):
    before = hemostat.Model.load(checkpoint).forward(torch.arange(8))
    set_config(checkpoint, **fields)
    assert torch.equal(hemostat.Model.load(checkpoint).forward(torch.arange(8)), before)


@pytest.mark.parametrize(
    "ids, expected",
    [(5, [5]), ([5, 6], [5, 6]), (-1, []), ([-1], []), ([5, -1], [5]), (None, []), ([], [])],
    ids=str,
)
def test_tokens_that_end_a_text(checkpoint, ids, expected):
    set_config(checkpoint, eos_token_id=ids, bos_token_id=-1)
    config = hemostat.Model.load(checkpoint).config
    assert config.eos_token_ids == expected
    assert config.bos_token_id is None


def test_generation_config_comes_first(checkpoint):
    path = checkpoint / "generation_config.json"
    for ids, expected in (([3, 4], [3, 4]), (None, [258]), (7, [7])):
        path.write_text(json.dumps({"eos_token_id": ids, "temperature": 0.6}))
        assert hemostat.Model.load(checkpoint).config.eos_token_ids == expected
    path.write_text("{")
    refused(checkpoint, "generation_config.json", "not valid JSON")


@pytest.mark.parametrize("family, fields", [("mistral", {"sliding_window": 8}), ("qwen2", {"attention_bias": True})])
def test_another_family_s_windows_and_biases(checkpoint, family, fields):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    if family == "qwen2":
        for block in range(4):
            for name, size in (("q", 32), ("k", 16), ("v", 16)):
                tensors[f"model.layers.{block}.self_attn.{name}_proj.bias"] = torch.ones(size)
        save_file(tensors, path)
    set_config(checkpoint, model_type=family, architectures=None, mlp_bias=False, num_key_value_heads=2, **fields)
    assert hemostat.Model.load(checkpoint).blocks[0].attention.window == fields.get("sliding_window", 0)
    if family == "mistral":  # transformers has the window nonetheless, others don't
        set_config(checkpoint, use_sliding_window=False)
        refused(checkpoint, "use_sliding_window", "8")
        set_config(checkpoint, sliding_window=None)
        assert hemostat.Model.load(checkpoint).blocks[0].attention.window == 0


class TestDtypes:
    def stored(self, checkpoint, dtype, only=""):
        path = checkpoint / "model.safetensors"
        save_file({n: t.to(dtype) if only in n else t for n, t in load_file(path).items()}, path)

    def test_float64_asks_for_a_dtype(self, checkpoint):
        expected = hemostat.Model.load(checkpoint).forward([1, 2, 3])
        self.stored(checkpoint, torch.float64)
        set_config(checkpoint, dtype="float64")
        refused(checkpoint, "float64", "give dtype float32")
        model = hemostat.Model.load(checkpoint, dtype=torch.float32)
        assert torch.equal(model.forward([1, 2, 3]), expected)

    def test_several_are_given_the_config_s(self, checkpoint):
        self.stored(checkpoint, torch.bfloat16, only="mlp")
        for name, dtype in (("torch.bfloat16", torch.bfloat16), ("half", torch.float16), ("float32", torch.float32)):
            set_config(checkpoint, dtype=name)
            assert hemostat.Model.load(checkpoint).dtype == dtype
        set_config(checkpoint, dtype="auto")
        refused(checkpoint, "bfloat16", "float32", "give dtype")
        assert hemostat.Model.load(checkpoint, dtype=torch.float16).dtype == torch.float16

    @pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
    def test_quantized_weights_are_named(self, checkpoint, dtype):
        self.stored(checkpoint, dtype, only="down_proj")
        refused(checkpoint, "model.layers.0.mlp.down_proj.weight", "quantized", "full precision")


class TestNames:
    """Weights saved through wrappers, or without what transformers' own class adds."""

    def renamed(self, checkpoint, change):
        path = checkpoint / "model.safetensors"
        save_file({change(name): tensor for name, tensor in load_file(path).items()}, path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda name: "_orig_mod." + name,
            lambda name: "module." + name,
            lambda name: "model." + name,
            lambda name: "module._orig_mod." + name,
            lambda name: "_orig_mod.module." + name,
            lambda name: name.removeprefix("model."),
            lambda name: "module." + name.removeprefix("model."),
            lambda name: name.replace("model.", "model._orig_mod.", 1),
            lambda name: name.replace("layers.2.", "layers.2._checkpoint_wrapped_module."),
            lambda name: "_fsdp_wrapped_module." + name.replace("layers.", "layers._fsdp_wrapped_module."),
        ],
    )
    def test_are_the_family_s_own(self, checkpoint, change):
        expected = hemostat.Model.load(checkpoint).forward([1, 2, 3])
        self.renamed(checkpoint, change)
        model = hemostat.Model.load(checkpoint)
        assert torch.equal(model.forward([1, 2, 3]), expected)
        model.save(checkpoint.parent / "saved")
        assert "model.norm.weight" in load_file(checkpoint.parent / "saved" / "model.safetensors")

    def test_of_a_model_without_its_head(self, checkpoint):
        self.renamed(checkpoint, lambda name: name.removeprefix("model."))
        set_config(checkpoint, tie_word_embeddings=False, architectures=["LlamaModel"])
        refused(checkpoint, "lm_head.weight", "missing", "without its head", "AutoModelForCausalLM")

    def test_a_head_keeps_its_name(self, checkpoint):
        path = checkpoint / "model.safetensors"
        tensors = load_file(path)
        head = tensors["model.embed_tokens.weight"] + 1
        save_file({n.removeprefix("model."): t for n, t in tensors.items()} | {"lm_head.weight": head}, path)
        set_config(checkpoint, tie_word_embeddings=False)
        assert torch.equal(hemostat.Model.load(checkpoint).head.linear.weight, head)

    @pytest.mark.parametrize(
        "change, words",
        [
            (lambda name: "wrapped." + name, ["'wrapped.model.", "missing", "37 more", "there are 38 tensors"]),
            (lambda name: ("module." if "layers.0" in name else "") + name, ["missing"]),
            (lambda name: ("module." if "layers.0" not in name else "") + name, ["missing"]),
            (lambda name: name.replace("model.embed_tokens", "tok_embeddings").replace("model.", "x."), ["Meta's own"]),
            (lambda name: "base_model.model." + name.replace(".weight", ".lora_A.weight"), ["adapter", "merge"]),
            (lambda name: "x." + name.replace(".weight", ".qweight"), ["quantized"]),
        ],
    )
    def test_that_are_no_such_model_s_say_what_is_there(self, checkpoint, change, words):
        self.renamed(checkpoint, change)
        refused(checkpoint, *words)

    def test_twice_is_once_too_often(self, checkpoint):
        path = checkpoint / "model.safetensors"
        tensors = load_file(path)
        save_file(tensors | {"_orig_mod." + name: tensor.clone() for name, tensor in tensors.items()}, path)
        refused(checkpoint, "twice")


class TestAdapters:
    config = {"base_model_name_or_path": "some/base", "peft_type": "LORA", "r": 8}

    def test_beside_a_model_is_refused(self, checkpoint):
        (checkpoint / "adapter_config.json").write_text(json.dumps(self.config))
        refused(checkpoint, "adapter of 'some/base'", "transformers would apply", "merge_and_unload", "move")

    def test_alone_names_its_base(self, tmp_path):
        (tmp_path / "adapter_config.json").write_text(json.dumps(self.config))
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
        refused(tmp_path, "adapter of 'some/base'", "no model", "merge_and_unload")
        (tmp_path / "adapter_config.json").write_text("{}")
        refused(tmp_path, "holds an adapter (adapter_config.json)")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_git_lfs_pointers(checkpoint, name):
    (checkpoint / name).write_bytes(POINTER)
    refused(checkpoint, f"{checkpoint / name} is a git-lfs pointer", "git lfs pull")


def test_git_lfs_pointers_elsewhere(checkpoint, tmp_path):
    (tmp_path / "model.gguf").write_bytes(POINTER)
    refused(tmp_path / "model.gguf", "model.gguf is a git-lfs pointer")
    (checkpoint / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises(ValueError, match="tokenizer.json is a git-lfs pointer.*git lfs pull"):
        _ = hemostat.Model.load(checkpoint).tokenizer


@pytest.mark.parametrize(
    "name, words",
    [
        (None, ["neither model.safetensors"]),
        ("pytorch_model.bin", ["pytorch_model.bin", "save_pretrained"]),
        ("pytorch_model-00001-of-00002.bin", ["pytorch_model-00001", "save_pretrained"]),
        ("consolidated.00.pth", ["consolidated.00.pth", "Meta", "convert_llama_weights_to_hf"]),
        ("consolidated.safetensors", ["consolidated.safetensors", "Mistral"]),
        ("flax_model.msgpack", ["flax_model.msgpack", "Flax"]),
        ("tf_model.h5", ["tf_model.h5", "TensorFlow"]),
        ("model-00001-of-00002.safetensors", ["model-00001-of-00002.safetensors", "index.json", "missing"]),
        ("model.fp16.safetensors", ["model.fp16.safetensors", "rename"]),
        ("Model.safetensors", ["Model.safetensors", "rename that to model.safetensors"]),
        ("model-Q4_K_M.gguf", ["model-Q4_K_M.gguf", "path of that file"]),
        ("model.safetensors.incomplete", ["incomplete", "download"]),
    ],
)
def test_weights_of_another_kind_are_named(checkpoint, name, words):
    (checkpoint / "model.safetensors").unlink()
    if name is not None:
        (checkpoint / name).write_bytes(b"x")
    refused(checkpoint, str(checkpoint), *words)


def test_directories_without_a_config(tmp_path):
    refused(tmp_path, "has no config.json", "it is empty")
    (tmp_path / "model.gguf").write_bytes(b"x")
    refused(tmp_path, "has no config.json", "model.gguf", "path of that file")
    (tmp_path / "Config.json").write_text("{}")
    refused(tmp_path, "Config.json", "rename that to config.json")


def test_a_name_of_any_bytes(checkpoint):
    path = os.path.join(os.fsencode(checkpoint.parent), b"ch\xff k \xc3\xa9")
    os.rename(checkpoint, path)
    name = os.fsdecode(path)
    model = hemostat.Model.load(name)
    assert model.source == name
    assert "ch\ufffd k é" in repr(model)
    assert len(hemostat.data.tokens(model, text="x" * 64)) == 1
    assert pickle.loads(pickle.dumps(model)).source == name
    with pytest.raises(ValueError, match="no config.json"):
        hemostat.Model.load(os.path.dirname(name))


@pytest.mark.parametrize("given", [None, 5, ["a", "b"], b"bytes", {"a": 1}, torch.zeros(2)], ids=repr)
def test_a_checkpoint_of_another_type(given):
    with pytest.raises(
        TypeError, match="hemostat.Model.load: checkpoint is a .*, but must be a path or an id"
    ) as error:
        hemostat.Model.load(given)
    assert "\n" not in str(error.value)


def test_tokens_in_other_forms(tiny_model, tiny_tokens):
    expected = tiny_model(tiny_tokens)
    assert torch.equal(tiny_model(tiny_tokens.cpu().numpy()), expected)
    assert torch.equal(tiny_model(tiny_tokens.cpu().numpy().astype("uint16")), expected)
    assert torch.equal(tiny_model(tiny_tokens.tolist()), expected)
    assert torch.equal(tiny_model.forward(tuple(tiny_tokens[0].tolist())), tiny_model(tiny_tokens[0]))
    for given in ("text", None, 5, [[1, 2], [3]], ["a"], {"input_ids": [1]}):
        with pytest.raises(
            TypeError, match=r"hemostat.Model.forward: tokens is a .*must be integers \[B, T\]"
        ) as error:
            tiny_model(given)
        assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="tokens"):
        tiny_model([0.5, 1.5])


def test_no_tensors(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    refused(checkpoint, "model.safetensors")


def test_truncated(checkpoint):
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    for size in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        refused(checkpoint, "model.safetensors")


def rewritten(checkpoint, change):
    """Writes the file again with its header changed."""
    path = checkpoint / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = change(json.loads(data[8 : 8 + length]))
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


NORM = "model.norm.weight"


def with_norm(**fields):
    return lambda header: header | {NORM: header[NORM] | fields}


@pytest.mark.parametrize(
    "change, words",
    [
        (with_norm(data_offsets=[0, 1 << 40]), [NORM, "bytes"]),
        (with_norm(data_offsets=[8, 4]), [NORM]),
        (with_norm(data_offsets=[-4, 124]), [NORM, "data_offsets"]),
        (with_norm(data_offsets=[0]), [NORM]),
        (with_norm(data_offsets=[0, 128]), ["overlapping"]),
        (with_norm(dtype="F64"), [NORM, "bytes"]),
        (with_norm(dtype="Q4"), [NORM, "Q4"]),
        (with_norm(shape=[1 << 62, 1 << 62]), [NORM, "overflow"]),
        (with_norm(shape=[-1]), [NORM, "shape"]),
        (with_norm(shape="32"), [NORM]),
        (lambda header: {k: v for k, v in header.items() if k != NORM}, ["bytes after its last tensor"]),
        (lambda header: [], ["JSON object"]),
        (lambda header: b"{" + json.dumps(NORM).encode() + b":1," + json.dumps(NORM).encode() + b":1}", ["twice"]),
        (lambda header: b"\xff\xfe", ["JSON"]),
    ],
)
def test_headers_that_lie(checkpoint, change, words):
    rewritten(checkpoint, change)
    refused(checkpoint, "model.safetensors", *words)


def test_weights_that_are_integers(checkpoint):
    rewritten(checkpoint, with_norm(dtype="I32"))
    refused(checkpoint, NORM, "Int")


def test_header_of_a_gigabyte(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 30) + path.read_bytes()[8:])
    refused(checkpoint, "model.safetensors", str(1 << 30))


def test_trailing_bytes(checkpoint):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0" * 4)
    refused(checkpoint, "model.safetensors", "after its last tensor")


def test_misaligned_tensors_load(checkpoint):
    tokens = torch.arange(8)
    expected = hemostat.Model.load(checkpoint).forward(tokens)
    rewritten(checkpoint, lambda header: json.dumps(header).encode().ljust(len(json.dumps(header)) + 1))
    rewritten(checkpoint, lambda header: (text := json.dumps(header).encode()) + b" " * ((1 - len(text)) % 8))
    assert torch.equal(hemostat.Model.load(checkpoint).forward(tokens), expected)


@pytest.mark.parametrize(
    "index, words",
    [
        ("{", ["model.safetensors.index.json", "not valid JSON"]),
        ({"weight_map": {"a": "../b.safetensors"}}, ["not a file name"]),
        ({"weight_map": {"a": "none.safetensors"}}, ["1 shards", "none.safetensors is missing", "fetch"]),
        ({"weight_map": {"a": "shard.safetensors"}}, ["'a'", "shard.safetensors"]),
    ],
)
def test_index(checkpoint, index, words):
    (checkpoint / "model.safetensors").rename(checkpoint / "shard.safetensors")
    text = index if isinstance(index, str) else json.dumps(index)
    (checkpoint / "model.safetensors.index.json").write_text(text)
    refused(checkpoint, *words)


def test_head_that_contradicts_its_tie(checkpoint):
    path = checkpoint / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, path)
    assert hemostat.Model.load(checkpoint).tied
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}, path)
    refused(checkpoint, "lm_head.weight", "tie_word_embeddings")


def test_loading_writes_nothing(checkpoint):
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    model = hemostat.Model.load(checkpoint)
    model.blocks[0].attention.q.weight.zero_()  # private to this process
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before
    assert not torch.equal(hemostat.Model.load(checkpoint).blocks[0].attention.q.weight, torch.zeros(32, 32))


def test_save_refuses_what_is_no_checkpoint(tiny_model, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="not a checkpoint"):
        tiny_model.save(tmp_path / "notes")
    (tmp_path / "file").write_text("keep")
    with pytest.raises(ValueError, match="not a directory"):
        tiny_model.save(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "notes"]
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_save_replaces_the_checkpoint_it_came_from(checkpoint):
    model = hemostat.Model.load(checkpoint)
    tokens = torch.arange(8)
    damaged = hemostat.prepare(model, "rtn").at(3)
    expected, before = damaged.forward(tokens), model.forward(tokens)
    damaged.save(checkpoint)
    assert torch.equal(hemostat.Model.load(checkpoint).forward(tokens), expected)
    assert torch.equal(model.forward(tokens), before)  # its mapped file lives on
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize(
    "method, severity",
    [("svd", 0.5), ("activation", 4), ("drop_norms", 1 / 9), ("token_noise", 0.3), ("temperature", 2.0)],
)
def test_what_a_config_cannot_express_comes_back(tiny_model, method, severity, tmp_path):
    tokens = torch.arange(16)
    damaged = hemostat.prepare(tiny_model, method).at(severity)
    with pytest.warns(UserWarning, match=r"hemostat\.json"):
        damaged.save(tmp_path / "saved")
    again = hemostat.Model.load(tmp_path / "saved")
    assert torch.equal(again.forward(tokens), damaged.forward(tokens))
    assert again.decoder.temperature == damaged.decoder.temperature
    transformers = pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="hemostat"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
