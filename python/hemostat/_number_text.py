"""Numbers, severities and lists as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hemostat import _C


def known(value: float | None) -> bool:
    """Whether there is a number, and a finite one."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, without exponent up to a million; a dash for None and for what is not finite."""
    if not known(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-5 <= abs(value) < 1e6:
        return f"{value:.{digits - 2}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: float | None) -> str:
    return "–" if not known(value) else f"{value:+.4f}" if abs(value) < 10 else f"{value:+.2f}"


def percent(value: float | None) -> str:
    return "–" if not known(value) else f"{100 * value:.1f} %"


def whole_percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def bytes_text(count: float) -> str:
    """Three digits and a unit of powers of 1000."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{number(count / size, 3)} {unit}"
    return f"{number(count, 3)} bytes"


def size_text(damage: _C.Damage) -> str:
    """What the damaged model takes as stored, and what that saves: "103 MB, −54 %"."""
    if damage.bytes is None or not damage.bytes_baseline:
        return "–"
    change = damage.bytes / damage.bytes_baseline - 1
    return bytes_text(damage.bytes) + (f", {100 * change:+.0f} %".replace("-", "−") if abs(change) >= 5e-4 else "")


def interval(bounds: Sequence[float | None] | None, form: Callable[[float | None], str]) -> str:
    return f"{form(bounds[0])} … {form(bounds[1])}" if bounds is not None and all(map(known, bounds)) else ""


def nats(value: float | None) -> str:
    """A difference of losses within a sentence: sign, and two digits or four decimals."""
    if not known(value):
        return "–"
    if abs(value) < 5e-5:
        return "±0.0000"
    return f"{value:+.{min(4, max(1, 1 - math.floor(math.log10(abs(value)))))}f}".replace("-", "−")


def windows_text(count: int) -> str:
    return "one window" if count == 1 else f"{count} windows"


def listed(items: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1]))) if items else ""


def severity_text(axis: _C.Axis, severity: float) -> str:
    """Three digits, and the unit where it is short: fractions have none, and long ones stand beside the axis's name."""
    unit = axis.unit
    return number(severity, 3) + (f" {unit}" if unit and " " not in unit and unit != "fraction" else "")


def axis_name(axis: _C.Axis) -> str:
    unit = f", {axis.unit}" if axis.unit and axis.unit != axis.name else ""
    return f"{axis.name.replace('_', ' ')}{unit}"


def plain(value: Any) -> str:
    """A value of the provenance in one line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {plain(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return str(value)
