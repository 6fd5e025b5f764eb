"""What differs between two runs: the same methods at the same severities, and where the zones moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from hemostat import _C
from hemostat._number_text import interval, known, listed, nats, number, windows_text
from hemostat.report._curve import TOLERANCES, Curve, curves_of
from hemostat.report._document import Document
from hemostat.report._reach import Finding, bounds_of


class Pair(NamedTuple):
    """One severity that both runs measured."""

    severity: float
    damage: _C.Damage
    other: _C.Damage
    difference: float | None  # ΔNLL here minus there; None where either is not finite
    bounds: tuple[float, float] | None  # 95 %

    @property
    def apart(self) -> bool:
        """Whether the difference is more than the two intervals leave open."""
        return self.bounds is not None and not self.bounds[0] <= 0 <= self.bounds[1]


class CurvePair(NamedTuple):
    """One method with its options in both runs."""

    curve: Curve
    other: Curve
    pairs: list[Pair]


class Differences:
    """Two runs' numbers side by side. Every difference is the first minus the second; negative: the first bleeds less.

    Where both runs evaluated the same tokens, the interval of a difference is a paired bootstrap over windows: what one
    window adds to both cancels. Else it is combined from both runs' intervals as those of independent estimates
    (Zou and Donner, "Construction of confidence limits about effect measures", 2008).

    Attributes:
        documents: all that the two reports say.
        names: what the two are called.
        warnings: sentences on what makes their numbers hard to compare; empty where nothing does.
        paired: whether differences are taken window by window.
        curves: the methods that both measured.
        only: the curves of methods that only the first measured, and of those that only the second did.
    """

    def __init__(self, documents: tuple[Document, Document], names: Sequence[str]):
        self.documents, self.names = documents, tuple(names)
        self.paired = _same_tokens(*documents) and all(document.baseline.window_nll for document in documents)
        self.warnings = _warnings(*documents, names)
        mine, theirs = map(curves_of, documents)
        by_key = {curve.key: curve for curve in theirs}
        self.curves = [
            CurvePair(curve, by_key[curve.key], _pairs(curve, by_key[curve.key], self.paired))
            for curve in mine
            if curve.key in by_key
        ]
        shared = {pair.curve.key for pair in self.curves}
        self.only = tuple([curve for curve in curves if curve.key not in shared] for curves in (mine, theirs))

    @property
    def how(self) -> str:
        """Where the intervals of differences come from, in a sentence."""
        if self.paired:
            return "Both runs evaluated the same windows: intervals of differences are a paired bootstrap over them."
        return "Intervals of differences are combined from both runs' own, as of independent measurements."

    def headline(self) -> str:
        """What changed, in one sentence."""
        pairs = [pair for _, _, pairs in self.curves for pair in pairs]
        if not pairs:
            return "The two runs have no severity in common."
        less = sum(pair.apart and pair.difference < 0 for pair in pairs)
        more = sum(pair.apart and pair.difference > 0 for pair in pairs)
        first, second = self.names
        if not less and not more:
            return f"At none of {_severities(len(pairs))} measured in both runs do {first} and {second} differ."
        return (
            f"Of {_severities(len(pairs))} measured in both runs, {first} bleeds less than {second} at {less}, "
            f"and more at {more}."
        )

    def findings(self) -> tuple[list[Finding], list[Finding], list[Finding]]:
        """Methods that bleed less, more, and neither for certain; a method can be among the first and the second."""
        less, more, same = [], [], []
        for entry in self.curves:
            apart = [pair for pair in entry.pairs if pair.apart]
            for found, sign, word in ((less, -1, "less"), (more, 1, "more")):
                some = [pair for pair in apart if pair.difference * sign > 0]
                if some:
                    found.append(_changed(entry, some, word, self.names))
            if not apart:
                same.append(_unchanged(entry))
        return less, more, same


def _severities(count: int) -> str:
    return "one severity" if count == 1 else f"{count} severities"


def _pairs(curve: Curve, other: Curve, paired: bool) -> list[Pair]:
    its = {trial.severity: trial.damage for trial in other.trials}
    pairs = []
    for trial in curve.trials:
        same = [severity for severity in its if math.isclose(severity, trial.severity, rel_tol=1e-9)]
        if same:
            damage, against = trial.damage, its[same[0]]
            pairs.append(Pair(trial.severity, damage, against, *_difference(damage, against, paired)))
    return pairs


def _difference(damage: _C.Damage, other: _C.Damage, paired: bool) -> tuple[float | None, tuple[float, float] | None]:
    mine, its = damage.delta_nll, other.delta_nll
    if not known(mine) or not known(its):
        return None, None
    if paired:
        return mine - its, _C.difference_interval(damage, other)
    first, second = bounds_of(damage), bounds_of(other)
    if not first or not second or first[0] == first[1] or second[0] == second[1]:
        return mine - its, None
    down = math.hypot(mine - first[0], second[1] - its)
    up = math.hypot(first[1] - mine, its - second[0])
    return mine - its, (mine - its - down, mine - its + up)


def _changed(entry: CurvePair, some: Sequence[Pair], word: str, names: Sequence[str]) -> Finding:
    curve, most = entry.curve, max(some, key=lambda pair: abs(pair.difference))
    evidence = (
        f"Most at {curve.at(most.severity)}: {nats(most.damage.delta_nll)} nats against "
        f"{nats(most.other.delta_nll)} in {names[1]}, a difference of {nats(most.difference)} "
        f"({interval(most.bounds, nats)}). {_moved(entry)}"
    )
    return Finding(f"{word} at {len(some)} of {_severities(len(entry.pairs))}", evidence.strip(), curve)


def _unchanged(entry: CurvePair) -> Finding:
    if not entry.pairs:
        return Finding("no severity in common", _moved(entry), entry.curve)
    differences = [pair.difference for pair in entry.pairs if pair.difference is not None]
    if differences and not any(differences):
        return Finding("the same numbers", "", entry.curve)
    widest = max(map(abs, differences), default=None)
    text = f"The largest difference is {number(widest, 2)} nats, within the intervals. " if widest is not None else ""
    return Finding("no difference shown", (text + _moved(entry)).strip(), entry.curve)


def _moved(entry: CurvePair) -> str:
    """Where the zones end in both runs, at the tolerances at which that differs."""
    changes = [
        f"{entry.curve.zone_text(tolerance)} instead of {entry.other.zone_text(tolerance)} at {tolerance}"
        for tolerance in TOLERANCES
        if entry.curve.zone_text(tolerance) != entry.other.zone_text(tolerance)
    ]
    return f"It is safe up to {listed(changes)} nats." if changes else ""


def _same_tokens(mine: Document, its: Document) -> bool:
    first, second = mine.provenance.evaluation, its.provenance.evaluation
    return (first.sha256, first.windows, first.length) == (second.sha256, second.windows, second.length)


def _warnings(first: Document, second: Document, names: Sequence[str]) -> list[str]:
    """What keeps the numbers of two runs from being compared, most serious first."""
    mine, its = first.provenance, second.provenance
    found = [f"{name}: {warning}" for run, name in zip((mine, its), names, strict=True) for warning in run.warnings]
    if mine.protocol != its.protocol:
        found.append("The protocols differ, and losses under different ones cannot be compared.")
    if not _same_tokens(first, second):
        sizes = [f"{windows_text(run.evaluation.windows)} of {run.evaluation.length} tokens" for run in (mine, its)]
        how = f" ({sizes[0]} and {sizes[1]})" if sizes[0] != sizes[1] else ""
        found.append(f"They evaluated different tokens{how}: some of the difference is the text's.")
    else:
        lacking = [name for run, name in zip((first, second), names, strict=True) if not run.baseline.window_nll]
        if lacking:
            found.append(
                f"{listed(lacking)} {'has' if len(lacking) == 1 else 'have'} no numbers by window, as reports of "
                "earlier versions: intervals of differences are wider than they need be."
            )
    if mine.model.sha256 != its.model.sha256:
        labels = [run.model.name or "a model" for run in (mine, its)]
        who = f" ({labels[0]} and {labels[1]})" if labels[0] != labels[1] else ""
        found.append(f"They measured different weights{who}: each loss is counted from its own unchanged model.")
    if mine.model.dtype != its.model.dtype:
        found.append(f"The number formats differ ({mine.model.dtype} and {its.model.dtype}).")
    if mine.calibration.sha256 != its.calibration.sha256:
        found.append("They calibrated on different tokens, which moves methods that need statistics.")
    if mine.propagation != its.propagation:
        found.append("They calibrated differently, block by block or not, which moves methods on linears.")
    scales = [
        method.label
        for method in mine.methods
        for theirs in its.methods
        if method.key == theirs.key and method.axis.farthest != theirs.axis.farthest
    ]
    if scales:
        found.append(f"The axis of {listed(scales)} reaches differently far, so that distances differ.")
    versions = [run.versions.hemostat for run in (mine, its)]
    if versions[0] != versions[1]:
        found.append(f"The versions of hemostat differ ({versions[0]} and {versions[1]}).")
    found += [f"{name} is not finished." for run, name in zip((mine, its), names, strict=True) if run.trials_missing]
    return found
