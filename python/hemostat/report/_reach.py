"""How far a curve is safe at a tolerance, in measured severities; :func:`hemostat.judge` says which is safe."""

from __future__ import annotations

import math
from typing import NamedTuple

from hemostat import _C
from hemostat._number_text import interval, known, nats, number
from hemostat.report._curve import Curve
from hemostat.report._document import Trial

# With fewer windows, resampling them says little about the spread between texts.
FEW_WINDOWS = 10


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
    open: Trial | None  # the first beyond it that is undecided, where one comes before the first that is not safe
    unsafe: Trial | None  # the first that is not safe
    collapsed: Trial | None  # from it on the model is no better than counting words


def reach(curve: Curve, tolerance: float, by: str = "delta_nll") -> Reach:
    safe = undecided = unsafe = None
    for trial in curve.trials:
        verdict = _C.judge(trial.damage, tolerance, by=by)
        if verdict == "unsafe":
            unsafe = trial
            break
        if verdict == "undecided":
            undecided = undecided or trial
        elif not undecided:
            safe = trial
    collapsed = None
    for trial in reversed(curve.trials):
        if not _has_collapsed(trial.damage):
            break
        collapsed = trial
    return Reach(curve, safe, undecided, unsafe, collapsed)


def _has_collapsed(damage: _C.Damage) -> bool:
    return not known(damage.delta_nll) or (known(damage.index) and damage.index >= 1)


def bounds_of(damage: _C.Damage) -> tuple[float, float] | None:
    """The interval of ΔNLL; None where there is none, or it is not finite."""
    bounds = damage.delta_nll_interval
    return bounds if bounds is not None and all(map(known, bounds)) else None


def costs(damage: _C.Damage) -> str:
    """The same as a verb: "costs +0.12 nats …"; a loss may also fall."""
    falls = known(damage.delta_nll) and damage.delta_nll < 0
    return f"changes the loss by {cost(damage)}" if falls else f"costs {cost(damage)}"


def cost(damage: _C.Damage) -> str:
    """Loss with its interval and perplexity: "+0.12 nats (+0.10 … +0.14), perplexity +13 %"."""
    delta, bounds = damage.delta_nll, bounds_of(damage)
    if not known(delta):
        return "a loss that is not finite any more"
    within = f" ({interval(bounds, nats)})" if bounds and bounds[0] != bounds[1] else ""
    floor = ", within the noise floor" if damage.within_noise_floor else ""
    return f"{nats(delta)} nats{within}, perplexity {_growth(delta)}{floor}"


def _growth(delta: float) -> str:
    """What a loss does to perplexity."""
    change = math.expm1(delta) if delta < 700 else math.inf
    if abs(change) < 5e-4:
        return "unchanged"
    if change < 1:
        return f"{change * 100:+.{1 if abs(change) < 0.1 else 0}f} %".replace("-", "−")
    return f"× {number(change + 1, 2)}" if change < math.inf else "beyond numbers"


def generation_sentence(damage: _C.Damage) -> str:
    """How soon continuations part from the unchanged model's, where that was measured."""
    generation = damage.generation
    if not generation or not known(generation.first_divergence):
        return ""
    kept = round(generation.exact_match * generation.prompts)
    return (
        f"Its continuations part from the unchanged model's after {number(generation.first_divergence, 2)} of "
        f"{generation.new_tokens} tokens on average; {kept or 'none'} of {generation.prompts} "
        f"{'stays' if kept == 1 else 'stay'} the same to the end."
    )
