"""What two methods in order do together, as a report's document holds it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from hemostat.report._curve import TOLERANCES, Curve
from hemostat.report._reach import Finding, costs, settled
from hemostat.report._tables import Cell, table
from hemostat.report._text import aligned, axis_name, listed, nats, number, severity_text, signed

Damage = Mapping[str, Any]
Place = tuple[int, int]  # of a point: the first method's severity, the second's


class SurfaceView:
    """Two methods in order and the grid of both severities; neutral comes first in each.

    Args:
        entry: Of a document's ``surfaces``.
        blocks: Of the model, where the report says.
    """

    def __init__(self, entry: Mapping[str, Any], blocks: int | None = None):
        methods = [method | {"axis": axis} for method, axis in zip(entry["methods"], entry["axes"], strict=True)]
        self.first, self.second = (Curve(method, (), None, None, blocks) for method in methods)
        self.severities: Sequence[Sequence[float]] = entry["severities"]
        self.damage: Sequence[Sequence[Damage]] = entry["damage"]
        self.additivity: Sequence[Sequence[float | None]] = entry["additivity"]
        self._zone, self._censored = entry["zone"], entry["zone_censored"]

    @property
    def label(self) -> str:
        return f"{self.first.label}, then {self.second.label}"

    @property
    def inner(self) -> list[Place]:
        """Every point where both methods do something, from mild to severe."""
        return list(itertools.product(range(1, len(self.severities[0])), range(1, len(self.severities[1]))))

    def at(self, place: Place) -> str:
        """Both severities: "sparsity 0.3 with 5 bits"."""
        first, second = (grid[index] for grid, index in zip(self.severities, place, strict=True))
        return f"{self.first.at(first)} with {self.second.at(second)}"

    def of(self, place: Place) -> Damage:
        return self.damage[place[0]][place[1]]

    def alone(self, place: Place) -> tuple[Damage, Damage]:
        """What each of the two does there without the other."""
        return self.damage[place[0]][0], self.damage[0][place[1]]

    def farthest(self, tolerance: float, windows: int) -> list[Place]:
        """The points where both do something that are safe, with all that are milder, and than which none that is
        harsher in one and not milder in the other is safe.
        """
        safe: set[Place] = set()
        for i, j in itertools.product(*(range(len(grid)) for grid in self.severities)):
            milder = [place for place in ((i - 1, j), (i, j - 1)) if min(place) >= 0]
            if settled(self.of((i, j)), tolerance, windows) and all(place in safe for place in milder):
                safe.add((i, j))
        return [(i, j) for i, j in self.inner if (i, j) in safe and not {(i + 1, j), (i, j + 1)} & safe]

    def zone_text(self, row: int, tolerance: float) -> str:
        """How far the second may go at a severity of the first; ≥ or ≤ where nothing harsher was measured, a dash where
        it may not be used."""
        edge = self._zone[str(tolerance)][row]
        if edge in (None, self.second.axis["neutral"]):
            return "–"
        back = self.second.axis["farthest"] < self.second.axis["neutral"]
        sign = ("≤ " if back else "≥ ") if self._censored[str(tolerance)][row] else ""
        return sign + severity_text(self.second.axis, edge)

    def zone_key(self, row: int, tolerance: float) -> float | None:
        edge = self._zone[str(tolerance)][row]
        return None if edge is None else self.second.distance(edge)


def surfaces_of(document: Mapping[str, Any]) -> list[SurfaceView]:
    blocks = document["provenance"]["model"].get("blocks")
    return [SurfaceView(entry, blocks) for entry in document.get("surfaces") or ()]


def together(views: Iterable[SurfaceView], tolerance: float, windows: int) -> list[Finding]:
    """How far each pair may go together, and how the two add up."""
    findings = []
    for view in views:
        farthest = view.farthest(tolerance, windows)
        if farthest:
            sentences = [
                f"Within {number(tolerance)} nats together, as far as measured: {listed(list(map(view.at, farthest)))}."
            ]
        else:
            sentences = [f"No measured point of both is shown to be safe at {number(tolerance)} nats."]
            if view.inner:
                sentences.append(f"The mildest, {view.at(view.inner[0])}, {costs(view.of(view.inner[0]))}.")
        findings.append(Finding(view.label, " ".join([*sentences, *_sums(view, farthest or view.inner)])))
    return findings


def _sums(view: SurfaceView, places: Sequence[Place]) -> Iterable[str]:
    """How both add up: at the costliest of these points, and over the grid."""
    ratios = {
        place: 1 / ratio
        for place in view.inner
        if (ratio := view.additivity[place[0]][place[1]]) is not None and ratio > 0
    }
    told = [place for place in places if place in ratios]
    if told:
        shown = max(told, key=lambda place: view.of(place)["delta_nll"])
        parts = listed([nats(damage["delta_nll"]) for damage in view.alone(shown)])
        yield (
            f"At {view.at(shown)} both cost {nats(view.of(shown)['delta_nll'])} nats, {_times(ratios[shown])} the sum "
            f"of each alone ({parts})."
        )
    if len(ratios) > 1:
        least, most = min(ratios.values()), max(ratios.values())
        yield (
            f"Over the {len(ratios)} points where that can be told, together they cost {least:.1f} to {most:.1f} times "
            f"the sum, {median(ratios.values()):.1f} times at the median."
        )


def _times(ratio: float) -> str:
    return "as much as" if f"{ratio:.1f}" == "1.0" else f"{ratio:.1f} times"


def surface_table(view: SurfaceView) -> str:
    """ΔNLL for a terminal, and the joint zones beside it."""
    first, second = view.first.axis, view.second.axis
    head = [f"{axis_name(first)} ↓  {axis_name(second)} →"]
    head += [number(severity, 3) for severity in view.severities[1]] + [f"≤ {tolerance}" for tolerance in TOLERANCES]
    rows = [
        [number(severity, 3), *(signed(damage["delta_nll"]) for damage in view.damage[row])]
        + [view.zone_text(row, tolerance) for tolerance in TOLERANCES]
        for row, severity in enumerate(view.severities[0])
    ]
    title = f"{view.label}: ΔNLL, nats per token; right: how far {second['name']} may go within a ΔNLL of …"
    return "\n".join([title, *aligned(head, rows)])


def surface_rows(view: SurfaceView, flat: Any = dict) -> list[dict[str, Any]]:
    """One row a point: both methods and severities, how they add up, then its damage as ``flat`` spreads it."""
    rows = []
    for i, j in itertools.product(*(range(len(grid)) for grid in view.severities)):
        row: dict[str, Any] = {}
        for place, name, curve, grid in ((i, "first", view.first, 0), (j, "second", view.second, 1)):
            options = curve.method["options"]
            row |= {name: curve.method["method"], f"{name}_options": json.dumps(options) if options else ""}
            row |= {f"{name}_severity": view.severities[grid][place]}
        rows.append(row | {"additivity": view.additivity[i][j]} | flat(view.damage[i][j]))
    return rows


def surface_tables(views: Iterable[SurfaceView]) -> list[str]:
    """One HTML table a pair: the first's severities downwards, the second's to the right, then the joint zones."""
    tables = []
    for view in views:
        columns = [(axis_name(view.first.axis), False)]
        columns += [(severity_text(view.second.axis, severity), False) for severity in view.severities[1]]
        columns += [(f"{view.second.axis['name'].replace('_', ' ')} within {t}", False) for t in TOLERANCES]
        rows = []
        for i, severity in enumerate(view.severities[0]):
            cells: list[Cell] = [(escape(severity_text(view.first.axis, severity)), severity)]
            cells += [(signed(damage["delta_nll"]), damage["delta_nll"]) for damage in view.damage[i]]
            cells += [(escape(view.zone_text(i, t)), view.zone_key(i, t)) for t in TOLERANCES]
            rows.append(("", cells))
        note = (
            "ΔNLL of both, nats per token; right: the harshest severity of the second at which it stays within the "
            "tolerance, interpolated. The first row and column are each alone."
        )
        tables.append(table(f"Together: {view.label}", note, columns, rows))
    return tables
