"""The report's tables in HTML: zones, trials, generated text, layers, provenance. Every name is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from hemostat.report._bleeding import block_sites, site_name, summed
from hemostat.report._curve import PALETTE, TOLERANCES, Curve, trial_key
from hemostat.report._text import axis_name, interval, number, percent, plain, severity_text, signed

Column = tuple[str, bool]  # heading, and whether its cells are words
Cell = tuple[str, float | str | None]  # HTML, and what it is sorted by


def colors_of(curves: Sequence[Curve]) -> dict[tuple[str, str], str]:
    return {trial_key(curve.method): PALETTE[i % len(PALETTE)] for i, curve in enumerate(curves)}


def swatch(curve: Curve, colors: Mapping[tuple[str, str], str]) -> str:
    color = colors[trial_key(curve.method)]
    return f'<span class="swatch" style="background:{color}"></span>{escape(curve.label)}'


def table(
    caption: str, note: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell]]], kind: str = ""
) -> str:
    """A table whose columns sort; each row is its class and its cells, the first of them its heading."""

    def cell(index: int, value: Cell) -> str:
        html, by = value
        tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
        words = ' class="text"' if columns[index][1] else ""
        by = "" if by is None else f"{by:.10g}" if isinstance(by, float | int) else escape(by, quote=True)
        return f'<{tag}{scope}{words} data-by="{by}">{html}</{tag}>'

    head = "".join(
        f'<th scope="col"{" class=text" if words else ""}><button type="button">{escape(name)}</button></th>'
        for name, words in columns
    )
    body = "".join(
        f'<tr class="{kind}">{"".join(cell(i, value) for i, value in enumerate(cells))}</tr>' for kind, cells in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f'<table class="sortable {kind}">'
        f"<caption><strong>{escape(caption)}.</strong> {escape(note)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def zone_cell(curve: Curve, tolerance: float) -> Cell:
    edge = curve.edge(tolerance)
    if edge.severity in (None, curve.axis["neutral"]):
        return "–", 0.0
    small = ""
    if edge.interval:
        small = f"<small>{escape(interval(sorted(edge.interval), lambda value: number(value, 3)))}</small>"
    return f"{escape(curve.zone_text(tolerance))}{small}", curve.distance(edge.severity)


def zones(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    columns = [("method", True), ("axis", True), ("measured", False)]
    columns += [(f"ΔNLL ≤ {tolerance}", False) for tolerance in TOLERANCES] + [("transition point", False)]
    rows = []
    for curve in curves:
        measured = [trial["severity"] for trial in curve.trials]
        point = (curve.threshold or {}).get("point")
        cells = [
            (swatch(curve, colors), curve.label),
            (escape(axis_name(curve.axis)), axis_name(curve.axis)),
            (f"{number(measured[0], 3)} … {number(measured[-1], 3)}" if measured else "–", float(len(measured))),
            *(zone_cell(curve, tolerance) for tolerance in TOLERANCES),
            ("not fitted" if point is None else number(point, 3), point),
        ]
        rows.append(("", cells))
    note = (
        "The severity at which the loss has grown by the tolerance, interpolated between those measured, with its 95 % "
        "interval. ≥ or ≤: not exceeded up to the last severity measured. A dash: exceeded at once."
    )
    return table("Robust zones", note, columns, rows)


TRIALS: tuple[tuple[str, Callable[[Mapping[str, Any]], float | None], Callable[[float | None], str]], ...] = (
    ("perplexity", lambda damage: damage["perplexity"], number),
    ("ΔNLL", lambda damage: damage["delta_nll"], signed),
    ("95 % interval", lambda damage: (damage.get("delta_nll_interval") or [None])[0], str),
    ("KL mean", lambda damage: damage["kl"]["mean"], lambda value: number(value, 3)),
    ("KL p99", lambda damage: damage["kl"].get("p99"), lambda value: number(value, 3)),
    ("top-1", lambda damage: damage["top1_agreement"], percent),
    ("index", lambda damage: damage.get("index"), lambda value: number(value, 3)),
)


def trials(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    columns = [("method", True), ("severity", False), *((name, False) for name, _, _ in TRIALS)]
    rows = []
    for curve in curves:
        for trial in curve.trials:
            damage = trial["damage"]
            cells = trial_cells(curve, trial["severity"], colors)
            for name, value, form in TRIALS:
                text = interval(damage.get("delta_nll_interval"), signed) if "interval" in name else form(value(damage))
                cells.append((escape(text), value(damage)))
            classes = ["first"] if trial is curve.trials[0] else []
            classes += ["quiet"] if damage.get("within_noise_floor") else []
            rows.append((" ".join(classes), cells))
    note = "ΔNLL and KL in nats per token. Grey: within the noise floor. Index: 1 is no better than counting words."
    return table("Trials", note, columns, rows)


def trial_cells(curve: Curve, severity: float, colors: Mapping[tuple[str, str], str]) -> list[Cell]:
    """The first two cells of a row: which method, how far."""
    return [(swatch(curve, colors), curve.label), (escape(severity_text(curve.axis, severity)), severity)]


GENERATION: tuple[tuple[str, str, str | None, Callable[[float | None], str]], ...] = (
    ("first divergence", "first_divergence", None, lambda value: number(value, 3)),
    ("median", "first_divergence_median", None, lambda value: number(value, 3)),
    ("same to the end", "exact_match", None, percent),
    ("repetition", "repetition", "repetition_baseline", percent),
    ("distinct 1-grams", "distinct_1", "distinct_1_baseline", percent),
    ("distinct 2-grams", "distinct_2", "distinct_2_baseline", percent),
)


def generated(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    rows, example = [], None
    for curve in curves:
        for trial in curve.trials:
            measured = trial["damage"].get("generation")
            if not measured:
                continue
            example = measured
            cells = trial_cells(curve, trial["severity"], colors)
            for _, name, baseline, form in GENERATION:
                before = f"<small>{form(measured.get(baseline))}</small>" if baseline else ""
                cells.append((escape(form(measured.get(name))) + before, measured.get(name)))
            rows.append(("", cells))
    if not example:
        return ""
    note = (
        f"{example['prompts']} prompts of {example['prompt_length']} tokens, continued by {example['new_tokens']}. "
        "Where the changed model's first differs from the unchanged one's, in tokens; small: the unchanged model's own."
    )
    columns = [("method", True), ("severity", False), *((name, False) for name, *_ in GENERATION)]
    return table("Generated text", note, columns, rows)


def sites(curves: Sequence[Curve]) -> list[str]:
    """One table a curve that was localized."""
    tables = []
    for curve in curves:
        if not curve.localization:
            continue
        total = summed(block_sites(curve.localization)) or 1.0
        columns = [("place", True), ("ΔNLL alone", False), ("95 % interval", False), ("share", False), ("KL", False)]
        columns += [("noise's ΔNLL", False), ("relative error", False), ("cascade gain", False)]
        rows = []
        for place, site in enumerate(curve.localization["sites"]):
            bounds, delta = site.get("delta_nll_interval"), site["delta_nll"]
            share = None if delta is None else max(0.0, delta) / total
            cells = [
                (escape(site_name(site)), float(place)),
                (signed(delta), delta),
                (interval(bounds, signed), (bounds or [None])[0]),
                (percent(share), share),
                (number(site.get("kl"), 3), site.get("kl")),
                (signed(site.get("noise_delta_nll")), site.get("noise_delta_nll")),
                *((number(site.get(name), 3), site.get(name)) for name in ("error", "cascade_gain")),
            ]
            rows.append(("", cells))
        where = f"{curve.label} at {curve.at(curve.localization['severity'])}"
        tables.append(table(f"Layers, {where}", "Each place changed alone; nats per token.", columns, rows))
    return tables


def provenance_list(provenance: Mapping[str, Any]) -> str:
    lines = []
    for name, value in provenance.items():
        if name == "methods":
            value = [method["label"] for method in value]
        lines.append(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(plain(value))}</dd>")
    return f'<dl class="provenance">{"".join(lines)}</dl>'
