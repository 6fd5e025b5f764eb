"""One method's measured points, as a report's document holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hemostat.report._text import number, severity_text

# Colours told apart by most people with colour blindness, on white and on black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5519c", "#c98a00", "#3a9bd9", "#7a5cc7", "#8a8a8a")

# The ΔNLL tolerances at which zones are reported, nats per token.
TOLERANCES = (0.02, 0.05, 0.1)


def distance(axis: Mapping[str, Any], severity: float) -> float:
    """0 at the axis's neutral severity, 1 at its farthest."""
    return abs(severity - axis["neutral"]) / abs(axis["farthest"] - axis["neutral"])


def trial_key(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What tells two curves apart: method and options."""
    return entry["method"], json.dumps(entry["options"], sort_keys=True)


@dataclass(frozen=True)
class Edge:
    """Where a robust zone ends."""

    severity: float | None  # None, or neutral: nothing beyond the unchanged model is known to be safe
    interval: tuple[float, float] | None  # from the cautious to the bold end
    censored: bool  # the tolerance was never exceeded


@dataclass(frozen=True)
class Curve:
    """A method with its options: axis, trials from mild to severe, zones and what was localized."""

    method: Mapping[str, Any]
    trials: Sequence[Mapping[str, Any]]
    threshold: Mapping[str, Any] | None
    localization: Mapping[str, Any] | None
    blocks: int | None  # of the model, where the report says

    @property
    def label(self) -> str:
        return self.method["label"]

    @property
    def axis(self) -> Mapping[str, Any]:
        return self.method["axis"]

    def distance(self, severity: float) -> float:
        return distance(self.axis, severity)

    def at(self, severity: float) -> str:
        """The severity with the name of what it counts: "5 bits", "sparsity 0.3", "2 of 30 layers"."""
        name, unit = self.axis["name"].replace("_", " "), self.axis["unit"]
        if name == self.method["method"]:
            return severity_text(self.axis, severity)
        if name == "layers" and self.blocks:
            return f"{number(severity * self.blocks, 3)} of {self.blocks} layers"
        if unit.startswith("kept of"):
            return f"{number(severity, 3)} {unit}"
        text = severity_text(self.axis, severity)
        return text if unit == name and text.endswith(unit) else f"{name} {text}"

    def up_to(self, severity: float) -> str:
        return f"{'down' if self.axis['farthest'] < self.axis['neutral'] else 'up'} to {self.at(severity)}"

    def ends_at(self, severity: float) -> bool:
        """Whether the method takes nothing harsher."""
        ends = self.axis["minimum"], self.axis["maximum"]
        return severity == max(ends, key=lambda value: abs(value - self.axis["neutral"]))

    def can_be_milder(self) -> bool:
        """Whether the method takes a severity before the mildest measured."""
        mildest = self.trials[0]["severity"]
        if self.axis["kind"] == "listed":
            return mildest != self.axis["default_grid"][0]
        if self.axis["kind"] == "integer":
            return abs(mildest - self.axis["neutral"]) > 1
        if self.axis["name"] == "layers" and self.blocks:
            return round(mildest * self.blocks) > 1
        ends = self.axis["minimum"], self.axis["maximum"]
        return mildest != min(ends, key=lambda value: abs(value - self.axis["neutral"]))

    def edge(self, tolerance: float) -> Edge:
        name, entry = str(tolerance), self.threshold or {}
        bounds = (entry.get("zone_interval") or {}).get(name)
        if bounds is not None and None not in bounds:
            bounds = tuple(sorted(bounds, key=self.distance))
        else:
            bounds = None
        return Edge((entry.get("zone") or {}).get(name), bounds, bool((entry.get("zone_censored") or {}).get(name)))

    def zone_text(self, tolerance: float) -> str:
        """Where the zone ends; ≥ or ≤ where that was not reached, a dash where the tolerance is exceeded at once."""
        edge = self.edge(tolerance)
        if edge.severity in (None, self.axis["neutral"]):
            return "–"
        sign = ("≤ " if self.axis["farthest"] < self.axis["neutral"] else "≥ ") if edge.censored else ""
        return sign + severity_text(self.axis, edge.severity)


def curves_of(document: Mapping[str, Any]) -> list[Curve]:
    """One a method, in the order asked for."""

    def of(method: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [entry for entry in entries if trial_key(entry) == trial_key(method)]

    result = []
    for method in document["provenance"]["methods"]:
        trials = sorted(of(method, document["trials"]), key=lambda trial: distance(method["axis"], trial["severity"]))
        thresholds = of(method, document["thresholds"])
        localizations = of(method, document.get("localizations") or [])
        result.append(
            Curve(
                method,
                trials,
                thresholds[0] if thresholds else None,
                localizations[0] if localizations else None,
                document["provenance"]["model"].get("blocks"),
            )
        )
    return result
