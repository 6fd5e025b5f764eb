"""GGUF files: written and read again, refused by name where they are malformed, and the tokenizers in them."""

from __future__ import annotations

import json
import shutil
import struct
import warnings

import gguf
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

import hemostat
from hemostat import _C

UINT32, INT32, FLOAT, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
F32, Q8_0 = 0, 8


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def number(key: str, value: int) -> bytes:
    return entry(key, UINT32, struct.pack("<I", value))


def tensor(name: str, shape: list[int], kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset)


def container(
    entries: list[bytes],
    tensors: list[bytes],
    data: bytes = b"",
    *,
    counts=None,
    version: int = 3,
    magic: bytes = b"GGUF",
) -> bytes:
    """A file of these parts; `counts`: what it states of tensors and entries, where they lie."""
    stated = counts or (len(tensors), len(entries))
    head = magic + struct.pack("<IQQ", version, *stated) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def refused(tmp_path, content: bytes, *words: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        hemostat.Model.load(path)
    for word in (f"hemostat.Model.load: {path}", *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def saved(tiny_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    hemostat.Model.load(tiny_checkpoint).save(path)
    return path


def changed(saved, tmp_path, old: bytes, new: bytes):
    content = saved.read_bytes()
    assert content.count(old) == 1, old
    return content.replace(old, new)


class TestContainer:
    architecture = entry("general.architecture", STRING, text("llama"))
    huge = 2**63

    @pytest.mark.parametrize(
        "content, words",
        [
            (b"", ["does not begin with GGUF"]),
            (b"GGU", ["does not begin with GGUF"]),
            (container([], [], magic=b"GGJT"), ["does not begin with GGUF"]),
            (b"GGUF\3\0", ["the version", "truncated"]),
            (container([], [], version=1), ["version 1", "2 and 3"]),
            (container([], [], version=0x03000000), ["big-endian"]),
            (container([], [], counts=(huge, 0)), [f"{huge} tensors", "truncated or lies"]),
            (container([], [], counts=(0, huge)), [f"{huge} metadata entries"]),
            (container([], [], counts=(1, 0)), ["1 tensors"]),
            (container([struct.pack("<Q", huge) + b"key"], []), [f"{huge} bytes of a metadata key"]),
            (container([entry("k", 13, b"\0" * 8)], []), ["metadata 'k'", "unknown type 13"]),
            (container([entry("k", STRING, struct.pack("<Q", huge))], []), ["metadata 'k'", f"{huge} bytes"]),
            (container([entry("k", STRING, text(b"\xff"))], []), ["metadata 'k'", "UTF-8"]),
            (container([text(b"\xc0\x80") + struct.pack("<II", UINT32, 1)], []), ["a metadata key", "UTF-8"]),
            (container([entry("k", BOOL, b"\2")], []), ["metadata 'k'", "neither true nor false"]),
            (container([number("k", 1), number("k", 1)], []), ["the metadata key 'k' twice"]),
            (container([entry("k", ARRAY, struct.pack("<IQ", UINT32, huge))], []), [f"{huge} values of metadata 'k'"]),
            (container([entry("k", ARRAY, struct.pack("<IQ", STRING, huge))], []), [f"{huge} values of metadata 'k'"]),
            (container([entry("k", ARRAY, struct.pack("<IQ", 77, 1))], []), ["metadata 'k'", "unknown type 77"]),
            (container([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) * 9)], []), ["metadata 'k'", "deeper than 8"]),
            (
                container([entry("k", ARRAY, struct.pack("<IQIQ", ARRAY, 1, STRING, huge))], [], b"\0" * 64),
                [f"{huge} values of metadata 'k'"],
            ),
            (container([number("general.alignment", 0)], []), ["general.alignment 0", "power of two"]),
            (container([number("general.alignment", 24)], []), ["general.alignment 24"]),
            (container([number("general.alignment", 4)], []), ["general.alignment 4"]),
            (container([number("general.alignment", 1 << 31)], []), ["general.alignment"]),
            (
                container([entry("general.alignment", FLOAT, struct.pack("<f", 32))], []),
                ["general.alignment", "integer"],
            ),
            (container([], [tensor("t", [])]), ["tensor 't'", "0 dimensions", "1 to 4"]),
            (container([], [tensor("t", [1] * 5)], b"\0" * 32), ["tensor 't'", "5 dimensions"]),
            (container([], [tensor("t", [2, 0])]), ["tensor 't'", "[2, 0]", "holds nothing"]),
            (container([], [tensor("t", [2**32, 2**32])]), ["tensor 't'", "overflows"]),
            (container([], [tensor("t", [2**62])]), ["tensor 't'", "overflows"]),
            (container([], [tensor("t", [8])], b"\0" * 31), ["tensor 't'", "bytes 0 … 32 of 31", "truncated"]),
            (container([], [tensor("t", [8], kind=99)], b"\0" * 32), ["tensor 't'", "number 99", "F32", "Q4_K"]),
            (container([], [tensor("t", [8], kind=Q8_0)], b"\0" * 32), ["tensor 't'", "[8]", "Q8_0", "blocks of 32"]),
            (container([], [tensor("t", [8], offset=8)], b"\0" * 64), ["tensor 't'", "at 8", "alignment 32"]),
            (container([], [tensor("t", [8], offset=32)], b"\0" * 64), ["unused bytes before tensor 't'"]),
            (container([], [tensor("t", [8], offset=2**64 - 32)], b"\0" * 32), ["unused bytes before tensor 't'"]),
            (container([], [tensor("t", [8])] * 2, b"\0" * 32), ["tensor 't' twice"]),
            (container([], [tensor("t", [8]), tensor("u", [8])], b"\0" * 32), ["overlapping data"]),
            (
                container([], [tensor("t", [8]), tensor("u", [8], offset=64)], b"\0" * 96),
                ["unused bytes before tensor 'u'"],
            ),
        ],
        ids=lambda value: value[-1] if isinstance(value, list) else "",
    )
    def test_malformed(self, tmp_path, content, words):
        refused(tmp_path, content, *words)

    @pytest.mark.parametrize("after", [b"\0" * 7, b"\0" * 5000, b"signature"])
    def test_what_follows_the_last_tensor_is_not_the_model_s(self, saved, tmp_path, after, tiny_tokens):
        path = tmp_path / "model.gguf"
        path.write_bytes(saved.read_bytes() + after)
        tokens = tiny_tokens.cpu()
        assert torch.equal(hemostat.Model.load(path)(tokens), hemostat.Model.load(saved)(tokens))

    def test_truncated_anywhere(self, saved, tmp_path):
        """Every length of the header, and lengths within the tensors."""
        content = saved.read_bytes()
        header = content.index(b"output_norm.weight") + 64
        path = tmp_path / "model.gguf"
        for length in [*range(0, header, 7), *range(header, len(content), len(content) // 50), len(content) - 1]:
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match="hemostat.Model.load"):
                hemostat.Model.load(path)

    def test_alignment_is_honoured(self, saved, tmp_path):
        """The same model, each tensor at a multiple of 256."""
        gguf = pytest.importorskip("gguf")
        path, reader = tmp_path / "aligned.gguf", gguf.GGUFReader(saved)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_custom_alignment(256)
        for key, field in reader.fields.items():
            if key.startswith("llama."):
                writer.add_key_value(key, field.contents(), field.types[0])
        for part in reader.tensors:
            writer.add_tensor(part.name, np.array(part.data))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        tokens = torch.arange(20)
        assert torch.equal(hemostat.Model.load(path).forward(tokens), hemostat.Model.load(saved).forward(tokens))

    def test_tensors_are_private_and_writable(self, saved, tmp_path):
        path = shutil.copy(saved, tmp_path / "model.gguf")
        before = path.read_bytes()
        model = hemostat.Model.load(path)
        model.embedding.zero_()
        assert (model.forward(torch.arange(4)) == 0).all()
        assert path.read_bytes() == before

    def test_neither_a_directory_nor_a_file(self, tmp_path):
        with pytest.raises(ValueError, match=r"cannot open .*missing.gguf"):
            hemostat.Model.load(tmp_path / "missing.gguf")
        with pytest.raises(ValueError, match="neither a directory nor a .gguf file"):
            hemostat.Model.load(tmp_path / "missing")


def floating(key: str, value: float) -> bytes:
    return entry(key, FLOAT, struct.pack("<f", value))


class TestMetadata:
    @pytest.mark.parametrize(
        "old, new, words",
        [
            (text("llama"), text("mamba"), ["architecture 'mamba'", "llama", "qwen2"]),
            (text("llama.context_length"), text("llama.context_lengtX"), ["no metadata 'llama.context_length'"]),
            (text("general.type"), text("llama.unknow"), ["metadata 'llama.unknow'", "not supported"]),
            (number("llama.embedding_length", 32), number("llama.embedding_length", 0), ["hidden_size", "0"]),
            (
                number("llama.feed_forward_length", 48),
                number("llama.feed_forward_length", 64),
                ["tensor 'blk.0.ffn_gate.weight'", "[48, 32]", "[64, 32]"],
            ),
            (number("llama.block_count", 4), number("llama.block_count", 5), ["no tensor 'blk.4.", "are missing"]),
            (number("llama.block_count", 4), number("llama.block_count", 3), ["tensor 'blk.3.", "no place"]),
            (
                number("llama.block_count", 4),
                number("llama.block_count", 10**9),
                ["1000000000", "38 tensors"],
            ),
            (number("llama.attention.head_count", 4), number("llama.attention.head_count", 0), ["num_attention_heads"]),
            (
                number("llama.attention.head_count_kv", 2),
                number("llama.attention.head_count_kv", 3),
                ["num_key_value_heads = 3"],
            ),
            (number("llama.vocab_size", 259), number("llama.vocab_size", 300), ["vocab_size 300", "only 259"]),
            (
                number("llama.rope.dimension_count", 8),
                number("llama.rope.dimension_count", 4),
                ["rotates 4", "8 features"],
            ),
            (
                floating("llama.rope.freq_base", 1e4),
                floating("llama.rope.freq_base", float("nan")),
                ["finite number"],
            ),
            (floating("llama.rope.freq_base", 1e4), floating("llama.rope.freq_base", -1), ["rope_theta"]),
            (text("blk.0.attn_q.weight"), text("blk.0.attn_X.weight"), ["no tensor 'blk.0.attn_q.weight'"]),
        ],
        ids=lambda value: value[-1] if isinstance(value, list) else "",
    )
    def test_refused_by_name(self, saved, tmp_path, old, new, words):
        refused(tmp_path, changed(saved, tmp_path, old, new), *words)

    def test_a_wrong_kind_of_value(self, saved, tmp_path):
        old = number("llama.context_length", 64)
        new = entry("llama.context_length", FLOAT, struct.pack("<f", 64))
        refused(tmp_path, changed(saved, tmp_path, old, new), "no integer in metadata 'llama.context_length'")

    @pytest.mark.parametrize(
        "extra, words",
        [
            (number("llama.expert_count", 8), ["no metadata 'llama.expert_used_count'"]),
            (number("llama.attention.sliding_window", 16), ["sliding_window 16", "windows are not supported"]),
            (entry("llama.rope.scaling.type", STRING, text("ntk")), ["rope.scaling.type 'ntk'", "linear and yarn"]),
            (entry("llama.rope.scaling.type", STRING, text("longrope")), ["'longrope' without its tensors"]),
            (floating("llama.rope.scaling.yarn_beta_fast", 8), ["yarn_beta_fast 8", "only 32"]),
            (floating("llama.logit_scale", 2), ["logit_scale 2", "only 1"]),
            (entry("llama.use_parallel_residual", BOOL, b"\1"), ["use_parallel_residual true", "only false"]),
            (number("llama.attention.key_length", 7), ["rotates 8", "7 features"]),
            (number("split.count", 3), ["one of 3 parts"]),
        ],
    )
    def test_what_changes_numbers_is_refused(self, saved, tmp_path, extra, words):
        """A further entry of metadata; the header grows by a multiple of the alignment."""
        content = saved.read_bytes()
        magic, tensors, entries = content[:8], *struct.unpack("<QQ", content[8:24])
        filler = -len(extra + entry("filler", STRING, text(""))) % 32
        added = extra + entry("filler", STRING, text("x" * filler))
        refused(tmp_path, magic + struct.pack("<QQ", tensors, entries + 2) + added + content[24:], *words)


class TestRoundTrip:
    def test_numbers_names_and_tokenizer(self, tiny_checkpoint, saved):
        model, again = hemostat.Model.load(tiny_checkpoint), hemostat.Model.load(saved)
        assert again.source == str(saved) and again.dtype == torch.float32 and again.tied
        assert again.linears().names == model.linears().names
        for name, weight in model.tensors().items():
            assert torch.equal(again.tensors()[name], weight), name
        tokens = torch.arange(40)
        torch.testing.assert_close(again.forward(tokens), model.forward(tokens), rtol=0, atol=2e-5)
        assert (again.config.context, again.config.bos_token_id, again.config.eos_token_ids) == (64, 257, [258])
        assert json.loads(again.tokenizer.to_str()) == json.loads(model.tokenizer.to_str())
        assert torch.equal(
            hemostat.data.tokens(again, text="a text " * 40), hemostat.data.tokens(model, text="a text " * 40)
        )

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_dtype(self, tiny_checkpoint, tmp_path, dtype):
        model = hemostat.Model.load(tiny_checkpoint, dtype=dtype)
        model.save(tmp_path / "model.gguf")
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert again.dtype == dtype
        for name, weight in model.tensors().items():
            assert torch.equal(again.tensors()[name], weight), name
        other = hemostat.Model.load(tmp_path / "model.gguf", dtype=torch.float32)
        assert torch.equal(other.embedding, model.embedding.float())

    def test_file_to_directory_to_file(self, saved, tmp_path):
        model = hemostat.Model.load(saved)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.save(tmp_path / "directory")
            hemostat.Model.load(tmp_path / "directory").save(tmp_path / "again.gguf")
            hemostat.Model.load(tmp_path / "again.gguf").save(tmp_path / "copy.gguf")
        directory = hemostat.Model.load(tmp_path / "directory")
        assert torch.equal(directory.forward(torch.arange(9)), model.forward(torch.arange(9)))
        assert directory.tokenizer.to_str() == model.tokenizer.to_str()
        copy = hemostat.Model.load(tmp_path / "copy.gguf")
        assert copy.tokenizer.to_str() == model.tokenizer.to_str()
        assert torch.equal(copy.forward(torch.arange(9)), model.forward(torch.arange(9)))

    def test_onto_the_file_that_it_is_mapped_from(self, saved, tmp_path):
        path = tmp_path / "model.gguf"
        shutil.copy(saved, path)
        model = hemostat.Model.load(path)
        pruned = hemostat.prepare(model, "magnitude").at(0.5)
        expected = pruned.forward(torch.arange(9))
        pruned.save(path)
        torch.testing.assert_close(hemostat.Model.load(path).forward(torch.arange(9)), expected)
        assert [file.name for file in tmp_path.iterdir()] == ["model.gguf"]

    def test_what_a_method_changed(self, tiny_model, tmp_path):
        dropped = hemostat.prepare(tiny_model, "drop_layers").at(0.5)
        dropped.save(tmp_path / "model.gguf")
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert len(again.blocks) == 2
        torch.testing.assert_close(again.forward(torch.arange(9)), dropped.forward(torch.arange(9)), rtol=0, atol=2e-5)

    @pytest.mark.parametrize("family, bits, kind", [("k", 8.5, "Q8_0"), ("legacy", 4.5, "Q4_0"), ("iq", 4.5, "IQ4_NL")])
    def test_what_the_method_gguf_rounded_is_what_the_file_holds(self, trained, tmp_path, family, bits, kind):
        model = trained.model
        rounded = hemostat.prepare(model, "gguf", family=family).at(bits)
        rounded.save(tmp_path / "model.gguf")
        kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
        assert kinds["blk.0.attn_q.weight"] == kinds["blk.0.ffn_down.weight"] == kind
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert again.bytes == rounded.bytes < 0.7 * model.bytes
        for (name, weight), (_, before) in zip(again.linears(), model.linears(), strict=True):
            assert torch.equal(weight, hemostat.quantize.gguf(before, type=kind)), name
        assert torch.equal(again.forward(torch.arange(9)), rounded.forward(torch.arange(9)))

    @pytest.mark.parametrize("name", ["model.gguf", "directory"])
    def test_a_head_in_blocks(self, tiny_model, tmp_path, name):
        rounded = hemostat.prepare(tiny_model, "gguf", include="lm_head").at(8.5)
        assert rounded.head.linear.packed is not None
        rounded.save(tmp_path / name)
        again = hemostat.Model.load(tmp_path / name)
        assert torch.equal(again.head.linear.dense(), rounded.head.linear.dense())
        torch.testing.assert_close(again.forward(torch.arange(9)), rounded.forward(torch.arange(9)), rtol=0, atol=2e-5)

    @pytest.mark.parametrize(
        "method, severity", [("activation", 4), ("svd", 0.5), ("temperature", 2.0), ("drop_norms", 0.5)]
    )
    def test_what_gguf_cannot_express(self, tiny_model, tmp_path, method, severity):
        damaged = hemostat.prepare(tiny_model, method).at(severity)
        with pytest.raises(ValueError, match="cannot express what was changed .* save to a directory"):
            damaged.save(tmp_path / "model.gguf")
        assert not list(tmp_path.iterdir())

    def test_where_it_cannot_be_written(self, tiny_model, tmp_path):
        (tmp_path / "model.gguf").mkdir()
        with pytest.raises(ValueError, match="model.gguf is a directory"):
            tiny_model.save(tmp_path / "model.gguf")
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="cannot write"):
            tiny_model.save(tmp_path / "file" / "model.gguf")

    def test_scaled_rotations_are_kept_and_transformers_overlooks_them(self, tiny_checkpoint, tmp_path):
        llama3 = {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
        for scaling in ({"rope_type": "linear", "factor": 4.0}, {"rope_type": "llama3", **llama3}):
            copy = tmp_path / scaling["rope_type"]
            shutil.copytree(tiny_checkpoint, copy)
            config = json.loads((copy / "config.json").read_text()) | {"rope_scaling": scaling}
            (copy / "config.json").write_text(json.dumps(config))
            model, path = hemostat.Model.load(copy), copy.with_suffix(".gguf")
            with pytest.warns(UserWarning, match="transformers overlooks its scaled rotation"):
                model.save(path)
            again = hemostat.Model.load(path)
            tokens = torch.arange(40)
            torch.testing.assert_close(again.forward(tokens), model.forward(tokens), rtol=0, atol=2e-5)
            with pytest.raises(AssertionError):
                torch.testing.assert_close(hemostat.Model.load(tiny_checkpoint).forward(tokens), again.forward(tokens))


def without_whole_tokenizer(path, target):
    """The same file, its tokenizer.json under a name that nobody reads."""
    content = path.read_bytes()
    key = b"tokenizer.huggingface.json"
    assert content.count(key) == 1
    target.write_bytes(content.replace(key, b"tokenizer.huggingface.jsoX"))
    return target


TEXTS = [
    "Once upon a time, there was a little girl.",
    "  two spaces, a\ttab\nand\n\nlines — naïve café, 12345 + 67.5%",
    "don't I'LL we've <s> </s>",
    "日本語 🙂",
    "",
]


TOKENS, MERGES, BOS = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "bos_token_id"))


class TestTokenizer:
    def test_byte_level_from_its_parts(self, trained, tmp_path):
        trained.model.save(tmp_path / "whole.gguf")
        path = without_whole_tokenizer(tmp_path / "whole.gguf", tmp_path / "parts.gguf")
        ours, theirs = hemostat.Model.load(path).tokenizer, trained.model.tokenizer
        for sentence in [*TEXTS, "<|endoftext|>after"]:
            encoded = ours.encode(sentence).ids
            assert encoded == theirs.encode(sentence).ids
            assert ours.decode(encoded, skip_special_tokens=False) == theirs.decode(encoded, skip_special_tokens=False)

    def test_sentencepiece_from_its_parts(self, stories, tmp_path):
        stories.model.save(tmp_path / "whole.gguf")
        path = without_whole_tokenizer(tmp_path / "whole.gguf", tmp_path / "parts.gguf")
        ours, theirs = hemostat.Model.load(path).tokenizer, stories.model.tokenizer
        for sentence in TEXTS:
            encoded = ours.encode(sentence).ids
            assert encoded == theirs.encode(sentence).ids
            assert ours.decode(encoded) == theirs.decode(encoded)
        assert ours.encode("a").ids[0] == 1  # <s> leads a text

    def test_saved_to_a_directory(self, stories, tmp_path):
        stories.model.save(tmp_path / "model.gguf")
        path = without_whole_tokenizer(tmp_path / "model.gguf", tmp_path / "parts.gguf")
        hemostat.Model.load(path).save(tmp_path / "directory")
        names = json.loads((tmp_path / "directory" / "tokenizer_config.json").read_text())
        assert (names["bos_token"], names["eos_token"], names["unk_token"]) == ("<s>", "</s>", "<unk>")
        ours = hemostat.Model.load(tmp_path / "directory").tokenizer
        assert ours.encode(TEXTS[0]).ids == stories.model.tokenizer.encode(TEXTS[0]).ids

    @pytest.mark.parametrize(
        "old, new, message",
        [
            (b"gpt2", b"bert", "kind 'bert'; gpt2 and llama"),
            (text(TOKENS), text("x" * len(TOKENS)), f"no list of strings in metadata '{TOKENS}'"),
            (text(MERGES), text("x" * len(MERGES)), f"no list of strings in metadata '{MERGES}'"),
            (text("gpt-2"), text("other"), "ggml.pre 'other'; supported are gpt-2, smollm, llama-bpe, qwen2, tekken"),
            (number(BOS, 257), number(BOS, 300), "bos_token_id 300, but 259"),
        ],
        ids=["kind", "tokens", "merges", "rule", "bos"],
    )
    def test_malformed(self, saved, tmp_path, old, new, message):
        parts = without_whole_tokenizer(saved, tmp_path / "parts.gguf")
        content = parts.read_bytes()
        assert content.count(old) == 1
        parts.write_bytes(content.replace(old, new))
        with pytest.raises(ValueError) as error:
            _C.gguf_tokenizer(parts)
            hemostat.Model.load(parts).save(tmp_path / "directory")
        assert message in str(error.value)

    def test_none(self, tiny_model, tmp_path):
        alone = hemostat.Model.from_tensors(_C.family_config(tiny_model), tiny_model.tensors())
        alone.save(tmp_path / "model.gguf")
        model = hemostat.Model.load(tmp_path / "model.gguf")
        assert _C.gguf_tokenizer(tmp_path / "model.gguf") is None
        fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
        assert fields["tokenizer.ggml.model"].contents() == "none"  # without which llama.cpp does not load the file
        with pytest.raises(ValueError, match="model.gguf has no tokenizer"):
            _ = model.tokenizer
        model.save(tmp_path / "directory")
        assert not (tmp_path / "directory" / "tokenizer.json").exists()

    def test_gemma_s(self, tiny_checkpoint, tmp_path):
        """SentencePiece's BPE without a space before the text."""
        copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(127)), "▁", *"abcd", "ab", "▁ab"]
        whole = Tokenizer(
            models.BPE(
                vocab={piece: i for i, piece in enumerate(pieces)},
                merges=[("a", "b"), ("▁", "ab")],
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        whole.normalizer = normalizers.Replace(" ", "▁")
        whole.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        whole.add_special_tokens([AddedToken(name, special=True) for name in pieces[:3]])
        whole.save(str(copy / "tokenizer.json"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hemostat.Model.load(copy).save(tmp_path / "whole.gguf")
        fields = gguf.GGUFReader(tmp_path / "whole.gguf").fields
        assert fields["tokenizer.ggml.model"].contents() == "llama"
        assert not fields["tokenizer.ggml.add_space_prefix"].contents()
        ours = hemostat.Model.load(without_whole_tokenizer(tmp_path / "whole.gguf", tmp_path / "parts.gguf")).tokenizer
        for sentence in ("ab cab dab", " abz", "d  ab"):
            assert ours.encode(sentence, add_special_tokens=False).ids == whole.encode(sentence).ids
            assert ours.decode(ours.encode(sentence).ids) == sentence

    def test_one_of_another_kind(self, tiny_checkpoint, tmp_path):
        copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
        Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).save(str(copy / "tokenizer.json"))
        with pytest.warns(UserWarning, match="only hemostat reads its tokenizer, which is of another kind than gpt2"):
            hemostat.Model.load(copy).save(tmp_path / "model.gguf")
        again = hemostat.Model.load(tmp_path / "model.gguf")
        assert again.tokenizer.encode("b").ids == [1]
        assert gguf.GGUFReader(tmp_path / "model.gguf").fields["tokenizer.ggml.model"].contents() == "none"

    def test_one_that_gguf_has_no_name_for(self, tiny_checkpoint, tmp_path):
        copy = shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")
        tokenizer = json.loads((copy / "tokenizer.json").read_text())
        split = {"type": "Split", "pattern": {"Regex": "x+"}, "behavior": "Isolated", "invert": False}
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
        (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.warns(UserWarning, match="no name for how its tokenizer splits text"):
            hemostat.Model.load(copy).save(tmp_path / "model.gguf")
        again = hemostat.Model.load(tmp_path / "model.gguf").tokenizer
        assert json.loads(again.to_str())["pre_tokenizer"]["pretokenizers"][0] == split
        (copy / "tokenizer.json").write_text("{")
        with pytest.warns(UserWarning, match="tokenizer.json is malformed and was left out"):
            hemostat.Model.load(copy).save(tmp_path / "model.gguf")
        assert _C.gguf_tokenizer(tmp_path / "model.gguf") is None
