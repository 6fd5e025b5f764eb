"""User code that changes in place what it was only lent: found by content, and named."""

from __future__ import annotations

import functools
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

from hemostat import _C

__all__ = ["Contents", "guarded", "unchanged_by"]


class Contents:
    """What a model, statistics and other tensors hold, as checksums of every byte.

    A tensor's version counts no write through ``.data``, a numpy view or under inference mode; its bytes tell all, and
    reading them takes a fraction of any evaluation.
    """

    def __init__(
        self,
        model: _C.Model | None = None,
        statistics: _C.Statistics | None = None,
        tensors: Mapping[str, torch.Tensor] = {},
    ):
        self._model, self._statistics, self._tensors = model, statistics, tensors
        self._before = self._read()

    def changed(self) -> list[str]:
        """The names of what no longer holds what it did."""
        after = self._read()
        return [name for name, content in self._before.items() if after.get(name) != content]

    def _read(self) -> dict[str, Any]:
        named = {name: tensor for name, tensor in self._tensors.items() if isinstance(tensor, torch.Tensor)}
        found: dict[str, Any] = {}
        if self._model is not None:
            named |= self._model.tensors()
            found["the model's structure"] = _C.structure(self._model)
        if self._statistics is not None:  # their tensors are copies, but batches can be added
            for name in self._statistics:
                found[f"the statistics of {name}"] = self._statistics[name].count
        with ThreadPoolExecutor() as pool:  # zlib lets other threads run meanwhile
            return found | dict(zip(named, pool.map(_checksum, named.values()), strict=True))


def _checksum(tensor: torch.Tensor) -> tuple[Any, ...]:
    form = (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.device)
    if tensor.device.type == "meta":
        return form
    flat = tensor.detach()
    dense = torch.empty_like(flat, device="meta").stride() == flat.stride()
    flat = flat.as_strided((flat.numel(),), (1,)) if dense else flat.contiguous().flatten()
    return (*form, zlib.crc32(flat.cpu().view(torch.uint8).numpy()))


@contextmanager
def unchanged_by(who: str, contents: Contents) -> Iterator[None]:
    """Refuses what user code did within, also where it raised.

    Raises:
        ValueError: A tensor changed. Whose is named, and so is the tensor.
    """
    try:
        yield
    finally:
        check(who, contents)


def check(who: str, contents: Contents) -> None:
    """Raises ValueError naming who changed what."""
    if changed := contents.changed():
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ValueError(
            f"{who} changed {changed[0]}{more} in place, and what is measured from here on would rest on that; it must "
            "make new tensors, and give model.replace({name: tensor}). What is in memory is damaged: load it again"
        )


def guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A method's function whose calls, and those of the function of severity that it gives, may change nothing."""
    who = f"hemostat.method {name!r}{_place(function)}"

    @functools.wraps(function)
    def prepare(model: _C.Model, statistics: _C.Statistics | None, **options: Any) -> Any:
        with unchanged_by(who, Contents(model, statistics)):
            at = function(model, statistics, **options)
        if not callable(at):
            return at

        def guarded_at(severity: float) -> Any:
            with unchanged_by(who, Contents(model, statistics)):
                return at(severity)

        return guarded_at

    return prepare


def guarded_axis(name: str, function: Callable[..., _C.Axis]) -> Callable[..., _C.Axis]:
    """The same of the function that gives a method's axis for a model."""
    who = f"hemostat.method {name!r}{_place(function)}"

    @functools.wraps(function)
    def axis_for(model: _C.Model, **options: Any) -> _C.Axis:
        with unchanged_by(who, Contents(model)):
            return function(model, **options)

    return axis_for


def _place(function: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f" ({code.co_filename}, line {code.co_firstlineno})" if code else ""
