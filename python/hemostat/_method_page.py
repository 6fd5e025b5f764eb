"""What the registry says of its methods: a list of one line each, and a page for one."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hemostat import _C
from hemostat._number_text import number

if TYPE_CHECKING:
    import pandas

__all__ = ["axis_facts", "method_frame", "method_list", "method_page", "plain"]

COLUMNS = 80


def method_list(methods: Sequence[_C.Method]) -> str:
    """Name and description, one line each, within 80 columns."""
    width = max((len(method.name) for method in methods), default=0)
    lines = [f"{method.name:<{width}}  {method.description}" for method in methods]
    return "\n".join(line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…" for line in lines)


def method_frame(methods: Sequence[_C.Method]) -> pandas.DataFrame:
    """One row each, for other programs."""
    import pandas

    return pandas.DataFrame(
        {
            "method": method.name,
            "changes": method.kind,
            "severity": method.axis.name,
            "unit": method.axis.unit,
            "neutral": method.axis.neutral,
            "farthest": method.axis.farthest,
            "needs": " ".join(sorted(method.needs)),
            "options": " ".join(f"{option.name}={plain(option.default)}" for option in method.options),
            "description": method.description,
        }
        for method in methods
    )


def method_page(method: _C.Method) -> str:
    """What it does, its severity, what it needs, its options, and how to try it, within 80 columns."""
    needs = ", ".join(sorted(method.needs))
    facts = [
        *axis_facts(method.axis),
        ("Changes", method.kind),
        ("Needs", f"{needs}, collected over calibration text" if needs else "no calibration text"),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{method.name}: {method.description}", ""]
    for name, value in facts:
        lines += textwrap.wrap(f"{name:<{width}}  {value}", COLUMNS, subsequent_indent=" " * (width + 2))
    if method.options:
        lines += ["", "Options, with their defaults:"]
    for option in method.options:
        meaning = option.description + (f" ({', '.join(option.choices)})" if option.choices else "")
        name = f"{option.name}={plain(option.default)}"
        lines += textwrap.wrap(f"  {name:<22}  {meaning}", COLUMNS, subsequent_indent=" " * 26)
    grid = method.axis.default_grid
    middle = plain(grid[len(grid) // 2]) if grid else plain(method.axis.farthest)
    text = " --text calibration.txt" if needs else ""
    return "\n".join(
        [
            *lines,
            "",
            "Try it:",
            f"  hemostat scan smollm2 --windows 4 --methods {shlex.quote(method.name)}",
            f"  hemostat scan CHECKPOINT --text eval.txt --methods {shlex.quote(f'{method.name}@{middle}')}",
            f"  hemostat apply CHECKPOINT --method {shlex.quote(method.name)} --severity {middle} \\",
            f"      --out OUT{text}",
        ]
    )


def axis_facts(axis: _C.Axis) -> list[tuple[str, str]]:
    """A severity axis in words."""
    reach = f"{plain(axis.minimum)} … {plain(axis.maximum)}"
    rises = "rises" if axis.farthest > axis.neutral else "falls"
    unit = f", {axis.unit}" if axis.unit and axis.unit != axis.name else ""
    facts = [
        ("Severity", axis.name + unit),
        ("Takes", f"{reach}, {axis.kind}; unchanged at {plain(axis.neutral)}; damage grows as it {rises}"),
        ("Default grid", ", ".join(map(plain, axis.default_grid))),
        ("Measured by", axis.measured_by.replace("_", " ")),
    ]
    if not axis.continuous_at_neutral:
        facts.append(("At neutral", "damage jumps there, so fits and zones leave the neutral point out"))
    return facts


def plain(value: Any) -> str:
    """An option's or a severity's value, as one types it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return number(value, 3)
    if isinstance(value, list):
        return "+".join(map(plain, value)) or "none"
    return str(value)
