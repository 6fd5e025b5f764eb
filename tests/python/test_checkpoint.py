"""Checkpoints that are broken, or that ask for what isn't supported: refused by name, and nothing is left behind."""

from __future__ import annotations

import json
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
        ({"model_type": "mamba"}, ["model_type", "mamba", "llama, mistral, qwen2"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["architectures"]),
        ({"hidden_act": "mish"}, ["hidden_act", "mish"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["rope_scaling", "yarn"]),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, ["partial_rotary_factor"]),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [1]}}, ["rope_parameters", "mrope_section"]),
        ({"pretraining_tp": 2}, ["pretraining_tp", "2"]),
        ({"rope_interleaved": True}, ["rope_interleaved"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"logit_scale": 0.5}, ["logit_scale", "not supported"]),
        ({"sliding_window": 8}, ["sliding_window"]),
        ({"layer_types": ["sliding_attention"] * 4}, ["layer_types"]),
        ({"hidden_size": 0}, ["hidden_size", "0"]),
        ({"hidden_size": "32"}, ["hidden_size"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads"]),
        ({"rms_norm_eps": -1}, ["rms_norm_eps"]),
        ({"vocab_size": None}, ["vocab_size", "missing"]),
        ({"dtype": "int8"}, ["dtype", "int8"]),
        ({"tie_word_embeddings": "yes"}, ["tie_word_embeddings"]),
        ({"eos_token_id": "</s>"}, ["eos_token_id"]),
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
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_change_nothing_pass(checkpoint, fields):
    before = hemostat.Model.load(checkpoint).forward(torch.arange(8))
    set_config(checkpoint, **fields)
    assert torch.equal(hemostat.Model.load(checkpoint).forward(torch.arange(8)), before)


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
        ({"weight_map": {"a": "none.safetensors"}}, ["none.safetensors"]),
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
