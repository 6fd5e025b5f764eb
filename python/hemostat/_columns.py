"""Columns: rows of text aligned for a terminal, and nested facts as the columns of one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of equal columns under a rule: the first ``left`` of them to the left, the others to the right."""
    everything = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(f"{cell:<{w}}" if i < left else f"{cell:>{w}}" for i, (cell, w) in enumerate(cells)).rstrip()

    return [line(head), "─" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]


def flat(damage: Mapping[str, Any]) -> dict[str, Any]:
    """kl.mean becomes kl_mean, an interval two columns; lists by window are left out."""
    row: dict[str, Any] = {}
    for name, value in damage.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{inner}": item for inner, item in flat(value).items()}
        elif name.endswith("_interval"):
            row[f"{name[: -len('_interval')]}_low"], row[f"{name[: -len('_interval')]}_high"] = value or (None, None)
        elif not isinstance(value, list):
            row[name] = value
    return row
