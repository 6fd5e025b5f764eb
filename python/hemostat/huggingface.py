"""Checkpoints on the Hugging Face Hub, and models of transformers."""

from __future__ import annotations

import functools
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hemostat import _C

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

__all__ = ["checkpoint_directory", "from_transformers", "to_transformers", "tokenizer"]

# What a checkpoint of ours can need; weights in other formats stay where they are.
FILES = [
    "config.json",
    "generation_config.json",
    "hemostat.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "*.model",
]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def checkpoint_directory(checkpoint: str | os.PathLike[str]) -> str:
    """The directory or GGUF file that holds a checkpoint.

    Args:
        checkpoint: a directory, a GGUF file, or a model's id on the Hugging Face Hub (``"org/name"``), which is looked
            for in the local cache first and downloaded if it is not there. Nothing is downloaded for what can only be
            a path.

    Returns:
        str: a directory or a GGUF file; what can only be a path comes back as it is.

    Raises:
        ValueError: it is neither a directory nor a model that can be reached on the Hub.
    """
    path = os.path.expanduser(os.fspath(checkpoint))
    local = isinstance(checkpoint, os.PathLike) or os.path.exists(path) or not _may_be_id(path)
    return path if local else _snapshot(path)


def tokenizer(source: str) -> Tokenizer:
    """The tokenizer beside a checkpoint or in a GGUF file, loaded once.

    Args:
        source: a model's ``source``.

    Returns:
        tokenizers.Tokenizer: from ``tokenizer.json``, or a GGUF file's metadata.

    Raises:
        ValueError: there is none.
    """
    if not source:
        raise ValueError(
            "hemostat.Model.tokenizer: the model was not loaded from a directory or file, so it has no tokenizer"
        )
    inside = source.endswith(".gguf")
    path = Path(source) if inside else Path(source) / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"hemostat.Model.tokenizer: {'there is no' if inside else source + ' has no'} {path.name}")
    return _read_tokenizer(str(path), path.stat().st_mtime_ns)


def from_transformers(module: PreTrainedModel) -> _C.Model:
    """A model on the tensors of a transformers module; see :meth:`hemostat.Model.from_transformers`.

    Args:
        module: a causal language model of transformers. Its tensors are shared, gradients included.

    Returns:
        Model: the model.

    Raises:
        TypeError: it has no config of transformers.
        ValueError: its config cannot be honoured; the message names the field.
    """
    config: Any = getattr(module, "config", None)
    if not isinstance(module, torch.nn.Module) or not hasattr(config, "to_diff_dict"):
        raise TypeError(
            f"hemostat.Model.from_transformers: module is a {type(module).__name__}, "
            "but must be a causal language model of transformers"
        )
    fields = json.loads(config.to_json_string(use_diff=True)) | {"architectures": [type(module).__name__]}
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:  # a tied head is the embedding
            seen.add(id(tensor))
            tensors[name] = tensor
    dtype = next(iter(tensors.values())).dtype
    fields.pop("torch_dtype", None)
    fields["dtype"] = str(dtype).removeprefix("torch.")
    return _C.Model.from_tensors(json.dumps(fields), tensors)


def to_transformers(model: _C.Model) -> PreTrainedModel:
    """A transformers module on a model's tensors; see :meth:`hemostat.Model.to_transformers`.

    Args:
        model: the model. Its tensors are shared.

    Returns:
        transformers.PreTrainedModel: in evaluation mode.

    Raises:
        ImportError: transformers is not installed.
        ValueError: transformers cannot express the model.
    """
    fields: dict[str, Any] = json.loads(_C.family_config(model))
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError:
        raise ImportError(
            "hemostat.Model.to_transformers: transformers is not installed; run: pip install transformers"
        ) from None
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    tensors = {name: tensor.detach() for name, tensor in model.tensors().items()}
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # from_pretrained, unlike from_config, allocates no weights, and fills the buffers that no checkpoint holds.
        family: Any = AutoModelForCausalLM._model_mapping[type(config)]
        module, report = family.from_pretrained(
            None, config=config, state_dict=tensors, dtype=model.dtype, output_loading_info=True
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise ValueError(
                f"hemostat.Model.to_transformers: {type(module).__name__} has other tensors than the model "
                f"({problem.replace('_', ' ')}: {sorted(report[problem])})"
            )
    return module


def _may_be_id(text: str) -> bool:
    return (
        HUB_ID.fullmatch(text) is not None
        and ".." not in text
        and not text.endswith((".json", ".safetensors", ".gguf"))
    )


def _snapshot(identifier: str) -> str:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"hemostat.Model.load: {identifier!r} is not a directory; "
            "to load it from the Hugging Face Hub, run: pip install huggingface_hub"
        ) from None

    try:
        cached = snapshot_download(identifier, local_files_only=True, allow_patterns=FILES, ignore_patterns=["*/*"])
        if _is_complete(Path(cached)):
            return cached
    except Exception:  # whatever is wrong with the cache, the Hub may still have it
        pass
    try:
        return snapshot_download(identifier, allow_patterns=FILES, ignore_patterns=["*/*"])
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"hemostat.Model.load: {identifier!r} is neither a directory nor a model that can be reached on the "
            f"Hugging Face Hub ({type(error).__name__}: {reason[0]})"
        ) from None


def _is_complete(directory: Path) -> bool:
    """Whether a cached snapshot has its config and every file of its weights."""
    if not (directory / "config.json").is_file():
        return False
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((directory / shard).is_file() for shard in shards)
    return (directory / "model.safetensors").is_file()


@functools.lru_cache(maxsize=8)
def _read_tokenizer(path: str, modified: int) -> Tokenizer:
    from tokenizers import Tokenizer

    if path.endswith(".gguf"):
        description = _C.gguf_tokenizer(path)
        if description is None:
            raise ValueError(f"hemostat.Model.tokenizer: {path} has no tokenizer")
    else:
        description = Path(path).read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(description)
    except Exception as error:  # the tokenizers library raises Exception itself
        raise ValueError(f"hemostat.Model.tokenizer: {path} is not a tokenizer: {error}") from None
