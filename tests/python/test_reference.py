"""The reference model is what its card says, has something to lose, and its script trains the same one again."""

import argparse
import re
import sys
import sysconfig
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

import hemostat
from hemostat.reference import train

DIRECTORY = hemostat.data.reference_directory()
CARD = (DIRECTORY / "README.md").read_text(encoding="utf-8")


def carded(text: str) -> tuple[float, float]:
    """The card's perplexities on a text: the model's, and the unigram model's."""
    found = re.search(rf"^\| {re.escape(text)} \| \d+ \| ([\d.]+) \| ([\d.]+) \|", CARD, re.M)
    return float(found[1]), float(found[2])


def test_it_is_small():
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir() if path.is_file()) <= 12_000_000
    tensors = load_file(DIRECTORY / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    parameters = sum(tensor.numel() for tensor in tensors.values())
    assert 2_000_000 <= parameters <= 6_000_000
    assert f"| parameters | {parameters:,}," in CARD


@pytest.mark.parametrize("text", ["held-out modules", "pydoc_data.topics", "shipped evaluation tokens"])
def test_it_has_something_to_lose(text):
    model, unigram = carded(text)
    assert model <= unigram / 15


def test_its_card_tells_the_perplexity_of_what_is_shipped():
    subject = hemostat.data.reference()
    perplexity = hemostat.compare(subject.model, subject.model, subject.evaluation).perplexity_baseline
    assert perplexity == pytest.approx(carded("shipped evaluation tokens")[0], rel=1e-3)


def test_tokens_come_back_as_text():
    subject = hemostat.data.reference()
    tokenizer = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
    text = tokenizer.decode(subject.evaluation[-1].tolist())
    assert tokenizer.encode(text).ids[1:-1] != [] and "the" in text


def test_held_out_modules_are_never_trained_on():
    training, held_out = train.documents()
    assert not set(training) & set(held_out)
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("json/decoder.py", "argparse.py", "textwrap.py", "asyncio/events.py"):
        source = (library / name).read_text(encoding="utf-8")
        held = zlib.crc32(name.removesuffix(".py").replace("/", ".").encode()) % train.ONE_IN == 0
        assert source in (held_out if held else training)
    assert 0.01 < sum(map(len, held_out)) / sum(map(len, training)) < 0.1
    topics = train.topics()
    assert not {text for text in training if any(topic in text for topic in topics if len(topic) > 500)}


def test_training_lowers_the_loss_on_text_never_seen():
    torch.manual_seed(0)
    stream = torch.arange(40_000) * 7 % 1000  # each token tells the next
    arguments = argparse.Namespace(steps=30, batch=2, seed=0)
    model = LlamaForCausalLM(train.configuration())
    before = train.measure(model, train.spread(stream, 4), torch.bincount(stream, minlength=train.VOCABULARY))
    curve = train.train(model, stream, arguments)
    after = train.measure(model, train.spread(stream, 4), torch.bincount(stream, minlength=train.VOCABULARY))
    assert after["model"] < 0.5 * before["model"]
    assert [step for step, _ in curve] == [30]


@pytest.fixture
def little_text(monkeypatch):
    documents = train.documents()
    monkeypatch.setattr(train, "documents", lambda: tuple(texts[:12] for texts in map(list, documents)))
    monkeypatch.setattr(train, "topics", lambda: ["The topics, in a few words. " * 200])


def trained_into(directory: Path, monkeypatch, seed: int = 0) -> Path:
    threads = torch.get_num_threads()
    options = {"--out": directory, "--steps": 2, "--batch": 1, "--threads": 1, "--seed": seed}
    monkeypatch.setattr(sys, "argv", ["train", *(str(word) for option in options.items() for word in option)])
    try:
        train.main()
    finally:
        torch.set_num_threads(threads)
    return directory


def test_a_seed_reproduces_the_run(little_text, monkeypatch, tmp_path):
    first, again, other = (
        trained_into(tmp_path / name, monkeypatch, seed) for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    files = {path.name for path in first.iterdir()}
    assert files >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "calibration.npy"}
    for name in files - {"README.md"}:  # the card tells how long it took
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    model = hemostat.Model.load(first)
    assert torch.isfinite(model(torch.arange(20)[None])).all()


def test_a_directory_that_exists_is_refused_before_anything(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(train, "documents", lambda: pytest.fail("it began"))
    with pytest.raises(SystemExit):
        trained_into(tmp_path, monkeypatch)
    assert "exists already" in capsys.readouterr().err
