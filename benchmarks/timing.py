"""How every benchmark here measures: medians of interleaved runs, since machines are noisy and drift."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    synchronize()
    begin = time.perf_counter()
    function()
    synchronize()
    return time.perf_counter() - begin


def with_result(function: Callable[[], Result]) -> tuple[Result, float]:
    """What one call gives, and its seconds."""
    results: list[Result] = []
    seconds = timed(lambda: results.append(function()))
    return results[0], seconds


def medians(functions: dict[str, Callable[[], object]], *, runs: int = 7, warmup: int = 1) -> dict[str, float]:
    """Median seconds of each, run in turn (A B C A B C …), so that a drift of the machine meets all of them alike."""
    for function in functions.values():
        for _ in range(warmup):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs):
        for name, function in functions.items():
            seconds[name].append(timed(function))
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(rows: Sequence[dict], tokens: torch.Tensor, file: Path | None) -> None:
    """Prints what took how many seconds and its ratio to the limit, and keeps that as JSON where a file is given."""
    print(f"{torch.get_num_threads()} threads, {tuple(tokens.shape)} tokens, torch {torch.__version__}")
    print(f"{'':64}{'seconds':>10}{'ratio':>8}")
    for row in rows:
        print(f"{row['what']:64}{row['seconds']:10.4f}{row['ratio']:8.2f}")
    if file:
        file.write_text(json.dumps(rows, indent=1))
