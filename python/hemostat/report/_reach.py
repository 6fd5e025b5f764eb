"""How far a curve is safe at a tolerance.

A severity is safe where the whole 95 % interval of its damage lies within the tolerance, not safe where the whole
interval lies beyond it, and not settled in between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from hemostat.report._curve import Curve
from hemostat.report._text import interval, nats, number

# With fewer windows, resampling them says little about the spread between texts.
FEW_WINDOWS = 10

Trial = Mapping[str, Any]


class Finding(NamedTuple):
    """One statement: the claim, what it rests on, and the command that follows from it."""

    claim: str
    evidence: str = ""
    curve: Curve | None = None
    command: str = ""


class Reach(NamedTuple):
    """How far a curve is safe at a tolerance, in measured severities."""

    curve: Curve
    safe: Trial | None  # the harshest before which every measured severity is safe
    open: Trial | None  # the first beyond it that is not settled, where one comes before the first that is not safe
    unsafe: Trial | None  # the first that is not safe
    collapsed: Trial | None  # from it on the model is no better than counting words


def reach(curve: Curve, tolerance: float, windows: int) -> Reach:
    safe = unsettled = unsafe = None
    for trial in curve.trials:
        state = settled(trial["damage"], tolerance, windows)
        if state is False:
            unsafe = trial
            break
        if state is None:
            unsettled = unsettled or trial
        elif not unsettled:
            safe = trial
    collapsed = None
    for trial in reversed(curve.trials):
        if not _has_collapsed(trial["damage"]):
            break
        collapsed = trial
    return Reach(curve, safe, unsettled, unsafe, collapsed)


def settled(damage: Mapping[str, Any], tolerance: float, windows: int) -> bool | None:
    """Whether a severity is safe; None: its interval reaches across the tolerance, or one window gives it none."""
    if damage["delta_nll"] is None:
        return False
    bounds = damage.get("delta_nll_interval")
    if windows < 2 or not bounds or None in bounds:
        return None
    return True if bounds[1] <= tolerance else False if bounds[0] > tolerance else None


def _has_collapsed(damage: Mapping[str, Any]) -> bool:
    return damage["delta_nll"] is None or (damage.get("index") or 0) >= 1


def costs(damage: Mapping[str, Any]) -> str:
    """The same as a verb: "costs +0.12 nats …"; a loss may also fall."""
    delta = damage["delta_nll"]
    return f"costs {cost(damage)}" if delta is None or delta >= 0 else f"changes the loss by {cost(damage)}"


def cost(damage: Mapping[str, Any]) -> str:
    """Loss with its interval and perplexity: "+0.12 nats (+0.10 … +0.14), perplexity +13 %"."""
    delta = damage["delta_nll"]
    if delta is None:
        return "a loss that is not finite any more"
    bounds = damage.get("delta_nll_interval")
    within = f" ({interval(bounds, nats)})" if bounds and None not in bounds and bounds[0] != bounds[1] else ""
    floor = ", within the noise floor" if damage.get("within_noise_floor") else ""
    return f"{nats(delta)} nats{within}, perplexity {_growth(delta)}{floor}"


def _growth(delta: float) -> str:
    """What a loss does to perplexity."""
    change = math.expm1(delta) if delta < 700 else math.inf
    if abs(change) < 5e-4:
        return "unchanged"
    if change < 1:
        return f"{change * 100:+.{1 if abs(change) < 0.1 else 0}f} %".replace("-", "−")
    return f"× {number(change + 1, 2)}" if change < math.inf else "beyond numbers"


def generation_sentence(damage: Mapping[str, Any]) -> str:
    """How soon continuations part from the unchanged model's, where that was measured."""
    generation = damage.get("generation")
    if not generation or generation.get("first_divergence") is None:
        return ""
    kept = round(generation["exact_match"] * generation["prompts"])
    return (
        f"Its continuations part from the unchanged model's after {number(generation['first_divergence'], 2)} of "
        f"{generation['new_tokens']} tokens on average; {kept or 'none'} of {generation['prompts']} "
        f"{'stays' if kept == 1 else 'stay'} the same to the end."
    )


def windows_of(document: Mapping[str, Any]) -> int:
    """How many were evaluated."""
    return document["provenance"]["evaluation"]["windows"]


def windows_text(count: int) -> str:
    return "one window" if count == 1 else f"{count} windows"
