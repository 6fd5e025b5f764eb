"""What a command works on: the checkpoint that it names, and the texts that it is given."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch

import hemostat
from hemostat import _C
from hemostat._file_names import shown
from hemostat.data import described_tokens

__all__ = ["carried", "check_text", "command_subject", "is_carried", "load", "newlines_as"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

# The models that bring their own text: how to get one, and where its checkpoint lies.
CARRIED = {
    "smollm2": (hemostat.data.smollm2, hemostat.data.smollm2_directory),
    "reference": (hemostat.data.reference, hemostat.data.reference_directory),
}


@dataclass(frozen=True)
class CommandSubject:
    """A model, its tokens, and where they came from."""

    model: hemostat.Model
    calibration: torch.Tensor
    evaluation: torch.Tensor
    calibration_text: str
    evaluation_text: str


def command_subject(
    checkpoint: str,
    text: Path | None,
    calibration: Path | None,
    windows: int | None,
    calibration_windows: int,
    length: int | None,
    keep_newlines: bool,
    dtype: str | None,
    device: str,
) -> CommandSubject:
    """What the options of these names ask for; ValueError where they contradict each other."""
    if _is_standard_input(text) and _is_standard_input(calibration):
        raise ValueError("--text and --calibration are both standard input, which can be read once")
    for option, path in (("--text", text), ("--calibration", calibration)):
        if path is not None:
            check_text(option, path)
    if text is None and is_carried(checkpoint):
        if length is not None:
            raise ValueError(f"--length needs --text: {checkpoint}'s own text comes in windows of 512 tokens")
        subject = carried(checkpoint, dtype, device)
        model, fitted, rest = subject.model, subject.calibration, subject.evaluation
        source, name = subject.calibration_text, subject.evaluation_text
    elif text is None:
        raise ValueError("--text is missing: the file to evaluate on")
    else:
        model = load(checkpoint, dtype, device)
        # Where a fifth of the text ends, only the whole of it says.
        limit = windows if calibration is not None else None
        newlines = newlines_as(keep_newlines)
        rest, name = described_tokens(model, text, length=length, windows=limit, newlines=newlines)
        if calibration is None:
            split = max(1, len(rest) // 5)
            fitted, rest = rest[:split], rest[split:]
            if not len(rest):
                raise ValueError(f"--text {shown(text)} has one window, but without --calibration takes at least 2")
            source = f"the first fifth of {name}"
    if calibration is not None:
        fitted, source = described_tokens(
            model,
            calibration,
            length=rest.shape[1],
            windows=calibration_windows,
            newlines=newlines_as(keep_newlines),
        )
    return CommandSubject(model, fitted[:calibration_windows].clone(), rest[:windows].clone(), source, name)


def is_carried(checkpoint: str) -> bool:
    """Whether it is the name of a model that brings its own text."""
    return checkpoint in CARRIED and not Path(checkpoint).exists()


def carried(checkpoint: str, dtype: str | None, device: str) -> hemostat.data.Subject:
    """That model with its text."""
    return CARRIED[checkpoint][0](dtype=_dtype(dtype) or torch.bfloat16, device=_device(device))


def load(checkpoint: str, dtype: str | None, device: str) -> hemostat.Model:
    """A checkpoint's model, without text."""
    source = CARRIED[checkpoint][1]() if is_carried(checkpoint) else checkpoint
    try:
        return hemostat.Model.load(source, dtype=_dtype(dtype), device=_device(device))
    except _C.UnknownFamily as unknown:
        print(f"hemostat: note: {unknown}. So it is here; what takes blocks is refused", file=sys.stderr)
    return hemostat.Model.load(source, dtype=_dtype(dtype), device=_device(device), foreign=True)


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise ValueError(f"--dtype is {name!r}, but takes {', '.join(DTYPES)}")
    return DTYPES.get(name)


def _device(name: str) -> str:
    try:
        torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device is {name!r}, but takes cpu, cuda or cuda:N") from None
    return name


def newlines_as(keep: bool) -> str:
    """What :func:`hemostat.data.tokens` calls it."""
    return "keep" if keep else "universal"


def _is_standard_input(path: Path | None) -> bool:
    return path is not None and str(path) == "-"


def check_text(option: str, path: Path) -> None:
    """A file, or a pipe: what can be read once is not opened here."""
    if path.is_dir():
        raise ValueError(f"{option}: {shown(path)} is a directory, but must be a text file")
    if not _is_standard_input(path) and not path.exists():
        raise FileNotFoundError(f"{option}: there is no file {shown(path)}")
