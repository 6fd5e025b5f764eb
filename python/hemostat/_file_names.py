"""Names of files, which are bytes, as people read them."""

from __future__ import annotations

import os

__all__ = ["printable", "shown"]


def shown(path: str | os.PathLike[str]) -> str:
    """A path for people to read."""
    return "standard input" if os.fspath(path) == "-" else printable(path)


def printable(text: str | os.PathLike[str]) -> str:
    """Text that may hold a file's name, in characters that every encoding of Unicode takes: names are bytes."""
    return os.fsencode(text).decode("utf-8", "replace")
