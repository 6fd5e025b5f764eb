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

__all__ = ["byte_count", "machine_facts", "model_facts", "processor", "token_facts", "versions", "weights_hash"]


def model_facts(model: _C.Model) -> dict[str, Any]:
    """Which model it is; ``sha256`` is :func:`weights_hash`."""
    return {
        "name": Path(model.source).name if model.source else None,
        "source": model.source or None,
        "family": model.config.family,
        "parameters": model.parameters,
        "blocks": len(model.blocks),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "sha256": weights_hash(model),
    }


def weights_hash(model: _C.Model) -> str:
    """SHA-256 over the model's config, its structure, and each tensor's name, dtype, shape and SHA-256, by name."""

    def digest(tensor: torch.Tensor) -> bytes:
        flat = tensor.detach().cpu().contiguous().flatten()
        return hashlib.sha256(flat.view(torch.uint8).numpy()).digest()

    tensors = sorted(model.tensors().items())
    whole = hashlib.sha256(model.config.json.encode() + _C.structure(model).encode())
    pool = ThreadPoolExecutor()  # hashlib lets other threads run meanwhile
    try:
        parts = pool.map(digest, (tensor for _, tensor in tensors))
        for (name, tensor), part in zip(tensors, parts, strict=True):
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + part)
    finally:
        pool.shutdown(cancel_futures=True)  # an interruption doesn't wait for the rest
    return whole.hexdigest()


def token_facts(tokens: torch.Tensor) -> dict[str, Any]:
    """How many windows of what length, and the SHA-256 of their IDs as int64."""
    windows, length = tokens.shape if tokens.dim() == 2 else (0, 0)
    ids = tokens.detach().cpu().to(torch.int64).contiguous()
    return {"windows": windows, "length": length, "sha256": hashlib.sha256(ids.numpy()).hexdigest()}


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
