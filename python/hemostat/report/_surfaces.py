"""What two methods in order do together, as a report's document holds it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from hemostat import _C
from hemostat._columns import aligned
from hemostat._number_text import axis_name, listed, nats, number, severity_text, signed
from hemostat.report._curve import TOLERANCES, Curve
from hemostat.report._document import Document, SurfaceFacts
from hemostat.report._reach import Finding, costs
from hemostat.report._tables import Cell, table

Place = tuple[int, int]  # of a point: the first method's severity, the second's


class SurfaceView:
    """Two methods in order and the grid of both severities; neutral comes first in each.

    Args:
        facts: Of a document's ``surfaces``.
        blocks: Of the model, where the report says.
    """

    def __init__(self, facts: SurfaceFacts, blocks: int | None = None):
        self.surface = facts.surface
        self.first, self.second = (Curve(method, blocks=blocks) for method in facts.methods)
        self.severities, self.damage = facts.surface.severities, facts.surface.damages
        self.additivity = facts.surface.additivity

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

    def of(self, place: Place) -> _C.Damage:
        return self.damage[place[0]][place[1]]

    def alone(self, place: Place) -> tuple[_C.Damage, _C.Damage]:
        """What each of the two does there without the other."""
        return self.damage[place[0]][0], self.damage[0][place[1]]

    def farthest(self, tolerance: float) -> list[Place]:
        """The points where both do something that are safe, with all that are milder, and than which none that is
        harsher in one and not milder in the other is safe.
        """
        safe: set[Place] = set()
        for i, j in itertools.product(*(range(len(grid)) for grid in self.severities)):
            milder = [place for place in ((i - 1, j), (i, j - 1)) if min(place) >= 0]
            is_safe = not milder or _C.judge(self.of((i, j)), tolerance) == "safe"
            if is_safe and all(place in safe for place in milder):
                safe.add((i, j))
        return [(i, j) for i, j in self.inner if (i, j) in safe and not {(i + 1, j), (i, j + 1)} & safe]

    def zones(self, tolerance: float) -> list[_C.Zone]:
        """How far the second may go at each severity of the first."""
        return self.surface.zone_details(tolerance)

    def zone_text(self, zone: _C.Zone) -> str:
        """≥ or ≤ where nothing harsher was measured, a dash where the second may not be used."""
        if zone.severity in (None, self.second.axis.neutral):
            return "–"
        sign = ("≤ " if self.second.axis.direction < 0 else "≥ ") if zone.censored else ""
        return sign + severity_text(self.second.axis, zone.severity)

    def zone_key(self, zone: _C.Zone) -> float | None:
        return None if zone.severity is None else self.second.distance(zone.severity)


def surfaces_of(document: Document) -> list[SurfaceView]:
    return [SurfaceView(facts, document.provenance.model.blocks) for facts in document.surfaces]


def together(views: Iterable[SurfaceView], tolerance: float) -> list[Finding]:
    """How far each pair may go together, and how the two add up."""
    findings = []
    for view in views:
        farthest = view.farthest(tolerance)
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
        shown = max(told, key=lambda place: view.of(place).delta_nll)
        parts = listed([nats(damage.delta_nll) for damage in view.alone(shown)])
        yield (
            f"At {view.at(shown)} both cost {nats(view.of(shown).delta_nll)} nats, {_times(ratios[shown])} the sum "
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
    zones = list(zip(*map(view.zones, TOLERANCES), strict=True))
    rows = [
        [number(severity, 3), *(signed(damage.delta_nll) for damage in view.damage[row])]
        + list(map(view.zone_text, zones[row]))
        for row, severity in enumerate(view.severities[0])
    ]
    title = f"{view.label}: ΔNLL, nats per token; right: how far {second.name} may safely go within a ΔNLL of …"
    return "\n".join([title, *aligned(head, rows)])


def surface_rows(view: SurfaceView, flat: Callable[[Mapping[str, Any]], dict[str, Any]] = dict) -> list[dict[str, Any]]:
    """One row a point: both methods and severities, how they add up, then its damage as ``flat`` spreads it."""
    rows = []
    for i, j in itertools.product(*(range(len(grid)) for grid in view.severities)):
        row: dict[str, Any] = {}
        for place, name, curve, grid in ((i, "first", view.first, 0), (j, "second", view.second, 1)):
            options = curve.method.options
            row |= {name: curve.method.method, f"{name}_options": json.dumps(options) if options else ""}
            row |= {f"{name}_severity": view.severities[grid][place]}
        rows.append(row | {"additivity": view.additivity[i][j]} | flat(view.damage[i][j].to_dict()))
    return rows


def surface_tables(views: Iterable[SurfaceView]) -> list[str]:
    """One HTML table a pair: the first's severities downwards, the second's to the right, then the joint zones."""
    tables = []
    for view in views:
        columns = [(view.first.label, True)]
        columns += [(_side(view.second, index, severity), False) for index, severity in enumerate(view.severities[1])]
        columns += [(f"{view.second.axis.name.replace('_', ' ')} within {t}", False) for t in TOLERANCES]
        rows, zones = [], list(zip(*map(view.zones, TOLERANCES), strict=True))
        for i, severity in enumerate(view.severities[0]):
            cells: list[Cell] = [(escape(_side(view.first, i, severity)), severity)]
            cells += [(signed(damage.delta_nll), damage.delta_nll) for damage in view.damage[i]]
            cells += [(escape(view.zone_text(zone)), view.zone_key(zone)) for zone in zones[i]]
            rows.append(("", cells))
        note = (
            "ΔNLL of both, nats per token; right: the harshest severity of the second that is shown to be safe, "
            "interpolated. The first row and column are each alone."
        )
        tables.append(table(f"Together: {view.label}", note, columns, rows))
    return tables


def _side(curve: Curve, index: int, severity: float) -> str:
    return curve.at(severity) if index else "unchanged"
