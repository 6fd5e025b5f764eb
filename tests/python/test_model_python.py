"""A model in Python: its parts, files, the Hub, the observer, and the rooms that change it as a whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import hemostat

# --- the model ---


def test_model_describes_itself(tiny_model, tiny_checkpoint, device):
    assert tiny_model.config.family == "llama"
    assert (tiny_model.config.vocab_size, tiny_model.config.hidden_size, tiny_model.config.context) == (259, 32, 64)
    assert tiny_model.config.eos_token_ids == [258]
    assert tiny_model.config.bos_token_id == 257
    assert json.loads(tiny_model.config.json)["model_type"] == "llama"
    assert tiny_model.dtype == torch.float32
    assert tiny_model.device.type == device.type
    assert tiny_model.source == str(tiny_checkpoint)
    assert tiny_model.tied
    assert len(tiny_model.blocks) == 4
    expected = sum(tensor.numel() for tensor in tiny_model.tensors().values())
    assert tiny_model.parameters == expected
    assert tiny_model.bytes == 4 * expected
    assert "llama" in repr(tiny_model) and "4 blocks" in repr(tiny_model)


def test_blocks_lead_down_to_tensors(tiny_model):
    block = tiny_model.blocks[2]
    assert block.origin == 2
    assert block.placement == "pre"
    assert block.attention_norm.kind == "rms"
    assert (block.attention.heads, block.attention.kv_heads, block.attention.head_dim) == (4, 2, 8)
    assert block.mlp.activation == "silu"
    weight = block.attention.q.weight
    assert weight.shape == (32, 32)
    assert weight.data_ptr() == tiny_model.linears()["model.layers.2.self_attn.q_proj"].data_ptr()
    assert block.attention.q.bias is None
    assert block.attention.q.a is None and not block.attention.q.factored
    assert block.attention.q.packed is None
    assert block.attention.q.input.neutral
    assert tiny_model.input.kind == "none"
    assert tiny_model.decoder.temperature == 1


def test_parts_outlive_the_model(tiny_checkpoint):
    block = hemostat.Model.load(tiny_checkpoint).blocks[1]
    assert block.mlp.down.dense().shape == (32, 48)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (lambda model: model, "embedding"),
        (lambda model: model, "anything"),
        (lambda model: model.blocks[0], "origin"),
        (lambda model: model.blocks[0].attention.q, "weight"),
        (lambda model: model.config, "vocab_size"),
        (lambda model: model.decoder, "temperature"),
    ],
)
def test_model_is_immutable(tiny_model, part, name):
    with pytest.raises(AttributeError):
        setattr(part(tiny_model), name, 1)


def test_linears_are_pairs_of_name_and_weight(tiny_model):
    linears = tiny_model.linears()
    assert len(linears) == 4 * 7
    assert [name for name, _ in linears] == linears.names
    assert dict(linears).keys() == set(linears.names)
    name, weight = linears[-1]
    assert name == "model.layers.3.mlp.down_proj"
    assert torch.equal(weight, linears[name])
    assert name in linears and "lm_head" not in linears
    with pytest.raises(IndexError):
        linears[28]
    with pytest.raises(KeyError, match="absent"):
        linears["absent"]


def test_linears_are_chosen_by_patterns(tiny_model):
    assert len(tiny_model.linears(include="*.mlp.*")) == 12
    assert len(tiny_model.linears(include=["*.mlp.*", "*.q_proj"], exclude="*.layers.0.*")) == 12
    assert tiny_model.linears(include="lm_head").names == ["lm_head"]


def test_replace_gives_another_model(tiny_model, tiny_tokens):
    name = "model.layers.1.mlp.up_proj"
    before = tiny_model.forward(tiny_tokens)
    other = tiny_model.replace({name: torch.zeros_like(tiny_model.linears()[name])})
    assert not torch.equal(other.forward(tiny_tokens), before)
    assert torch.equal(tiny_model.forward(tiny_tokens), before)
    assert other.blocks[0].mlp.up.weight.data_ptr() == tiny_model.blocks[0].mlp.up.weight.data_ptr()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({"model.layers.9.mlp.up_proj": torch.zeros(48, 32)}, ValueError, "model.layers.9.mlp.up_proj"),
        ({"model.layers.1.mlp.up_proj": torch.zeros(32, 48)}, ValueError, "model.layers.1.mlp.up_proj"),
        ({"model.layers.1.mlp.up_proj": torch.zeros(48, 32, dtype=torch.int64)}, TypeError, "up_proj"),
    ],
)
def test_replace_refuses(tiny_model, weights, error, message):
    with pytest.raises(error, match=message):
        tiny_model.replace({name: weight.to(tiny_model.device) for name, weight in weights.items()})


def test_call_is_forward(tiny_model, tiny_tokens):
    logits = tiny_model(tiny_tokens)
    assert logits.shape == (10, 32, 259)
    assert torch.equal(logits, tiny_model.forward(tiny_tokens))


def test_cache_continues(tiny_model, tiny_tokens):
    whole = tiny_model.forward(tiny_tokens)
    cache = hemostat.KvCache(tiny_model, batch=10)
    parts = [tiny_model.forward(part, cache=cache) for part in tiny_tokens.split([5, 1, 26], dim=1)]
    assert cache.length == len(cache) == 32
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def test_autograd_works_through_forward(tiny_model, tiny_tokens):
    name = "model.layers.0.self_attn.v_proj"
    weight = tiny_model.linears()[name].clone().requires_grad_()
    tiny_model.replace({name: weight}).forward(tiny_tokens).logsumexp(-1).sum().backward()
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        (torch.tensor([[1, 259]]), ValueError),
        (torch.tensor([[-1]]), ValueError),
        (torch.zeros(1, 1, 1, dtype=torch.int64), ValueError),
        (torch.zeros(1, 4), TypeError),
    ],
)
def test_forward_refuses(tiny_model, tokens, error):
    with pytest.raises(error) as caught:
        tiny_model.forward(tokens.to(tiny_model.device))
    assert "hemostat" in str(caught.value)
    assert "frame #" not in str(caught.value) and "Exception raised from" not in str(caught.value)


def test_messages_end_before_any_backtrace(tiny_model):
    with pytest.raises(RuntimeError, match="SparseCPU") as caught:  # what torch itself refuses
        tiny_model.forward(torch.tensor([[1]]).to_sparse())
    assert "frame #" not in str(caught.value) and "Exception raised from" not in str(caught.value)


def test_to_another_dtype(tiny_model):
    half = tiny_model.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.blocks[0].mlp.up.weight.dtype == torch.bfloat16
    assert tiny_model.dtype == torch.float32
    assert tiny_model.to(device=tiny_model.device).embedding.data_ptr() == tiny_model.embedding.data_ptr()


def test_load_takes_dtype_device_and_paths(tiny_checkpoint):
    model = hemostat.Model.load(str(tiny_checkpoint), dtype=torch.float16, device=torch.device("cpu"))
    assert model.dtype == torch.float16
    with pytest.raises(TypeError):
        hemostat.Model.load(tiny_checkpoint, dtype="float16")


def test_save_and_load(tiny_model, damaged, tiny_tokens, tmp_path):
    damaged.save(tmp_path / "damaged")
    again = hemostat.Model.load(tmp_path / "damaged", device=str(tiny_model.device))
    torch.testing.assert_close(again.forward(tiny_tokens), damaged.forward(tiny_tokens))
    assert again.tokenizer.encode("a").ids == tiny_model.tokenizer.encode("a").ids


def test_save_warns_of_what_a_config_cannot_express(tiny_model, tiny_tokens, tmp_path):
    factored = hemostat.prepare(tiny_model, "svd").at(0.5)
    with pytest.warns(UserWarning, match="transformers does not"):
        factored.save(tmp_path / "factored")
    again = hemostat.Model.load(tmp_path / "factored", device=str(tiny_model.device))
    assert again.blocks[0].attention.q.factored
    torch.testing.assert_close(again.forward(tiny_tokens), factored.forward(tiny_tokens))


def test_tokenizer_is_loaded_once(tiny_model):
    assert tiny_model.tokenizer.encode("ab").ids == tiny_model.tokenizer.encode("ab").ids
    assert tiny_model.tokenizer is tiny_model.tokenizer


def test_tokenizer_of_a_model_without_a_directory(tiny_model):
    model = hemostat.Model.from_tensors(tiny_model.config.json, tiny_model.tensors())
    with pytest.raises(ValueError, match="not loaded from a directory"):
        _ = model.tokenizer


def test_from_tensors_shares(tiny_model, tiny_tokens):
    tensors = tiny_model.tensors()
    model = hemostat.Model.from_tensors(json.loads(tiny_model.config.json), tensors)
    assert model.embedding.data_ptr() == tensors["model.embed_tokens.weight"].data_ptr()
    assert torch.equal(model.forward(tiny_tokens), tiny_model.forward(tiny_tokens))


# --- the Hub ---


@pytest.fixture
def hub(monkeypatch):
    """Records what would be asked of the Hub; `answers` are what each call gives or raises."""
    import huggingface_hub

    class Hub:
        calls: list[dict] = []
        answers: list = []

        def __call__(self, identifier, **options):
            self.calls.append({"id": identifier, **options})
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

    hub = Hub()
    hub.calls, hub.answers = [], []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def test_cached_checkpoint_is_not_downloaded(hub, tiny_checkpoint):
    hub.answers = [tiny_checkpoint]
    assert len(hemostat.Model.load("somebody/tiny").blocks) == 4
    (call,) = hub.calls
    assert call["id"] == "somebody/tiny" and call["local_files_only"]


def test_checkpoint_that_is_not_cached_is_downloaded(hub, tiny_checkpoint, tmp_path):
    (tmp_path / "config.json").write_text("{}")  # a cache that holds no weights
    hub.answers = [tmp_path, tiny_checkpoint]
    assert len(hemostat.Model.load("somebody/tiny").blocks) == 4
    assert [call.get("local_files_only", False) for call in hub.calls] == [True, False]
    assert not any(pattern.endswith((".bin", ".pt", ".gguf")) for pattern in hub.calls[1]["allow_patterns"])


def test_path_objects_are_never_asked_of_the_hub(hub):
    with pytest.raises(ValueError, match="absent"):
        hemostat.Model.load(Path("absent"))
    assert hub.calls == []


def partial(tiny_checkpoint, directory, *missing):
    shutil.copytree(tiny_checkpoint, directory, dirs_exist_ok=True)
    for name in missing:
        (directory / name).unlink()
    return directory


def test_the_hub_is_asked_for_a_tokenizer_that_is_not_cached(hub, tiny_checkpoint, tmp_path):
    hub.answers = [partial(tiny_checkpoint, tmp_path, "tokenizer.json"), tiny_checkpoint]
    assert hemostat.Model.load("somebody/tiny").tokenizer is not None
    assert [call.get("local_files_only", False) for call in hub.calls] == [True, False]


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_what_the_cache_lacks_is_named(hub, tiny_checkpoint, tmp_path, missing):
    hub.answers = [partial(tiny_checkpoint, tmp_path, missing), ConnectionError("offline")]
    with pytest.raises(
        ValueError, match=f"'somebody/tiny': its cached copy has no {missing}.*hf download somebody/tiny"
    ):
        hemostat.Model.load("somebody/tiny")


def test_without_a_tokenizer_the_weights_load_and_a_warning_says_what_is_missing(hub, tiny_checkpoint, tmp_path):
    snapshot = tmp_path / "models--somebody--tiny" / "snapshots" / "0123"
    hub.answers = [partial(tiny_checkpoint, snapshot, "tokenizer.json"), ConnectionError("offline")]
    with pytest.warns(UserWarning, match="has no tokenizer.json, and the Hub cannot be reached .*hf download"):
        model = hemostat.Model.load("somebody/tiny")
    with pytest.raises(ValueError, match="has no tokenizer.json; fetch it: hf download somebody/tiny tokenizer.json"):
        hemostat.data.tokens(model, text="x" * 99)


def test_other_revisions_in_the_cache_are_named(hub, tiny_checkpoint, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    partial(tiny_checkpoint, tmp_path / "models--somebody--tiny" / "snapshots" / "0123")
    hub.answers = [FileNotFoundError("no refs/main"), ConnectionError("offline")]
    with pytest.raises(ValueError, match="other revisions of it, as directories: .*/snapshots/0123"):
        hemostat.Model.load("somebody/tiny")


@pytest.mark.parametrize("kind", ["vocab.json", "tokenizer.model"])
def test_an_older_tokenizer_is_made_new_or_named(tiny_checkpoint, tmp_path, kind):
    directory = partial(tiny_checkpoint, tmp_path / "older", "tokenizer.json")
    if kind == "vocab.json":
        pytest.importorskip("transformers")
        whole = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
        (directory / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
        (directory / "merges.txt").write_text("#version: 0.2\n")
        (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
        found = hemostat.Model.load(directory).tokenizer
        expected = hemostat.Model.load(tiny_checkpoint).tokenizer
        assert found.encode("abc ü").ids == expected.encode("abc ü").ids
    else:
        (directory / "tokenizer.model").write_bytes(b"\x0a\x0enonsense")
        with pytest.raises(ValueError, match=r"has no tokenizer.json, but tokenizer.model.*pip install|AutoTokenizer"):
            _ = hemostat.Model.load(directory).tokenizer


def test_unreachable_hub_is_said_so(hub):
    hub.answers = [FileNotFoundError("not cached"), ConnectionError("no route to host\nmore")]
    with pytest.raises(ValueError, match=r"'somebody/tiny' is neither a directory nor .*no route to host\)$"):
        hemostat.Model.load("somebody/tiny")


@pytest.mark.parametrize(
    "path", ["./absent", "../absent", "/absent", "~/absent-checkpoint", "a/b/c", "model.safetensors", "", "a b"]
)
def test_paths_are_never_asked_of_the_hub(hub, path):
    with pytest.raises(ValueError, match=r"hemostat\.Model\.load"):
        hemostat.Model.load(path)
    assert hub.calls == []


# --- the observer ---


class Recorder(hemostat.Observer):
    def __init__(self):
        super().__init__()
        self.seen = []

    def linear_input(self, block, names, x):
        self.seen.append(("linear_input", block, tuple(names), x.shape))

    def hidden_state(self, index, x):
        self.seen.append(("hidden_state", index, x.shape))

    def attention(self, block, probabilities):
        self.seen.append(("attention", block, probabilities.clone()))


def test_observer_sees_inputs_and_hidden_states(tiny_model, tiny_tokens):
    recorder = Recorder()
    logits = tiny_model.forward(tiny_tokens, observer=recorder)
    assert torch.equal(logits, tiny_model.forward(tiny_tokens))
    assert [entry[1] for entry in recorder.seen if entry[0] == "hidden_state"] == [0, 1, 2, 3, 4]
    inputs = [entry for entry in recorder.seen if entry[0] == "linear_input"]
    assert sorted(name for entry in inputs for name in entry[2]) == sorted(tiny_model.linears().names)
    assert all(entry[3][-1] == tiny_model.linears()[entry[2][0]].shape[1] for entry in inputs)
    assert not [entry for entry in recorder.seen if entry[0] == "attention"]


class ByAttribute(Recorder):
    wants_attention = True


class ByProperty(Recorder):
    @property
    def wants_attention(self):
        return True


class ByMethod(Recorder):
    def wants_attention(self):
        return True


@pytest.mark.parametrize("kind", [ByAttribute, ByProperty, ByMethod])
def test_observer_sees_attention_where_it_wants_to(tiny_model, tiny_tokens, kind):
    recorder = kind()
    tiny_model.forward(tiny_tokens, observer=recorder)
    seen = [entry[2] for entry in recorder.seen if entry[0] == "attention"]
    assert [tuple(probabilities.shape) for probabilities in seen] == [(10, 4, 32, 32)] * 4
    torch.testing.assert_close(seen[0].sum(-1), torch.ones_like(seen[0][..., 0]))


def test_observer_without_methods_sees_nothing(tiny_model, tiny_tokens):
    tiny_model.forward(tiny_tokens, observer=hemostat.Observer())


def test_exceptions_of_an_observer_reach_the_caller(tiny_model, tiny_tokens):
    class Refuses(hemostat.Observer):
        def hidden_state(self, index, x):
            raise LookupError(f"at {index}")

    with pytest.raises(LookupError, match="at 0"):
        tiny_model.forward(tiny_tokens, observer=Refuses())


# --- the rooms of model-level operators ---


def test_model_level_rooms(tiny_model, tiny_tokens):
    assert [block.origin for block in hemostat.ablate.drop_layers(tiny_model, count=1).blocks] == [0, 1, 3]
    assert [block.origin for block in hemostat.ablate.drop_layers(tiny_model, count=2, order=[0, 3]).blocks] == [1, 2]
    assert len(hemostat.extend.duplicate_layers(tiny_model, count=2).blocks) == 6
    deeper = hemostat.extend.insert_identity(tiny_model, count=2)
    torch.testing.assert_close(deeper.forward(tiny_tokens), tiny_model.forward(tiny_tokens), rtol=0, atol=1e-5)
    assert hemostat.normalize.norm_count(tiny_model) == 9
    assert hemostat.normalize.drop_norms(tiny_model, count=1).final_norm.kind == "none"
    noisy = hemostat.context.token_noise(tiny_model, rate=0.5, kind="drop", seed=3)
    assert (noisy.input.kind, noisy.input.rate, noisy.input.seed) == ("drop", 0.5, 3)
    with pytest.raises(ValueError, match="shuffle"):
        hemostat.context.token_noise(tiny_model, rate=0.5, kind="shuffle")
    with pytest.raises(ValueError):
        hemostat.ablate.drop_layers(tiny_model, count=4)
