"""JSON that gives back the same double, NaN and the infinities among them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["from_text", "to_text"]

# A double's shortest decimal form gives back the same double; only these have none in JSON.
SPELLING = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_text(value: Any) -> str:
    """Numbers that JSON cannot spell are strings: "NaN", "Infinity", "-Infinity"."""
    return json.dumps(_spelled(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_text(text: str) -> Any:
    """The value, its numbers spelled so among it."""
    return _numbers(json.loads(text))


def _spelled(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _spelled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, str):
        return SPELLING.get(value, value)
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value
