"""What a user's method is, as far as its source tells: so that a mended one is another."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import marshal
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

__all__ = ["source_hash"]

# Whose modules are not the user's.
LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
INSTALLED = {Path(path).resolve() for path in (*LIBRARIES, *site.getsitepackages(), Path(__file__).parent)}
PLAIN = (bool, int, float, complex, str, bytes, type(None))


def source_hash(function: Callable[..., Any]) -> str:
    """SHA-256 of the source of a function's module and of every module of the user's that it uses; of the function and
    those that it calls in a script, in a notebook or at a prompt; and of the plain values that a closure, a partial or
    an object holds. What it reads from files is not known.
    """
    texts: dict[str, bytes] = {}
    _gather(function, texts)
    if len(texts) == 1:
        return hashlib.sha256(*texts.values()).hexdigest()
    whole = hashlib.sha256()
    for name, text in sorted(texts.items()):
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(text).digest())
    return whole.hexdigest()


def _gather(value: Any, texts: dict[str, bytes], name: str = "") -> None:
    if isinstance(value, functools.partial):
        _gather(value.func, texts, name)
        for key, held in [*enumerate(value.args), *value.keywords.items()]:
            _gather(held, texts, f"{name} partial {key}")
    elif isinstance(value, ModuleType):
        file = getattr(value, "__file__", None)
        if file and value.__name__ not in texts and _is_users(Path(file)):
            _gather_module(value, texts)
    elif callable(value):
        _gather_callable(value, texts, name)
    elif text := _plain(value):
        texts[name] = text


def _gather_module(module: ModuleType, texts: dict[str, bytes]) -> None:
    """Its text, and those of the user's modules that it imports, wherever it does."""
    file = Path(module.__file__)
    try:
        text = inspect.getsource(module).encode()
    except (OSError, TypeError):  # it is built from no text
        text = file.read_bytes()
    _gather_text(module.__name__, text, texts)


def _gather_text(name: str, text: bytes, texts: dict[str, bytes]) -> None:
    texts[name] = text
    for imported in _imports(name, text):
        file = _file_of(imported)
        if imported not in texts and file is not None and file.is_file() and _is_users(file):
            _gather_text(imported, file.read_bytes(), texts)


def _imports(name: str, text: bytes) -> Iterator[str]:
    """The modules that a module's text may import."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (entry.name for entry in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(name.split(".")[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            yield base
            yield from (f"{base}.{entry.name}" for entry in node.names)


def _file_of(module: str) -> Path | None:
    """Of one that is imported already, or that could be."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
    elif "." in module or not module:
        return None
    else:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file else None


def _is_users(file: Path) -> bool:
    return file.suffix == ".py" and not any(file.resolve().is_relative_to(path) for path in INSTALLED)


def _gather_callable(function: Callable[..., Any], texts: dict[str, bytes], name: str) -> None:
    module = inspect.getmodule(function)
    if module is not None and module.__name__ != "__main__" and getattr(module, "__file__", None):
        if module.__name__ not in texts:
            _gather_module(module, texts)
        name = name or module.__name__
    else:
        name = f"{name} {getattr(function, '__qualname__', type(function).__qualname__)}"
        if name in texts:
            return
        texts[name] = _text(function)
        if isinstance(function, FunctionType):
            for used in set(_names(function.__code__)) & function.__globals__.keys():
                _gather(function.__globals__[used], texts, f"global {used}")
    if isinstance(function, FunctionType):
        free = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        held = {variable: cell.cell_contents for variable, cell in free if _is_filled(cell)}
    else:
        held = {} if isinstance(function, type) else dict(getattr(function, "__dict__", {}))
    for variable, value in held.items():
        if value is not function:
            if text := _plain(value):
                texts[f"{name} holds {variable}"] = text
            elif isinstance(value, FunctionType | functools.partial) and inspect.getmodule(value) is not module:
                _gather(value, texts)


def _text(function: Callable[..., Any]) -> bytes:
    try:
        return inspect.getsource(function).encode()
    except (OSError, TypeError):  # typed at a prompt, or no function
        code = getattr(function, "__code__", None)
        return marshal.dumps(code) if code else repr(type(function)).encode()


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _plain(value: Any) -> bytes:
    """What a number, a text, or a list of them is; empty for what is none."""
    if isinstance(value, PLAIN) or isinstance(value, list | tuple) and all(isinstance(item, PLAIN) for item in value):
        return repr(value).encode()
    return b""


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
