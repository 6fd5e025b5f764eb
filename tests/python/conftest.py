"""What tests share: the device, a random model small enough for plumbing, and a trained one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from progress_lines import without_progress
from small_models import save_llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import hemostat
from hemostat.cli import main

# HYPOTHESIS_PROFILE=thorough draws more, and other examples each time.
settings.register_profile("quick", max_examples=30, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

SHARED = Path(__file__).parents[2].parent / "shared"


class ModelAndTokens(NamedTuple):
    model: hemostat.Model
    tokens: torch.Tensor  # int64 [windows, length]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """HEMOSTAT_TEST_DEVICE, else the CPU."""
    chosen = torch.device(os.environ.get("HEMOSTAT_TEST_DEVICE", "cpu"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return chosen


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A LLaMA of 4 blocks with random weights and a tokenizer whose tokens are bytes, 256 of them and three special."""
    directory = tmp_path_factory.mktemp("checkpoints") / "tiny"
    directory.mkdir()
    save_llama(directory, vocab=259, hidden=32, intermediate=48, blocks=4, heads=4, kv_heads=2, context=64)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint, device) -> hemostat.Model:
    return hemostat.Model.load(tiny_checkpoint, device=str(device))


@pytest.fixture(scope="session")
def tiny_tokens(device) -> torch.Tensor:
    """int64 [10, 32], random bytes."""
    return torch.randint(0, 256, (10, 32), generator=torch.Generator().manual_seed(1)).to(device)


@pytest.fixture(scope="session")
def statistics(tiny_model, tiny_tokens) -> hemostat.Statistics:
    return hemostat.collect(tiny_model, tiny_tokens)


@pytest.fixture(scope="session")
def damaged(tiny_model) -> hemostat.Model:
    return hemostat.prepare(tiny_model, "magnitude").at(0.5)


@pytest.fixture(scope="session")
def trained(device) -> ModelAndTokens:
    """The reference model, with 24 windows of 256 tokens that it never saw."""
    subject = hemostat.data.reference(device=str(device))
    return ModelAndTokens(subject.model, subject.evaluation[::5, :256][:24].contiguous())


@pytest.fixture(scope="session")
def shared() -> Path:
    """Text and checkpoints that lie beside the clone."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the clone")
    return SHARED


@pytest.fixture(scope="session")
def stories(shared, device) -> ModelAndTokens:
    """A LLaMA of 5 blocks trained on short stories, with 24 windows of 256 tokens of such text."""
    checkpoint, text = shared / "weights" / "stories260K", shared / "corpora" / "tinystories.txt"
    for needed in (checkpoint, text):
        if not needed.exists():
            pytest.skip(f"no ../shared/{needed.relative_to(shared)}")
    model = hemostat.Model.load(checkpoint, device=str(device))
    return ModelAndTokens(model, hemostat.data.tokens(model, text, length=256, windows=24))


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty directory and gives (exit code, stdout, stderr without a scan's progress)."""
    workplace = tmp_path / "workplace"
    workplace.mkdir()
    monkeypatch.chdir(workplace)

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, without_progress(err)

    return call


@pytest.fixture
def text(tmp_path) -> Path:
    """A file of 14 windows of 64 bytes."""
    file = tmp_path / "eval.txt"
    file.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    return file


@pytest.fixture
def scan(run, tiny_checkpoint, text):
    """Scans the tiny checkpoint into the directory run, as a command."""

    def call(*arguments, checkpoint=tiny_checkpoint, of=text):
        return run("scan", checkpoint, "--text", of, "--localize", 0, "--out", "run", *arguments)

    return call
