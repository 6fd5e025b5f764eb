"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["TEMPORARY", "write_whole"]

TEMPORARY = ".hemostat-save-"  # what the names of temporary directories begin with, those of Model.save too


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file that appears whole or not at all, with the permissions that the umask gives.

    Args:
        path: Where. Of a link the file that it names is written; what is no regular file (a pipe, ``/dev/stdout``) is
            written to as it is.
        text: What it holds.

    Raises:
        FileNotFoundError: Its directory does not exist.
        OSError: It cannot be written; the error names it, and what was there stays.
    """
    data = text.encode()
    place = Path(os.path.realpath(path))
    try:
        if _is_special(path):
            with open(path, "wb") as file:
                file.write(data)
            return
        if place.is_dir():
            raise IsADirectoryError(f"hemostat: {os.fspath(path)} is a directory, but must be a file")
        if not place.parent.is_dir():
            raise FileNotFoundError(f"hemostat: there is no directory {place.parent} for {place.name}")
        with _temporary_directory(place.parent) as directory:
            with open(directory / place.name, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(directory / place.name, place)
    except OSError as error:
        if error.errno is None:  # ours
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _is_special(path: str | os.PathLike[str]) -> bool:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextlib.contextmanager
def _temporary_directory(where: Path) -> Iterator[Path]:
    """A directory in another, removed at the end; its lock says that its process lives."""
    _remove_leftovers(where)
    descriptor = None
    while descriptor is None:
        directory = Path(tempfile.mkdtemp(dir=where, prefix=TEMPORARY))
        descriptor = _lock(directory)  # None: somebody who removes leftovers came first
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _remove_leftovers(where: Path) -> None:
    """Those of killed processes. Where directories cannot be locked, nobody can tell, and everything stays."""
    for leftover in where.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(leftover, ignore_errors=True)
            finally:
                os.close(descriptor)


def _lock(directory: Path) -> int | None:
    """A descriptor whose life is the lock's; None where another process has it or removed the directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # there are no such locks here
        pass
    if not directory.exists():
        os.close(descriptor)
        return None
    return descriptor
