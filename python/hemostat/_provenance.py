"""What a result rests on: the model, the tokens, the code and the machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from hemostat import _C, data
from hemostat._file_names import printable

__all__ = [
    "byte_count",
    "file_hash",
    "machine_facts",
    "model_facts",
    "model_hashes",
    "processor",
    "token_facts",
    "versions",
]


def model_facts(model: _C.Model, sha256: str) -> dict[str, Any]:
    """Which model it is; ``sha256``: the first of :func:`model_hashes`."""
    return {
        "name": printable(Path(model.source).name) if model.source else None,
        "source": printable(model.source) if model.source else None,
        "family": model.config.family,
        "parameters": model.parameters,
        "blocks": len(model.blocks),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "sha256": sha256,
    }


def model_hashes(model: _C.Model) -> tuple[str, str]:
    """SHA-256 of what the model computes with: its structure, in which a config's values are, and each tensor's name,
    dtype, shape and bytes. Then the same with the config's text, by which scans knew a model once.
    """

    def digest(tensor: torch.Tensor) -> bytes:
        flat = tensor.detach().cpu().contiguous().flatten()
        return hashlib.sha256(flat.view(torch.uint8).numpy()).digest()

    tensors = sorted(model.tensors().items())
    structure = _C.structure(model).encode()
    today, former = hashlib.sha256(structure), hashlib.sha256(model.config.json.encode() + structure)
    pool = ThreadPoolExecutor()  # hashlib lets other threads run meanwhile
    try:
        parts = pool.map(digest, (tensor for _, tensor in tensors))
        for (name, tensor), part in zip(tensors, parts, strict=True):
            entry = f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + part
            today.update(entry), former.update(entry)
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption doesn't wait for the rest
    return today.hexdigest(), former.hexdigest()


def file_hash(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None of what can be read but once, such as a pipe."""
    if not path.is_file():
        return None
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**20):
            whole.update(piece)
    return whole.hexdigest()


def token_facts(tokens: torch.Tensor) -> dict[str, Any]:
    """How many windows of what length, and the SHA-256 of their IDs as int64."""
    windows, length = tokens.shape if tokens.dim() == 2 else (0, 0)
    ids = tokens.detach().cpu().to(torch.int64).contiguous()
    return {"windows": windows, "length": length, "sha256": hashlib.sha256(ids.numpy()).hexdigest()}


# Texts with so many equal tokens in a row share them; windows shorter than two such runs are compared as a whole.
RUN = 32


def shared_windows(calibration: torch.Tensor, evaluation: torch.Tensor) -> int:
    """How many windows of the calibration are evaluated: at least half of their text, wherever windows begin."""
    lengths = {tokens.shape[1] for tokens in (calibration, evaluation) if tokens.dim() == 2 and len(tokens)}
    if calibration.dim() != 2 or evaluation.dim() != 2 or not lengths:
        return 0
    if min(lengths) > 2 * RUN:
        run, skipped = RUN, 1  # the first token may be one that begins every window
    elif len(lengths) == 1:
        run, skipped = lengths.pop(), 0
    else:
        return 0
    factors = torch.randint(-(2**62), 2**62, (run,), generator=torch.Generator().manual_seed(0))

    def hashes(tokens: torch.Tensor, step: int) -> torch.Tensor:
        runs = tokens.detach().cpu().to(torch.int64)[:, skipped:].unfold(1, run, step)
        return torch.stack([(window * factors).sum(-1) for window in runs]) if len(runs) else runs.sum(-1)

    known = torch.isin(hashes(calibration, run), hashes(evaluation, 1).unique())
    return int((known.double().mean(1) >= 0.5).sum())


def byte_count(model: _C.Model, tokens: torch.Tensor) -> int | None:
    """None where the model has no tokenizer whose tokens have bytes; bits per byte are then left out."""
    try:
        return data.byte_count(model, tokens)
    except ValueError:
        return None


def versions() -> dict[str, str]:
    """Of the programs that decide on the numbers."""
    return {
        "hemostat": importlib.metadata.version("hemostat"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_facts(model: _C.Model) -> dict[str, Any]:
    """What computed."""
    facts = {"system": platform.platform(), "processor": processor(), "threads": torch.get_num_threads()}
    if model.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(model.device)
    return facts


def processor() -> str:
    """Its name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
