"""Checkpoints on the Hugging Face Hub, and models of transformers."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hemostat import _C
from hemostat._file_names import shown
from hemostat._streamed_text import LFS_POINTER

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

__all__ = ["checkpoint_directory", "from_transformers", "to_transformers", "tokenizer"]

# What a checkpoint of ours can need; weights in other formats stay where they are.
FILES = [
    "config.json",
    "adapter_config.json",
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
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
    "NOTICE*",
    "README*",
    "USE_POLICY*",
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
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(
            f"hemostat.Model.load: checkpoint is a {type(checkpoint).__name__}, but must be a path or an id on the Hub"
        )
    path = os.path.expanduser(os.fsdecode(checkpoint))
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
    inside = source.endswith(".gguf") and not Path(source).is_dir()
    path = Path(source) if inside else Path(source) / "tokenizer.json"
    if path.is_file():
        return _read_tokenizer(str(path), path.stat().st_mtime_ns)
    if inside:
        raise ValueError(f"hemostat.Model.tokenizer: there is no {shown(path)}")
    return _converted_tokenizer(source)


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
    for wrapper in ("_orig_mod", "module"):  # torch.compile's and DistributedDataParallel's
        if isinstance(inner := getattr(module, wrapper, None), torch.nn.Module):
            module = inner
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
    except ImportError:
        raise ImportError(
            "hemostat.Model.to_transformers: transformers is not installed; run: pip install transformers"
        ) from None
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    tensors = {name: tensor.detach() for name, tensor in model.tensors().items()}
    with without_bars():
        # from_pretrained, unlike from_config, allocates no weights, and fills the buffers that no checkpoint holds.
        family: Any = AutoModelForCausalLM._model_mapping[type(config)]
        module, report = family.from_pretrained(
            None, config=config, state_dict=tensors, dtype=model.dtype, output_loading_info=True
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[problem]:
            raise ValueError(
                f"hemostat.Model.to_transformers: {type(module).__name__} has other tensors than the model "
                f"({problem.replace('_', ' ')}: {sorted(report[problem])})"
            )
    return module


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """transformers, which must be installed, draws no progress bars."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


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

    cached: str | None = None
    with contextlib.suppress(Exception):  # whatever is wrong with the cache, the Hub may still have it
        cached = snapshot_download(identifier, local_files_only=True, allow_patterns=FILES, ignore_patterns=["*/*"])
    missing = _missing(Path(cached)) if cached else []
    if cached and not missing:
        return cached
    try:
        return snapshot_download(identifier, allow_patterns=FILES, ignore_patterns=["*/*"])
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
    if cached is None:
        raise ValueError(
            f"hemostat.Model.load: {identifier!r} is neither a directory nor a model that can be reached on the "
            f"Hugging Face Hub ({reason}){_other_revisions(identifier)}"
        )
    advice = f"its cached copy has no {' and no '.join(missing)}, and the Hub cannot be reached ({reason}); "
    advice += f"once it can: hf download {identifier}"
    if missing != [TOKENIZER]:
        raise ValueError(f"hemostat.Model.load: {identifier!r}: {advice}")
    warnings.warn(f"hemostat.Model.load: {identifier!r}: {advice}", stacklevel=3)
    return cached


TOKENIZER = "tokenizer.json"


def _other_revisions(identifier: str) -> str:
    """Where the cache holds a model of the id, but not the revision that it would be given."""
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE) / f"models--{identifier.replace('/', '--')}" / "snapshots"
    held = sorted(path for path in snapshots.glob("*") if (path / "config.json").is_file())
    return f"; the cache holds other revisions of it, as directories: {', '.join(map(shown, held))}" if held else ""


def _missing(directory: Path) -> list[str]:
    """Files that a cached snapshot lacks: its config, those of its weights, and a tokenizer of some kind."""
    needed = ["config.json"]
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        needed += sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        needed.append("model.safetensors")
    missing = [name for name in needed if not (directory / name).is_file()]
    if not any((directory / name).is_file() for name in (TOKENIZER, "tokenizer.model", "vocab.json")):
        missing.append(TOKENIZER)
    return missing


# What a tokenizer that is not in tokenizer.json is made of.
OLDER_TOKENIZERS = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tekken.json")


@functools.lru_cache(maxsize=8)
def _converted_tokenizer(source: str) -> Tokenizer:
    """The tokenizer of a directory without tokenizer.json, which transformers makes of older files."""
    found = [name for name in OLDER_TOKENIZERS if (Path(source) / name).is_file()]
    if not found:
        hub = re.search(r"models--([^/]+)--([^/]+)/snapshots/", source)
        advice = f"; fetch it: hf download {hub[1]}/{hub[2]} tokenizer.json tokenizer_config.json" if hub else ""
        raise ValueError(f"hemostat.Model.tokenizer: {shown(source)} has no tokenizer.json{advice}")
    for name in found:
        _refuse_lfs_pointer(Path(source) / name)
    what = f"hemostat.Model.tokenizer: {shown(source)} has no tokenizer.json, but {', '.join(found)}"
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ValueError(
            f"{what}, which transformers reads; run: pip install transformers sentencepiece protobuf"
        ) from None
    try:
        made = AutoTokenizer.from_pretrained(source, local_files_only=True)
        backend = getattr(made, "backend_tokenizer", None)
    except Exception as error:  # of many kinds: a package is missing, a file is malformed
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{what}, of which transformers makes none ({lines[0]}); pip install sentencepiece protobuf may help, or "
            "save tokenizer.json beside it: AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        ) from None
    if backend is None:
        raise ValueError(
            f"{what}, of which transformers makes a {type(made).__name__}, which is not one of the tokenizers library; "
            "save tokenizer.json beside it with its convert_slow_tokenizer"
        )
    return backend


def _refuse_lfs_pointer(path: Path) -> None:
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"hemostat.Model.tokenizer: {shown(path)} is a git-lfs pointer, not the file itself; run: git lfs pull"
            )


@functools.lru_cache(maxsize=8)
def _read_tokenizer(path: str, modified: int) -> Tokenizer:
    from tokenizers import Tokenizer

    if path.endswith(".gguf"):
        description = _C.gguf_tokenizer(path)
        if description is None:
            raise ValueError(f"hemostat.Model.tokenizer: {path} has no tokenizer")
    else:
        _refuse_lfs_pointer(Path(path))
        try:
            description = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"hemostat.Model.tokenizer: {shown(path)} is not UTF-8 text (byte {error.start})"
            ) from None
    try:
        return Tokenizer.from_str(description)
    except Exception as error:  # the tokenizers library raises Exception itself
        raise ValueError(f"hemostat.Model.tokenizer: {path} is not a tokenizer: {error}") from None
