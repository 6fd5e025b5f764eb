"""Forms of a table on standard output, and tolerances as one types them."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hemostat._number_text import number
from hemostat.report import TOLERANCES

if TYPE_CHECKING:
    import pandas

__all__ = ["Form", "Tolerances", "markdown_table", "parse_tolerances", "written"]


class Form(str, enum.Enum):
    """How a command prints its tables."""

    table = "table"
    csv = "csv"
    markdown = "markdown"


class Tolerances(NamedTuple):
    """How much damage counts as safe, and by what."""

    values: Sequence[float] = TOLERANCES
    by: str = "delta_nll"


CRITERIA = {"delta_nll": "delta_nll", "kl": "kl", "top1": "top1_agreement", "top1_agreement": "top1_agreement"}


def parse_tolerances(given: Sequence[str] | None) -> Tolerances:
    """``0.05``, ``kl=0.05,0.1``, ``top1=0.02``.

    Raises:
        ValueError: a word that names no criterion, two criteria at once, or what is no number above 0.
    """
    if not given:
        return Tolerances()
    values: list[float] = []
    criteria: list[str] = []
    for text in given:
        name, equals, numbers = text.rpartition("=")
        name = name.strip() or ("" if equals else "delta_nll")
        if name not in CRITERIA:
            raise ValueError(f"--tolerance is {text!r}, but takes a number, kl=NUMBER or top1=NUMBER")
        criteria.append(CRITERIA[name])
        for part in numbers.split(","):
            try:
                value = float(part)
            except ValueError:
                value = 0.0
            if not 0 < value < float("inf"):
                raise ValueError(f"--tolerance is {text!r}, but takes numbers above 0")
            values.append(value)
    if len(set(criteria)) > 1:
        raise ValueError(f"--tolerance is {' and '.join(given)}, but takes one criterion at a time")
    return Tolerances(list(dict.fromkeys(values)), criteria[0])


def written(frame: pandas.DataFrame, form: Form) -> str:
    """A data frame as CSV, every digit of it, or as a Markdown table of four digits."""
    if form is Form.csv:
        return frame.to_csv(index=False).rstrip("\n")
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return "\n".join(markdown_table(list(map(str, frame.columns)), rows))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in [head, ["---"] * len(head), *rows])
    return [f"| {line} |" for line in lines]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return number(value) if isinstance(value, float) else str(value)
