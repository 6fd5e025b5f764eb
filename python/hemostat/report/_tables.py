"""The report's tables in HTML: zones, trials, generated text, layers, provenance. Every name is escaped here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from hemostat import _C
from hemostat._number_text import axis_name, interval, known, number, percent, plain, severity_text, signed, size_text
from hemostat.report._bleeding import block_sites, site_name, summed
from hemostat.report._curve import PALETTE, TOLERANCES, Curve
from hemostat.report._reach import bounds_of

Column = tuple[str, bool]  # heading, and whether its cells are words
Cell = tuple[str, float | str | None]  # HTML, and what it is sorted by


def colors_of(curves: Sequence[Curve]) -> dict[tuple[str, str], str]:
    return {curve.key: PALETTE[i % len(PALETTE)] for i, curve in enumerate(curves)}


def swatch(curve: Curve, colors: Mapping[tuple[str, str], str]) -> str:
    color = colors[curve.key]
    return f'<span class="swatch" style="background:{color}"></span>{escape(curve.label)}'


def table(
    caption: str,
    note: str,
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    kind: str = "",
    folded: bool = False,
) -> str:
    """A table whose columns sort, under its title and a note, which do not scroll with it.

    Args:
        rows: Each its class and its cells, the first of them its heading.
        kind: The table's class.
        folded: Whether it is closed until asked for.
    """

    def cell(index: int, value: Cell) -> str:
        html, by = value
        html = html if columns[index][1] else re.sub(r"-(?=\d)", "−", html)
        tag, scope = ("th", ' scope="row"') if index == 0 else ("td", "")
        words = ' class="text"' if columns[index][1] else ""
        if not isinstance(by, str):
            by = f"{by:.10g}" if known(by) else ""
        by = escape(by, quote=True)
        return f'<{tag}{scope}{words} data-by="{by}">{html}</{tag}>'

    head = "".join(
        f'<th scope="col"{" class=text" if words else ""}><button type="button">{escape(name)}</button></th>'
        for name, words in columns
    )
    body = "".join(
        f'<tr class="{kind}">{"".join(cell(i, value) for i, value in enumerate(cells))}</tr>' for kind, cells in rows
    )
    title = f'<h3 class="title">{escape(caption)}</h3>'
    content = (
        f'<p>{escape(note)}</p><div class="wide" tabindex="0" role="region" aria-label="{escape(caption, quote=True)}">'
        f'<table class="sortable {kind}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return f'<details class="table"><summary>{title}</summary>{content}</details>' if folded else title + content


def layers_of(curve: Curve) -> int | None:
    """How many layers the model has, where the curve's severities are shares of them: the tables count them."""
    return curve.blocks if curve.axis.name == "layers" else None


def axis_cell(curve: Curve) -> Cell:
    layers = layers_of(curve)
    text = f"layers, of {layers}" if layers else axis_name(curve.axis)
    return escape(text), text


def amount(curve: Curve, severity: float) -> str:
    """A severity without its axis's name and unit."""
    return number(severity * (layers_of(curve) or 1), 3)


def zone_cell(curve: Curve, tolerance: float) -> Cell:
    """How far safety is shown; small: where the tolerance is reached by estimate, with its interval."""
    zone = curve.zone(tolerance)

    def reached(severity: float | None, censored: bool) -> str:
        if severity is None:
            return "–"
        sign = ("≤ " if curve.axis.direction < 0 else "≥ ") if censored else ""
        return sign + (curve.at(severity) if layers_of(curve) else severity_text(curve.axis, severity))

    edge = reached(zone.edge, zone.edge_censored)
    if zone.interval and zone.interval[0] != zone.interval[1]:
        edge += f" ({interval(sorted(zone.interval), lambda value: amount(curve, value))})"
    small = f"<small>{escape(edge)}</small>" if zone.edge is not None else ""
    by = 0.0 if zone.severity is None else curve.distance(zone.severity)
    return escape(reached(zone.severity, zone.censored)) + small, by


def zones(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    columns = [("method", True), ("axis", True), ("measured", False)]
    columns += [(f"ΔNLL ≤ {tolerance}", False) for tolerance in TOLERANCES] + [("transition point", False)]
    rows = []
    for curve in curves:
        measured = [trial.severity for trial in curve.trials]
        point = curve.threshold.point if curve.threshold else None
        span = f"{amount(curve, measured[0])} … {amount(curve, measured[-1])}" if measured else "–"
        cells = [
            (swatch(curve, colors), curve.label),
            axis_cell(curve),
            (span, float(len(measured))),
            *(zone_cell(curve, tolerance) for tolerance in TOLERANCES),
            ("not fitted" if point is None else amount(curve, point), point),
        ]
        rows.append(("", cells))
    note = (
        "The largest severity that is shown to be safe: where the upper end of the loss's 95 % interval meets the "
        "tolerance, interpolated between those measured. ≥ or ≤: every one measured is safe. A dash: none is. Small: "
        "where the loss itself is estimated to reach the tolerance, with its 95 % interval."
    )
    return table("Robust zones", note, columns, rows)


# Heading, what a column is sorted by, and the text of its cells.
TRIALS: tuple[tuple[str, Callable[[_C.Damage], float | None], Callable[[_C.Damage], str]], ...] = (
    ("perplexity", lambda damage: damage.perplexity, lambda damage: number(damage.perplexity)),
    ("ΔNLL", lambda damage: damage.delta_nll, lambda damage: signed(damage.delta_nll)),
    (
        "95 % interval",
        lambda damage: (bounds_of(damage) or [None])[0],
        lambda damage: interval(bounds_of(damage), signed),
    ),
    ("silent", lambda damage: damage.silent, lambda damage: "silent" if damage.silent else ""),
    ("KL mean", lambda damage: damage.kl.mean, lambda damage: number(damage.kl.mean, 3)),
    ("KL p99", lambda damage: damage.kl.p99, lambda damage: number(damage.kl.p99, 3)),
    ("acceptance", lambda damage: damage.acceptance, lambda damage: percent(damage.acceptance)),
    ("top-1", lambda damage: damage.top1_agreement, lambda damage: percent(damage.top1_agreement)),
    ("volume", lambda damage: damage.volume, lambda damage: percent(damage.volume)),
    ("direction", lambda damage: damage.direction, lambda damage: signed(damage.direction)),
    ("index", lambda damage: damage.index, lambda damage: number(damage.index, 3)),
    ("size", lambda damage: damage.bytes, size_text),
)


def trials(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    every = [trial.damage for curve in curves for trial in curve.trials]
    shown = [column for column in TRIALS if any(known(column[1](damage)) for damage in every)]
    columns = [("method", True), ("severity", False), *((name, False) for name, _, _ in shown)]
    rows = []
    for curve in curves:
        for trial in curve.trials:
            damage = trial.damage
            cells = trial_cells(curve, trial.severity, colors)
            cells += [(escape(text(damage)), by(damage)) for _, by, text in shown]
            classes = ["first"] if trial is curve.trials[0] else []
            classes += ["quiet"] if damage.within_noise_floor else []
            rows.append((" ".join(classes), cells))
    note = (
        "ΔNLL, KL and direction in nats per token. Silent: the interval of ΔNLL holds 0. Acceptance: Σ min(p, q), what "
        "speculative decoding would accept. Volume: tokens whose likeliest prediction changed; direction: their mean "
        "ΔNLL. Index: 1 is no better than counting words. Size: what the changed model takes as stored, and what that "
        "saves. Grey: within the noise floor."
    )
    return table("Trials", note, columns, rows)


def trial_cells(curve: Curve, severity: float, colors: Mapping[tuple[str, str], str]) -> list[Cell]:
    """The first two cells of a row: which method, how far."""
    return [(swatch(curve, colors), curve.label), (escape(curve.at(severity)), severity)]


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
            measured = trial.damage.generation
            if not measured:
                continue
            example = measured
            cells = trial_cells(curve, trial.severity, colors)
            for _, name, baseline, form in GENERATION:
                before = f"<small>{form(getattr(measured, baseline))}</small>" if baseline else ""
                cells.append((escape(form(getattr(measured, name))) + before, getattr(measured, name)))
            rows.append(("", cells))
    if not example:
        return ""
    note = (
        f"{example.prompts} prompts of {example.prompt_length} tokens, continued by {example.new_tokens}. "
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
        for place, site in enumerate(curve.localization.sites):
            bounds, delta = site.delta_nll_interval, site.delta_nll
            share = None if delta is None else max(0.0, delta) / total
            cells = [
                (escape(site_name(site)), float(place)),
                (signed(delta), delta),
                (interval(bounds, signed), (bounds or [None])[0]),
                (percent(share), share),
                (number(site.kl, 3), site.kl),
                (signed(site.noise_delta_nll), site.noise_delta_nll),
                *((number(value, 3), value) for value in (site.error, site.cascade_gain)),
            ]
            rows.append(("", cells))
        where = f"{curve.label} at {curve.at(curve.localization.severity)}"
        note = f"{len(rows)} places, each changed alone; nats per token."
        tables.append(table(f"Layers, {where}", note, columns, rows, folded=True))
    return tables


def provenance_list(provenance: Mapping[str, Any]) -> str:
    lines = []
    for name, value in provenance.items():
        if name == "methods":
            value = [method["label"] for method in value]
        if isinstance(value, Mapping):
            value = {inner: item for inner, item in value.items() if item not in ("", [], ())}
        if value is None or value in ([], (), {}):
            continue
        lines.append(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(plain(value))}</dd>")
    return f'<dl class="provenance">{"".join(lines)}</dl>'
