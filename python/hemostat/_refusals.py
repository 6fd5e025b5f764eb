"""A sentence for a call whose arguments fit no signature of the extension, where pybind11 would list all it knows.

The extension asks for it when such a call has failed (bindings/refusals.cpp); calls that succeed never come here.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch


class _Parameter(NamedTuple):
    name: str
    annotation: str
    optional: bool


class _Signature(NamedTuple):
    positional: list[_Parameter]  # these may be given by name too
    named: list[_Parameter]  # by name only
    more: bool  # *args
    any_name: bool  # **kwargs


class _Misfit(NamedTuple):
    """A value, or the entry of one, that is not of the kind that its argument takes."""

    path: str  # "weights[2]"
    value: Any
    annotation: str


def message(scope: Any, name: str, signatures: list[str], given: tuple, named: dict[str, Any]) -> str:
    """What is wrong with a call, in one line.

    Args:
        scope: The module or class that holds the function.
        name: The function's own name.
        signatures: pybind11's text of each overload, ``"(weight: torch.Tensor, *, bits: int = 4) -> torch.Tensor"``.
        given: Positional arguments, of a method with the object itself.
        named: Keyword arguments.
    """
    objections = [_objection(_parsed(text), given, named, isinstance(scope, type)) for text in signatures]
    # A wrong type is found only where number and names are right, so that overload came closest.
    misfits = [objection for objection in objections if isinstance(objection, _Misfit)]
    what = _refusal(misfits) if misfits else objections[0]
    return f"{_operation(scope, name)}: {what}"


def _operation(scope: Any, name: str) -> str:
    """hemostat.prune.wanda, hemostat.Model.forward, or hemostat.MethodSpec of its __init__."""
    holder = f"{scope.__module__}.{scope.__qualname__}" if isinstance(scope, type) else scope.__name__
    return (holder if name == "__init__" else f"{holder}.{name}").replace("hemostat._C", "hemostat", 1)


def _refusal(misfits: list[_Misfit]) -> str:
    path, value, _ = misfits[0]
    takes = " or ".join(dict.fromkeys(_takes(misfit.annotation) for misfit in misfits))
    array = not isinstance(value, str | Mapping) and (_is_sequence(value) or hasattr(value, "__array__"))
    hint = "; torch.as_tensor makes one" if array and "a torch.Tensor" in takes else ""
    return f"{path} is {_spelt(value)}, but takes {takes}{hint}"


def _spelt(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 80 else f"a {type(value).__name__} of {len(text)} characters"
    module = type(value).__module__
    return f"a {type(value).__qualname__}" if module == "builtins" else f"a {module}.{type(value).__qualname__}"


# Signatures.


def _parsed(signature: str) -> _Signature:
    text = re.sub(r"typing\.Supports(Int|Float)( \| typing\.SupportsIndex)?", lambda kind: kind[1].lower(), signature)
    inside = text[1 : text.rindex(") ->")]
    result = _Signature([], [], "*args" in inside, "**kwargs" in inside)
    parameters = result.positional
    for entry in _split(inside, ","):
        if entry.startswith("*"):
            parameters = result.named
        elif entry and entry != "/":
            name, _, rest = entry.partition(":")
            annotation, *default = _split(rest, "=")
            parameters.append(_Parameter(name, annotation, bool(default)))
    return result


def _split(text: str, separator: str) -> Iterator[str]:
    """The parts between separators outside brackets and quotes."""
    depth, quote, start = 0, "", 0
    for index, letter in enumerate(text):
        if quote or letter in "'\"":
            quote = letter if not quote else "" if letter == quote else quote
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == separator and depth == 0:
            yield text[start:index].strip()
            start = index + 1
    yield text[start:].strip()


def _objection(signature: _Signature, given: tuple, named: dict[str, Any], method: bool) -> str | _Misfit:
    """The first thing that keeps a call from fitting a signature."""
    positional, every = signature.positional, {p.name: p for p in [*signature.positional, *signature.named]}
    own = int(method and "self" in every)  # no argument to who calls
    names = list(every)[own:]
    for name in named:
        if name not in every and not signature.any_name:
            near = difflib.get_close_matches(name, names, n=1)
            meant = f"did you mean {near[0]}?" if near else f"it takes {', '.join(names) or 'none'}"
            return f"there is no argument {name}; {meant}"
    if len(given) > len(positional) and not signature.more:
        by_name = f"; by name it takes {', '.join(p.name for p in signature.named)}" if signature.named else ""
        count = len(given) - own
        plural = "" if count == 1 else "s"
        return f"got {count} argument{plural} by position, but takes {len(positional) - own}{by_name}"
    bound = dict(zip((parameter.name for parameter in positional), given, strict=False))
    for name, value in named.items():
        if name in bound:
            return f"{name} is given twice, by position and by name"
        bound[name] = value
    for name, parameter in every.items():
        if name not in bound and not parameter.optional:
            return f"{name} is missing"
    for name in names:
        misfit = _misfit(_called(name), bound[name], every[name].annotation) if name in bound else None
        if misfit:
            return misfit
    # Each fits as far as can be told from here, so it is a number that only some kinds of integers hold.
    for name in names:
        value, annotation = bound.get(name), every[name].annotation
        if "int" in _split(annotation, "|") and _is_whole(value) and not 0 <= value < 2**63:
            return _Misfit(_called(name), value, annotation)
    return f"cannot take {', '.join(f'{_called(name)} = {_spelt(bound[name])}' for name in names if name in bound)}"


def _called(name: str) -> str:
    return "the value" if re.fullmatch(r"arg\d+", name) else name  # of a setter, or an operator


# Kinds of values. An annotation is kinds between bars.


def _misfit(path: str, value: Any, annotation: str) -> _Misfit | None:
    kinds = list(_split(annotation, "|"))
    if any(_fits(value, kind) for kind in kinds):
        return None
    for kind in kinds:
        name, *inner = _generic(kind)
        if name == "Sequence" and _is_sequence(value):
            for index, entry in enumerate(value):
                misfit = _misfit(f"{path}[{index}]", entry, inner[0])
                if misfit:
                    return misfit
    return _Misfit(path, value, annotation)


def _generic(kind: str) -> list[str]:
    """Sequence and X of collections.abc.Sequence[X]."""
    name, bracket, inside = kind.partition("[")
    return [name.rpartition(".")[2], *(_split(inside[:-1], ",") if bracket else [])]


def _fits(value: Any, kind: str) -> bool:
    name, *inner = _generic(kind)
    if kind in _PLAIN:
        return _PLAIN[kind][1](value)
    if name == "Callable":
        return callable(value)
    if name == "Sequence":
        return _is_sequence(value) and all(_misfit("", entry, inner[0]) is None for entry in value)
    if name == "Annotated":  # a sequence of fixed size
        return _misfit("", value, inner[0]) is None and len(value) == _size(inner)
    if name == "tuple" and inner:
        if not isinstance(value, tuple | list) or len(value) != len(inner):
            return False
        return all(_misfit("", entry, one) is None for entry, one in zip(value, inner, strict=True))
    if name == "Mapping":
        if not isinstance(value, Mapping):
            return False
        return all(not _misfit("", key, inner[0]) and not _misfit("", entry, inner[1]) for key, entry in value.items())
    module, _, last = kind.rpartition(".")
    found = getattr(importlib.import_module(module or "builtins"), last, None)
    return not isinstance(found, type) or isinstance(value, found)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes)


def _is_number(value: Any) -> bool:
    if isinstance(value, str | bytes) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        return False
    try:
        float(value)
    except Exception:
        return False
    return True


def _is_whole(value: Any) -> bool:
    if isinstance(value, float) or not _is_number(value):
        return False
    return -(2**63) <= int(value) == value < 2**64


# What is said of a kind, and who is of it.
_PLAIN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "None": ("None", lambda value: value is None),
    "int": ("a whole number of 64 bits", _is_whole),
    "float": ("a number", _is_number),
    "bool": ("True or False", lambda value: hasattr(value, "__bool__") and not isinstance(value, torch.Tensor)),
    "str": ("a str", lambda value: isinstance(value, str | bytes)),
    "object": ("anything", lambda value: True),
}


def _takes(annotation: str) -> str:
    """An annotation in words, None last."""
    kinds = sorted(_split(annotation, "|"), key=lambda kind: kind == "None")
    return " or ".join(dict.fromkeys(map(_words, kinds)))


def _words(kind: str) -> str:
    name, *inner = _generic(kind)
    if kind in _PLAIN:
        return _PLAIN[kind][0]
    if name == "Callable":
        return "a function"
    if name == "Sequence":
        return f"a list whose entries are each {_takes(inner[0])}"
    if name == "Annotated":
        return f"{_takes(inner[0])}, {_size(inner)} of them"
    if name == "tuple" and inner:
        return f"a tuple of {', '.join(map(_takes, inner))}"
    if name == "Mapping":
        return f"a dict from {_takes(inner[0])} to {_takes(inner[1])}"
    return f"a {kind.replace('hemostat._C', 'hemostat')}"


def _size(annotated: list[str]) -> int:
    return int(re.sub(r"\D", "", annotated[-1]))
