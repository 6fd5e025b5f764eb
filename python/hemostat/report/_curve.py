"""One method's measured points, and how far one can go along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hemostat import _C
from hemostat._number_text import interval, number, severity_text
from hemostat.report._document import (
    TOLERANCES,
    Document,
    LocalizationFacts,
    MethodFacts,
    ThresholdFacts,
    Trial,
    curve_key,
    sweep_curve,
)

__all__ = ["PALETTE", "TOLERANCES", "Curve", "Zone", "curves_of", "distance", "trial_key"]

# Colours told apart by most people with colour blindness, on white and on black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5519c", "#c98a00", "#3a9bd9", "#7a5cc7", "#8a8a8a")


def distance(axis: Mapping[str, Any], severity: float) -> float:
    """0 at the neutral severity of an axis as ``report.json`` has it, 1 at its farthest."""
    return abs(severity - axis["neutral"]) / abs(axis["farthest"] - axis["neutral"])


def trial_key(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What tells two curves apart in ``report.json``: method and options."""
    return curve_key(entry["method"], entry["options"])


@dataclass(frozen=True)
class Zone:
    """How far one can go at a tolerance: see :class:`hemostat.Zone`, but that no severity is neutral."""

    severity: float | None  # how far safety is shown; None: nowhere
    censored: bool  # every measured severity is safe
    edge: float | None  # where damage is estimated to reach the tolerance; None: before anything that the method takes
    interval: tuple[float, float] | None  # of the edge, from its cautious to its bold end
    edge_censored: bool  # the estimate never reaches it


@dataclass(frozen=True, eq=False)
class Curve:
    """A method with its options: axis, trials from mild to severe, zones and what was localized."""

    method: MethodFacts
    trials: Sequence[Trial] = ()
    threshold: _C.Threshold | None = None
    kept: ThresholdFacts | None = None  # what the report says of it, which may know an interval whose windows are gone
    localization: LocalizationFacts | None = None
    blocks: int | None = None  # of the model, where the report says

    @property
    def label(self) -> str:
        return self.method.label

    @property
    def key(self) -> tuple[str, str]:
        return self.method.key

    @property
    def axis(self) -> _C.Axis:
        return self.method.axis

    def distance(self, severity: float) -> float:
        return self.axis.distance(severity)

    def at(self, severity: float) -> str:
        """The severity with the name of what it counts: "5 bits", "sparsity 0.3", "2 of 30 layers"."""
        name, unit = self.axis.name.replace("_", " "), self.axis.unit
        if name == self.method.method:
            return severity_text(self.axis, severity)
        if name == "layers" and self.blocks:
            return f"{number(severity * self.blocks, 3)} of {self.blocks} layers"
        if unit.startswith("kept of"):
            return f"{number(severity, 3)} {unit}"
        text = severity_text(self.axis, severity)
        return text if unit == name and text.endswith(unit) else f"{name} {text}"

    def up_to(self, severity: float) -> str:
        return f"{'down' if self.axis.direction < 0 else 'up'} to {self.at(severity)}"

    def ends_at(self, severity: float) -> bool:
        """Whether the method takes nothing harsher."""
        return severity == max(self.axis.minimum, self.axis.maximum, key=self._off_neutral)

    def can_be_milder(self) -> bool:
        """Whether the method takes a severity before the mildest measured."""
        mildest = self.trials[0].severity
        if self.axis.kind == "listed":
            return mildest != self.axis.default_grid[0]
        if self.axis.kind == "integer":
            return self._off_neutral(mildest) > 1
        if self.axis.name == "layers" and self.blocks:
            return round(mildest * self.blocks) > 1
        return mildest != min(self.axis.minimum, self.axis.maximum, key=self._off_neutral)

    def _off_neutral(self, severity: float) -> float:
        return abs(severity - self.axis.neutral)

    def zone(self, tolerance: float, by: str = "delta_nll") -> Zone:
        """How far one can go at a tolerance."""
        if self.threshold is None:
            return Zone(None, False, None, None, False)
        found = self.threshold.zone_details(tolerance, by=by)
        bounds = found.interval
        if bounds is None and by == "delta_nll" and self.kept:
            bounds = self.kept.edge_interval.get(str(tolerance))
        if bounds is not None:
            bounds = None if None in bounds else tuple(sorted(bounds, key=self.distance))

        def beyond_neutral(severity: float | None) -> float | None:
            return None if severity == self.axis.neutral else severity

        return Zone(
            beyond_neutral(found.severity), found.censored, beyond_neutral(found.edge), bounds, found.edge_censored
        )

    def zone_text(self, tolerance: float, by: str = "delta_nll") -> str:
        """How far safety is shown; ≥ or ≤ where every measured severity is safe, a dash where none is shown to be."""
        zone = self.zone(tolerance, by)
        return self._reached(zone.severity, zone.censored)

    def edge_text(self, tolerance: float, by: str = "delta_nll") -> str:
        """Where damage is estimated to reach the tolerance, with its interval."""
        zone = self.zone(tolerance, by)
        text = self._reached(zone.edge, zone.edge_censored)
        if zone.interval and zone.edge is not None and zone.interval[0] != zone.interval[1]:
            text += f" ({interval(sorted(zone.interval), lambda value: number(value, 3))})"
        return text

    def _reached(self, severity: float | None, censored: bool) -> str:
        if severity is None:
            return "–"
        sign = ("≤ " if self.axis.direction < 0 else "≥ ") if censored else ""
        return sign + severity_text(self.axis, severity)


def curves_of(document: Document) -> list[Curve]:
    """One a method, in the order asked for."""
    result = []
    for method in document.provenance.methods:
        trials = [trial for trial in document.trials if trial.key == method.key]
        trials.sort(key=lambda trial, axis=method.axis: axis.distance(trial.severity))
        result.append(
            Curve(
                method,
                trials,
                _C.find_threshold(sweep_curve(method, trials, document.baseline)) if trials else None,
                next((kept for kept in document.thresholds if kept.key == method.key), None),
                next((found for found in document.localizations if found.key == method.key), None),
                document.provenance.model.blocks,
            )
        )
    return result
