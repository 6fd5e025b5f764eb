"""The comparison of two runs as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from hemostat._number_text import interval, listed, number, percent, plain, signed
from hemostat.report._curve import TOLERANCES
from hemostat.report._differences import Differences
from hemostat.report._document import to_json
from hemostat.report._page import curves_alt, documents, fill, method_row, notice, section
from hemostat.report._tables import Cell, axis_cell, colors_of, swatch, table, trial_cells, zone_cell


def comparison_page(differences: Differences) -> str:
    """The page of two runs."""
    first, second = differences.names
    report, other = differences.documents
    curves = [entry.curve for entry in differences.curves]
    # The page's script numbers colours in the same order: the first run's methods, then the second's own.
    ordered = sorted([*curves, *differences.only[0]], key=lambda curve: report.provenance.methods.index(curve.method))
    colors = colors_of([*ordered, *differences.only[1]])
    warning = notice("Read these numbers with care.", differences.warnings) if differences.warnings else ""
    return fill(
        {
            "title": f"hemostat: {escape(first)} against {escape(second)}",
            "heading": f"{escape(first)} against {escape(second)}",
            "subtitle": escape(
                f"{report.name}, {report.provenance.date[:10]}, and {other.name}, {other.provenance.date[:10]}"
            ),
            "notice": warning,
            "tolerance": "",
            "headline": f'<p class="headline">{escape(differences.headline())}</p>',
            "parts": _parts(differences, colors),
            "together": "",
            "first": "less",
            "curves_alt": escape(curves_alt(curves), quote=True),
            "tables": _trials(differences, colors) + _zones(differences, colors),
            "provenance": _provenance(differences),
            "version": escape(report.provenance.versions.hemostat),
            "documents": documents(
                names=[first, second],
                report=report.to_json(windows=False),
                other=other.to_json(windows=False),
            ),
        }
    )


def _parts(differences: Differences, colors: Mapping[tuple[str, str], str]) -> str:
    less, more, same = differences.findings()
    note = (
        f'<p class="soft">Counted where the 95 % interval of the difference of both losses leaves out zero. '
        f"{escape(differences.how)}</p>"
    )
    rows = []
    for entry in differences.curves:
        kinds = (("safe", less), ("unsafe", more), ("same", same))
        found = [(kind, item) for kind, items in kinds for item in items if item.curve is entry.curve]
        rows.append(
            method_row(
                entry.curve,
                colors,
                [(kind, item.claim) for kind, item in found],
                [(kind, item.evidence) for kind, item in found],
            )
        )
    content = f'<ul class="findings methods">{"".join(rows)}</ul>' if rows else "<p>No method is in both runs.</p>"
    parts = [section("less", "What bleeds less, and what more", note + content)]
    only = [
        f"<p>Only in {escape(name)}: {escape(listed([curve.label for curve in curves]))}.</p>"
        for name, curves in zip(differences.names, differences.only, strict=True)
        if curves
    ]
    if only:
        parts.append(section("only", "What only one run measured", "".join(only)))
    return "".join(parts)


def _trials(differences: Differences, colors: Mapping[tuple[str, str], str]) -> str:
    first, second = differences.names
    columns = [("method", True), ("severity", False), (f"ΔNLL, {first}", False), (f"ΔNLL, {second}", False)]
    columns += [("difference", False), ("95 % interval", False), (f"KL, {first}", False), (f"KL, {second}", False)]
    columns += [(f"top-1, {first}", False), (f"top-1, {second}", False)]
    rows = []
    for curve, _, pairs in differences.curves:
        for pair in pairs:
            cells = trial_cells(curve, pair.severity, colors)
            cells += [(signed(side.delta_nll), side.delta_nll) for side in (pair.damage, pair.other)]
            cells.append((signed(pair.difference), pair.difference))
            cells.append((interval(pair.bounds, signed), pair.bounds[0] if pair.bounds else None))
            cells += [(number(side.kl.mean, 3), side.kl.mean) for side in (pair.damage, pair.other)]
            cells += [(percent(side.top1_agreement), side.top1_agreement) for side in (pair.damage, pair.other)]
            classes = ["first"] if pair is pairs[0] else []
            rows.append((" ".join([*classes, *([] if pair.apart else ["quiet"])]), cells))
    note = f"Nats per token. Difference: {first} minus {second}. Grey: the interval of the difference holds zero."
    return table("Trials in both runs", note, columns, rows)


def _zones(differences: Differences, colors: Mapping[tuple[str, str], str]) -> str:
    columns = [("method", True), ("axis", True)]
    columns += [(f"{tolerance}, {name}", False) for tolerance in TOLERANCES for name in differences.names]
    rows = []
    for curve, other, _ in differences.curves:
        cells: list[Cell] = [
            (swatch(curve, colors), curve.label),
            axis_cell(curve),
        ]
        cells += [zone_cell(run, tolerance) for tolerance in TOLERANCES for run in (curve, other)]
        rows.append(("", cells))
    note = (
        "The largest severity that is shown to be safe, by ΔNLL in nats per token; small: where the loss is estimated "
        "to reach the tolerance, with its 95 % interval."
    )
    return table("Robust zones in both runs", note, columns, rows)


def _provenance(differences: Differences) -> str:
    mine, its = (_flat(to_json(document.provenance)) for document in differences.documents)
    rows = []
    for name in [*mine, *(name for name in its if name not in mine)]:
        values = [side.get(name, "") for side in (mine, its)]
        if not set(values) - {"", plain(None)}:
            continue
        cells: list[Cell] = [(escape(name), name), *((escape(value), value) for value in values)]
        rows.append(("" if values[0] != values[1] else "quiet", cells))
    columns = [("fact", True), *((name, True) for name in differences.names)]
    return table("Both runs", "Grey: the same.", columns, rows, "facts")


def _flat(provenance: Mapping[str, Any]) -> dict[str, str]:
    """One line a fact: "model: dtype"."""
    lines: dict[str, str] = {}
    for name, value in provenance.items():
        if name == "methods":
            lines[name] = ", ".join(method["label"] for method in value)
        elif isinstance(value, Mapping):
            lines |= {f"{name} {inner}".replace("_", " "): plain(item) for inner, item in value.items()}
        else:
            lines[name.replace("_", " ")] = plain(value)
    return lines
