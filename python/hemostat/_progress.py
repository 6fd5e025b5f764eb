"""What long work tells while it goes on: bars on a terminal, and lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from tqdm import tqdm

from hemostat import _C
from hemostat._number_text import number, signed

__all__ = ["Progress", "ScanProgress", "StagedProgress", "bar", "duration", "scan_display", "staged_bar"]

# None: a bar where there is a terminal; True or False: always or never; or a function (done, total).
Progress = bool | Callable[[int, int], None] | None
# The same, the function (stage, done, total).
StagedProgress = bool | Callable[[str, int, int], None] | None
# The same; or lines.
ScanProgress = StagedProgress | Literal["lines"]


@contextmanager
def bar(progress: Progress, description: str, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """What long work calls with (done, total)."""
    if progress is False or callable(progress):
        yield progress or None
        return
    with tqdm(desc=description, unit=unit, disable=_disabled(progress), leave=False) as display:

        def update(done: int, total: int) -> None:
            display.total = total
            display.update(done - display.n)

        yield update


@contextmanager
def staged_bar(progress: StagedProgress) -> Iterator[Callable[[str, int, int], None] | None]:
    """What long work in stages calls with (stage, done, total)."""
    if progress is False or callable(progress):
        yield progress or None
        return
    with tqdm(disable=_disabled(progress), leave=False) as display:

        def update(stage: str, done: int, total: int) -> None:
            display.set_description_str(stage, refresh=False)
            display.total = total
            display.n = done
            display.refresh()

        yield update


def scan_display(progress: ScanProgress, finished: int, trials: int) -> ScanBar | ScanLines:
    """What a scan tells its progress to.

    Args:
        progress: as :func:`hemostat.scan` takes it.
        finished: trials that need not be run.
        trials: all of them.

    Raises:
        ValueError: progress is another word than "lines".
    """
    if isinstance(progress, str) and progress != "lines":
        raise ValueError(f'hemostat.scan: progress is {progress!r}, but takes a bool, "lines", a function or None')
    return ScanLines() if progress == "lines" else ScanBar(progress, finished, trials)


class ScanBar:
    """A tqdm bar over trials; silent where there is no terminal, unless told."""

    def __init__(self, progress: StagedProgress, finished: int, trials: int):
        self._function = progress if callable(progress) else None
        self._bar = tqdm(total=trials, initial=finished, disable=_disabled(progress), unit="trial", dynamic_ncols=True)

    def __enter__(self) -> ScanBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if self._function:
            self._function(stage, done, total)
            return
        self._bar.set_description_str(stage if stage == "trials" else f"{stage} {done}/{total}")
        if stage == "trials":
            self._bar.update(done - self._bar.n)

    def on_trial(self, trial: _C.Trial) -> None:
        pass  # on_progress counts it


class ScanLines:
    """A line on standard error for each stage that begins and each trial that ends."""

    def __init__(self) -> None:
        self._stage = ""
        self._done = self._total = self._measured = 0
        self._began = self._trials_began = time.monotonic()

    def __enter__(self) -> ScanLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if stage == "trials":
            if not self._measured and self._stage != stage:
                self._trials_began = time.monotonic()
            self._done, self._total = done, total
        elif stage != self._stage:
            _print(f"{stage}: {total} windows" if total else stage)
        self._stage = stage

    def on_trial(self, trial: _C.Trial) -> None:
        self._measured += 1
        done, now = self._done + 1, time.monotonic()  # on_progress hears of it after this
        each = (now - self._trials_began) / self._measured
        left = f", about {duration(each * (self._total - done))} left" if done < self._total else ""
        damage = f"ΔNLL {signed(trial.damage.delta_nll)}"
        _print(
            f"{done} of {self._total}: {trial.method} at {number(trial.severity)}: {damage}; "
            f"{duration(now - self._began)} gone{left}"
        )


def _print(line: str) -> None:
    with suppress(OSError):  # nobody need read it
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: "4.2 s", "12 min", "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _disabled(progress: object) -> bool | None:
    """tqdm's ``disable``; None: silent where standard error is no terminal."""
    return None if progress is None else progress is not True
