"""Bars on long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

# None: a bar where there is a terminal; True or False: always or never; or a function (done, total).
Progress = bool | Callable[[int, int], None] | None


def disabled(progress: object) -> bool | None:
    """tqdm's ``disable``; None: silent where standard error is no terminal."""
    return None if progress is None else progress is not True


@contextmanager
def bar(progress: Progress, description: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """What long work calls with (done, total)."""
    if progress is False or callable(progress):
        yield progress or None
        return
    with tqdm(desc=description, unit=unit, disable=disabled(progress), leave=False) as display:

        def update(done: int, total: int) -> None:
            display.total = total
            display.update(done - display.n)

        yield update
