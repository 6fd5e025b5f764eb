"""Models cross processes and copies whole; what cannot be pickled says so in a sentence."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
import torch

import hemostat
from hemostat import _C, quantize


def damage(name):
    return lambda model, statistics: hemostat.prepare(model, name, statistics).at(0.5)


CHANGES = {
    "nothing": lambda model, statistics: model,
    "pruned": damage("magnitude"),
    "factored": damage("svd"),
    "fewer blocks": damage("drop_layers"),
    "more blocks": lambda model, statistics: hemostat.prepare(model, "duplicate_layers").at(0.5),
    "rounded to groups": lambda model, statistics: hemostat.prepare(model, "rtn").at(3),
    "rounded to blocks": lambda model, statistics: hemostat.prepare(model, "nf4", block_size=16).at(4),
    "rounded, the head too": lambda model, statistics: hemostat.prepare(model, "rtn", include="*").at(3),
    "rounded differently": lambda model, statistics: hemostat.prepare(
        hemostat.prepare(model, "rtn", include="*.mlp.*").at(3), "rtn", include="*.self_attn.*"
    ).at(5),
    "rounded, then fewer blocks": lambda model, statistics: hemostat.prepare(
        hemostat.prepare(model, "rtn", include="*.layers.3.*").at(3), "drop_layers"
    ).at(0.25),
    "packed": lambda model, statistics: hemostat.prepare(model, "gguf", include="*.self_attn.*").at(4.5),
    "packed, the head too": lambda model, statistics: hemostat.prepare(model, "gguf", include="lm_head").at(4.5),
    "treated inputs": lambda model, statistics: hemostat.prepare(model, "activation").at(4),
    "noisy tokens": lambda model, statistics: hemostat.prepare(model, "token_noise").at(0.3),
    "other decoding": lambda model, statistics: hemostat.prepare(model, "temperature").at(2.0),
    "another dtype": lambda model, statistics: model.to(torch.bfloat16),
}


def same(first: hemostat.Model, second: hemostat.Model, tokens: torch.Tensor) -> bool:
    facts = [
        (m.bytes, m.dtype, m.tied, m.source, m.config.json, m.config.eos_token_ids, m.config.bos_token_id)
        + (m.decoder.temperature, [block.origin for block in m.blocks], m.linears().names, _C.structure(m))
        for m in (first, second)
    ]
    return facts[0] == facts[1] and torch.equal(first.forward(tokens), second.forward(tokens))


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_comes_back_as_it_was(name, tiny_model, statistics, tiny_tokens):
    model = CHANGES[name](tiny_model, statistics)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert same(model, again, tiny_tokens)
    assert copy.copy(model).embedding.data_ptr() == model.embedding.data_ptr()
    assert copy.deepcopy(model).embedding.data_ptr() != model.embedding.data_ptr()


def test_torch_saves_it(tiny_model, tiny_tokens, tmp_path):
    rounded = hemostat.prepare(tiny_model, "rtn").at(3)
    torch.save({"whole": tiny_model, "rounded": rounded}, tmp_path / "models.pt")
    loaded = torch.load(tmp_path / "models.pt", weights_only=False)
    assert same(tiny_model, loaded["whole"], tiny_tokens)
    assert same(rounded, loaded["rounded"], tiny_tokens)
    assert loaded["rounded"].bytes < tiny_model.bytes


def test_packed_weights_stay_packed(trained):
    packed = hemostat.prepare(trained.model, "gguf").at(4.5)
    data = pickle.dumps(packed)
    again = pickle.loads(data)
    assert len(data) < 1.02 * packed.bytes < trained.model.bytes / 2
    assert type(again.blocks[0].mlp.up.packed) is quantize.GgufPacked
    assert same(packed, again, trained.tokens[:1, :32])


def test_a_gguf_file_comes_back(tiny_model, tiny_tokens, tmp_path):
    hemostat.prepare(tiny_model, "gguf", include="*.self_attn.*").at(4.5).save(tmp_path / "tiny.gguf")
    model = hemostat.Model.load(tmp_path / "tiny.gguf")
    assert same(model, pickle.loads(pickle.dumps(model)), tiny_tokens.cpu())


def test_weights_with_gradients_do(tiny_model, tiny_tokens):
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in tiny_model.tensors().items()}
    made = hemostat.Model.from_tensors(tiny_model.config.json, leaves)
    for model in (made, made.to(torch.bfloat16)):  # leaves, and results of autograd
        for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert same(model, again, tiny_tokens)
            assert again.embedding.requires_grad and again.embedding.is_leaf


def test_another_process_has_it(tiny_model, tiny_tokens):
    tokens = tiny_tokens.cpu()
    models = [
        tiny_model.to(device="cpu"),
        hemostat.prepare(tiny_model, "gguf", include="*.self_attn.*").at(4.5).to(device="cpu"),
    ]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for model in models:
            torch.testing.assert_close(pool.apply(model.forward, (tokens,)), model.forward(tokens))
            assert same(model, pool.apply(copy.copy, (model,)), tokens)  # there and back


@pytest.mark.parametrize(
    "packed",
    [
        lambda w: quantize.rtn(w, bits=4, group_size=16, packed=True),
        lambda w: quantize.gptq(w, (w.T @ w) / 8, bits=4, group_size=16, act_order=True, packed=True),
        lambda w: quantize.awq(w, torch.rand(64) + 0.1, (w.T @ w) / 8, bits=4, group_size=16, packed=True),
        lambda w: quantize.gguf(w, type="Q8_0", packed=True),
        lambda w: quantize.nf4(w, packed=True),
        lambda w: quantize.nvfp4(w, packed=True),
        lambda w: quantize.fp4(w, packed=True),
        lambda w: quantize.mxfp4(w, packed=True),
        lambda w: quantize.fp8(w, packed=True),
        lambda w: quantize.fp8(w, format="e5m2", packed=True),
        lambda w: quantize.ternary(w, packed=True),
    ],
)
def test_packed_weights(packed):
    weight = packed(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)))
    for again in (pickle.loads(pickle.dumps(weight)), copy.deepcopy(weight), copy.copy(weight)):
        assert type(again) is type(weight)
        assert again.bits_per_weight == weight.bits_per_weight
        assert torch.equal(again.dequantize(), weight.dequantize())


def test_a_damage_and_an_axis_do(tiny_model, damaged, tiny_tokens):
    found = hemostat.compare(tiny_model, damaged, tiny_tokens)
    assert pickle.loads(pickle.dumps(found)).to_dict() == found.to_dict()
    assert pickle.loads(pickle.dumps(hemostat.methods()[0].axis)).name == hemostat.methods()[0].axis.name


def test_what_does_not_says_so(tiny_model, statistics):
    objects = [
        (hemostat.KvCache(tiny_model), "KvCache"),
        (tiny_model.linears(), "Linears.*pickle the model"),
        (hemostat.prepare(tiny_model, "magnitude"), "Prepared.*prepare again"),
        (statistics, "Statistics.*collect again"),
        (hemostat.methods()[0], "Method"),
        (tiny_model.blocks[0], "Block"),
    ]
    for thing, message in objects:
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"hemostat.{message}.*|hemostat.{message}"):
                attempt(thing)
