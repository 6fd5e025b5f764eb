"""Trains the reference model, a small LLaMA, on the Python standard library.

    python -m hemostat.reference.train --out DIRECTORY

takes under an hour on one core and writes a checkpoint that transformers loads, the calibration and evaluation tokens,
and the model card. The same seed, Python, torch and processor give the same files.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import math
import platform
import random
import sys
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

from hemostat._provenance import processor

VOCABULARY = 4096
LENGTH = 512
END = "<|endoftext|>"  # parts documents; its id is 0

# No prose and no code of the library itself: tests, generated tables, and what others installed.
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
ONE_IN = 20  # modules held out


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()

    training, held_out = documents()
    random.Random(arguments.seed).shuffle(training)
    tokenizer = train_tokenizer(training)
    streams = {
        "training": encode(tokenizer, training),
        "modules": encode(tokenizer, held_out),
        "topics": encode(tokenizer, topics()),
    }
    model = LlamaForCausalLM(configuration())
    curve = train(model, streams["training"], arguments)
    model.to(torch.bfloat16).float()  # what is measured is what is stored

    tokens = {
        "calibration": spread(streams["training"], 64),
        "evaluation": torch.cat([spread(streams["modules"], 64), spread(streams["topics"], 64)]),
    }
    counts = torch.bincount(streams["training"], minlength=VOCABULARY)
    held_out_nll = {
        "held-out modules": measure(model, spread(streams["modules"], 256), counts),
        "pydoc_data.topics": measure(model, spread(streams["topics"], 256), counts),
        "shipped evaluation tokens": measure(model, tokens["evaluation"], counts),
    }
    sizes = {name: len(stream) for name, stream in streams.items()}
    card = model_card(arguments, model, sizes, curve, held_out_nll, time.monotonic() - started)
    write(arguments.out, model, tokenizer, tokens, card)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory to write, which must not exist")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8, help="windows a step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists already")
    if not arguments.out.parent.is_dir():
        parser.error(f"there is no directory {arguments.out.parent}")
    if min(arguments.steps, arguments.batch, arguments.threads) < 1:
        parser.error("--steps, --batch and --threads must be at least 1")
    return arguments


def documents() -> tuple[list[str], list[str]]:
    """(training, held out): each module's source, and its documentation strings as prose."""
    library = Path(sysconfig.get_path("stdlib"))
    training: list[str] = []
    held_out: list[str] = []
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT & set(parts) or parts[0].startswith(("config-", "lib-dynload", "__phello__")):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            prose = documentation(ast.parse(source))
        except (UnicodeDecodeError, SyntaxError):
            continue
        held = zlib.crc32(".".join(parts).encode()) % ONE_IN == 0
        (held_out if held else training).extend(filter(None, (source, prose)))
    training.extend(filter(None, map(compiled_documentation, sorted(sys.builtin_module_names))))
    return training, held_out


def documentation(module: ast.Module) -> str:
    """The documentation strings of a module, its classes and functions, in their order."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    strings = (ast.get_docstring(node) for node in ast.walk(module) if isinstance(node, kinds))
    return "\n\n".join(filter(None, strings))


def compiled_documentation(name: str) -> str:
    """The documentation strings of a module without Python source."""
    module = importlib.import_module(name)
    members = (getattr(module, member) for member in sorted(dir(module)) if not member.startswith("_"))
    strings = (inspect.getdoc(member) for member in [module, *members] if member is module or callable(member))
    return "\n\n".join(dict.fromkeys(filter(None, strings)))


def topics() -> list[str]:
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def train_tokenizer(training: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """int64 [tokens]: the texts in order, each led by the end-of-text token."""
    end = tokenizer.token_to_id(END)
    encoded = tokenizer.encode_batch(texts)
    return torch.tensor([token for text in encoded for token in (end, *text.ids)])


def configuration() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.02,
    )


def batches(stream: torch.Tensor, arguments: argparse.Namespace) -> Iterator[torch.Tensor]:
    """Windows [batch, LENGTH + 1] in a new random order, and from a new offset, each time through the text."""
    generator = torch.Generator().manual_seed(arguments.seed)
    while True:
        offset = int(torch.randint(LENGTH, (), generator=generator))
        starts = torch.arange(offset, len(stream) - LENGTH - 1, LENGTH)
        for chosen in starts[torch.randperm(len(starts), generator=generator)].split(arguments.batch):
            if len(chosen) == arguments.batch:
                yield torch.stack([stream[start : start + LENGTH + 1] for start in chosen.tolist()])


def train(model: LlamaForCausalLM, stream: torch.Tensor, arguments: argparse.Namespace) -> list[tuple[int, float]]:
    """Muon on the matrices inside blocks, AdamW on the rest. Returns (step, mean loss of the 50 steps before it)."""
    inside = [p for name, p in model.named_parameters() if p.dim() == 2 and "layers" in name]
    rest = [p for name, p in model.named_parameters() if not (p.dim() == 2 and "layers" in name)]
    optimizers = [
        torch.optim.Muon(inside, lr=0.02, weight_decay=0.01, momentum=0.95, nesterov=True),
        torch.optim.AdamW(rest, lr=0.003, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    curve: list[tuple[int, float]] = []
    losses: list[float] = []
    steps = tqdm(zip(range(arguments.steps), batches(stream, arguments), strict=False), total=arguments.steps)
    for step, windows in steps:
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule(step, arguments.steps)
        logits = model(windows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == arguments.steps:
            curve.append((step + 1, float(np.mean(losses))))
            steps.set_postfix(loss=curve[-1][1])
            losses = []
    return curve


def schedule(step: int, steps: int) -> float:
    """The learning rate's factor: a short rise, a plateau, and a linear fall over the last 60 %."""
    return min(1.0, (step + 1) / 40, (steps - step) / (0.6 * steps))


def spread(stream: torch.Tensor, windows: int) -> torch.Tensor:
    """Whole windows of the text, at most so many, evenly apart."""
    cut = stream[: len(stream) // LENGTH * LENGTH].reshape(-1, LENGTH)
    return cut[torch.linspace(0, len(cut) - 1, min(windows, len(cut))).long()]


@torch.inference_mode()
def measure(model: LlamaForCausalLM, windows: torch.Tensor, counts: torch.Tensor) -> dict[str, float]:
    """Perplexity of the model, and of the add-one smoothed unigram model of the training text."""
    nll = 0.0
    for window in windows.split(8):
        logits = model(window[:, :-1]).logits.flatten(0, 1)
        nll += torch.nn.functional.cross_entropy(logits, window[:, 1:].flatten(), reduction="sum").item()
    targets = windows[:, 1:]
    unigram = -((counts + 1.0) / (counts.sum() + len(counts))).log()[targets].mean().item()
    return {"model": math.exp(nll / targets.numel()), "unigram": math.exp(unigram), "windows": len(windows)}


def model_card(
    arguments: argparse.Namespace,
    model: LlamaForCausalLM,
    sizes: dict[str, int],
    curve: list[tuple[int, float]],
    measured: dict[str, dict[str, float]],
    seconds: float,
) -> str:
    config = model.config
    heads = f"{config.num_attention_heads} heads of {config.head_dim} on {config.num_key_value_heads} key-value heads"
    shape = (
        f"{config.num_hidden_layers} blocks, hidden size {config.hidden_size}, MLP {config.intermediate_size}, {heads}"
    )
    machine = f"{arguments.threads} core{'s' * (arguments.threads > 1)} of a {processor()}"
    versions = f"torch {torch.__version__} and transformers {transformers.__version__}"
    seen = arguments.steps * arguments.batch * LENGTH
    perplexities = "\n".join(
        f"| {name} | {entry['windows']} | {entry['model']:.2f} | {entry['unigram']:.1f} "
        f"| 1/{entry['unigram'] / entry['model']:.1f} |"
        for name, entry in measured.items()
    )
    losses = "\n".join(f"| {step} | {loss:.3f} |" for step, loss in curve[1::2])
    return f"""# The reference model

A small language model with something to lose, for tests and for work without a network:
`hemostat.data.reference()`. hemostat trained it itself; it is no use as an assistant.

| | |
|---|---|
| architecture | LLaMA: {shape}, tied embeddings |
| parameters | {model.num_parameters():,}, stored as bfloat16 |
| tokenizer | byte-level BPE, {VOCABULARY} tokens, learned from the training text; `{END}` (0) leads each document |
| context | {LENGTH} tokens |
| licence | Apache-2.0; the text it learned from is Python's own, under the PSF licence |

## Data

The standard library of Python {platform.python_version()}: every module's source, and its documentation strings once
more as prose; those of built-in modules too. Tests, `encodings` and `pydoc_data` are left out.
{sizes["training"]:,} tokens to learn from.

Held out: one module in {ONE_IN}, by the CRC of its name ({sizes["modules"]:,} tokens), and `pydoc_data.topics`
({sizes["topics"]:,} tokens), the language reference as text. `calibration.npy` holds 64 windows of {LENGTH} tokens of
the training text, `evaluation.npy` 64 of the held-out modules and then 64 of the topics (uint16 [windows, length]);
they are shipped, since the standard library differs between Python versions.

## Training

    python -m hemostat.reference.train --out DIRECTORY --steps {arguments.steps} --batch {arguments.batch} \
--threads {arguments.threads} --seed {arguments.seed}

Muon on the matrices inside blocks, AdamW on the rest, in float32; {arguments.steps} steps of {arguments.batch} windows,
{seen:,} tokens ({seen / sizes["training"]:.1f} times the text). It took {seconds / 60:.0f} minutes on
{machine} with {versions}.

| step | training loss, nats per token |
|---:|---:|
{losses}

## Perplexity on held-out text

| text | windows | model | unigram model | ratio |
|---|---:|---:|---:|---:|
{perplexities}

The unigram model counts the training tokens, with add-one smoothing.
"""


def write(
    directory: Path, model: LlamaForCausalLM, tokenizer: Tokenizer, tokens: dict[str, torch.Tensor], card: str
) -> None:
    """The directory appears whole or not at all."""
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as unfinished:
        checkpoint = Path(unfinished) / "checkpoint"
        model.to(torch.bfloat16).save_pretrained(checkpoint)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=END, model_max_length=LENGTH
        ).save_pretrained(checkpoint)
        for name, windows in tokens.items():
            np.save(checkpoint / f"{name}.npy", windows.numpy().astype(np.uint16))
        (checkpoint / "README.md").write_text(card, encoding="utf-8")
        checkpoint.rename(directory)


if __name__ == "__main__":
    main()
