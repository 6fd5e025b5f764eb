"""The report as one HTML page that needs no network. Every name that comes from data is escaped here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from hemostat.report._bleeding import block_sites, site_name, summed
from hemostat.report._curve import PALETTE, TOLERANCES, Curve, curves_of, trial_key
from hemostat.report._reach import Finding, Reach
from hemostat.report._text import axis_name, interval, listed, nats, number, percent, plain, severity_text, signed
from hemostat.report._verdict import Verdict, verdict

# The tolerance that a page opens with.
OPENING = 0.05

Column = tuple[str, bool]  # heading, and whether its cells are words
Cell = tuple[str, float | str | None]  # HTML, and what it is sorted by


def report_page(document: Mapping[str, Any], name: str) -> str:
    """The page of one run.

    Args:
        document: A report's, with None for every number that is not finite.
        name: The model's.
    """
    provenance, evaluation = document["provenance"], document["provenance"]["evaluation"]
    floor = document["baseline"].get("noise_floor")
    curves = curves_of(document)
    facts = [
        f"{number(evaluation['windows'])} windows of {evaluation['length']} tokens",
        f"{len(document['trials'])} trials of {len(curves)} methods",
        f"perplexity {number(document['baseline']['perplexity'])} unchanged",
    ]
    if floor:
        facts.append(f"noise floor {number(floor['delta_nll'], 2)} nats ({floor['against']})")
    verdicts = [verdict(document, tolerance) for tolerance in TOLERANCES]
    colors = colors_of(curves)
    return fill(
        {
            "title": f"hemostat: {escape(name)}",
            "heading": f"How {escape(name)} bleeds",
            "subtitle": f"{escape(provenance['date'][:10])} · {escape(' · '.join(facts))}",
            "notice": _unfinished(provenance),
            "tolerance": tolerance_choice(),
            "headline": _by_tolerance(verdicts, lambda v: f'<p class="headline">{escape(v.headline)}</p>'),
            "parts": _parts(verdicts, colors),
            "curves_alt": escape(curves_alt(curves), quote=True),
            "tables": "".join(
                [_zones(curves, colors), _trials(curves, colors), _generated(curves, colors), *_sites(curves)]
            ),
            "provenance": provenance_list(provenance),
            "version": escape(provenance["versions"]["hemostat"]),
            "documents": documents(report=document),
        }
    )


def fill(fields: dict[str, str]) -> str:
    """The template with its fields, the style, the scripts."""
    from plotly.offline import get_plotlyjs

    fields |= {"css": _asset("page.css"), "js": _asset("page.js"), "plotly": get_plotlyjs()}
    parts = _asset("page.html").split("{{")
    rest = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(fields[name] + after for name, after in rest)


def _asset(name: str) -> str:
    return files("hemostat.report").joinpath(name).read_text(encoding="utf-8")


def documents(**by_id: Any) -> str:
    """What the page's script reads, each a script element of that id."""
    settings = {"palette": PALETTE, "tolerances": TOLERANCES, "opening": OPENING}
    return "".join(
        # "<" could end the script element, or begin a comment in it
        f'<script type="application/json" id="{name}">'
        f"{json.dumps(value, ensure_ascii=False, allow_nan=False).replace('<', chr(92) + 'u003c')}</script>\n"
        for name, value in ({"settings": settings} | by_id).items()
    )


def colors_of(curves: Sequence[Curve]) -> dict[tuple[str, str], str]:
    return {trial_key(curve.method): PALETTE[i % len(PALETTE)] for i, curve in enumerate(curves)}


def swatch(curve: Curve, colors: Mapping[tuple[str, str], str]) -> str:
    color = colors[trial_key(curve.method)]
    return f'<span class="swatch" style="background:{color}"></span>{escape(curve.label)}'


def tolerance_choice() -> str:
    labels = "".join(
        f'<label><input type="radio" name="tolerance" value="{tolerance}"{" checked" if tolerance == OPENING else ""}>'
        f"<span>{tolerance}</span></label>"
        for tolerance in TOLERANCES
    )
    return f'<fieldset class="choice"><legend>Tolerated loss, nats per token</legend>{labels}</fieldset>'


def _unfinished(provenance: Mapping[str, Any]) -> str:
    missing = provenance.get("trials_missing")
    if not missing:
        return ""
    return notice(f"This run is not finished: {missing} of its trials are missing here.")


def notice(sentence: str, points: Sequence[str] = ()) -> str:
    items = f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in points)}</ul>" if points else ""
    return f'<div class="notice" role="note"><p>{escape(sentence)}</p>{items}</div>'


def _by_tolerance(verdicts: Sequence[Verdict], html: Callable[[Verdict], str]) -> str:
    """Each verdict's HTML, all but one hidden until another tolerance is chosen."""
    return "".join(
        f'<div data-tolerance="{v.tolerance}"{"" if v.tolerance == OPENING else " hidden"}>{html(v)}</div>'
        for v in verdicts
    )


def section(name: str, title: str, content: str) -> str:
    return f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>'


KEY = (
    '<p class="key" aria-hidden="true">'
    '<span><span class="track"><span class="is-safe"></span></span>safe</span>'
    '<span><span class="track"><span class="is-open"></span></span>not settled</span>'
    '<span><span class="track"><span class="is-unsafe"></span></span>not safe</span>'
    '<span><span class="track"></span>not measured</span>'
    '<span><span class="track"><span class="spread"></span><span class="edge"></span></span>'
    "where the zone ends, with its interval</span>"
    "<span>Left: the unchanged model; right: the far end of the method's axis.</span></p>"
)


def _parts(verdicts: Sequence[Verdict], colors: Mapping[tuple[str, str], str]) -> str:
    def safe(v: Verdict) -> str:
        reaches = {trial_key(r.curve.method): r for r in v.reaches}
        tracks = [track(reaches[trial_key(f.curve.method)], v.tolerance) for f in v.safe]
        content = findings("safe", v.safe, colors, tracks) + (KEY if v.safe else "")
        none = "<p>No measured severity of any method.</p>" if v.reaches else "<p>Nothing was measured.</p>"
        return f'<p class="soft">{escape(v.meaning)}</p>{content if v.safe else none}'

    def unsafe(v: Verdict) -> str:
        safe_at_all = {trial_key(r.curve.method): r for r in v.reaches if r.safe is None}
        tracks = [
            track(safe_at_all[key], v.tolerance) if (key := trial_key(f.curve.method)) in safe_at_all else ""
            for f in v.unsafe
        ]
        if not v.unsafe:
            return "<p>Nothing that was measured.</p>"
        return findings("unsafe", v.unsafe, colors, tracks)

    def bleeding(v: Verdict) -> str:
        return findings("bleeding", v.bleeding, colors) or "<p>Nothing was measured.</p>"

    def actions(v: Verdict) -> str:
        return findings("actions", v.actions, {}) or "<p>Measure something first.</p>"

    return "".join(
        section(name, title, _by_tolerance(verdicts, part))
        for name, title, part in (
            ("safe", "What is safe", safe),
            ("unsafe", "What is not", unsafe),
            ("where", "Where it bleeds", bleeding),
            ("todo", "What to do", actions),
        )
    )


def findings(
    kind: str,
    items: Sequence[Finding],
    colors: Mapping[tuple[str, str], str],
    tracks: Sequence[str] = (),
) -> str:
    """A list of findings; a curve's name stands before its claim where `colors` are given."""
    if not items:
        return ""
    rows = []
    for index, item in enumerate(items):
        name = f'<span class="name">{swatch(item.curve, colors)}</span>' if item.curve and colors else ""
        rows.append(
            f'<li><div class="claim">{name}<strong>{escape(item.claim)}</strong></div>'
            + (tracks[index] if tracks else "")
            + (f'<p class="evidence">{escape(item.evidence)}</p>' if item.evidence else "")
            + (f'<pre class="command"><code>{escape(item.command)}</code></pre>' if item.command else "")
            + "</li>"
        )
    tag = "ol" if kind == "actions" else "ul"
    return f'<{tag} class="findings {kind}">{"".join(rows)}</{tag}>'


def track(reach: Reach, tolerance: float) -> str:
    """A bar along the method's axis: safe, not settled, not safe, not measured, and where the zone ends."""
    curve = reach.curve
    spots = [curve.distance(trial["severity"]) for trial in curve.trials]
    end = spots[-1]
    safe = curve.distance(reach.safe["severity"]) if reach.safe else 0.0
    begin = 0.0 if curve.axis["continuous_at_neutral"] else min(spots[0], safe)
    unsafe = curve.distance(reach.unsafe["severity"]) if reach.unsafe else end
    if not (reach.unsafe or reach.open):
        unsafe = safe

    def span(kind: str, start: float, stop: float) -> str:
        start, stop = min(start, 1.0), min(stop, 1.0)
        return f'<span class="{kind}" style="left:{start:.2%};width:{stop - start:.2%}"></span>' if stop > start else ""

    parts = [span("is-safe", begin, safe), span("is-open", max(safe, begin), unsafe), span("is-unsafe", unsafe, end)]
    parts += [f'<span class="tick" style="left:{spot:.2%}"></span>' for spot in spots]
    edge = curve.edge(tolerance)
    if edge.severity is not None and not edge.censored and reach.safe:
        if edge.interval:
            parts.append(span("spread", *map(curve.distance, edge.interval)))
        parts.append(f'<span class="edge" style="left:{min(curve.distance(edge.severity), 1):.2%}"></span>')
    words = [f"safe {curve.up_to(reach.safe['severity'])}" if reach.safe else "nothing safe"]
    if reach.open:
        words.append(f"not settled at {curve.at(reach.open['severity'])}")
    if reach.unsafe:
        words.append(f"not safe from {curve.at(reach.unsafe['severity'])}")
    return f'<div class="track" role="img" aria-label="{escape(listed(words), quote=True)}">{"".join(parts)}</div>'


def curves_alt(curves: Sequence[Curve]) -> str:
    """What the picture of the curves shows, for those who do not see it."""
    lines = ["Damage against distance from the unchanged model, one line a method."]
    for curve in curves:
        if curve.trials:
            first, last = curve.trials[0], curve.trials[-1]
            lines.append(
                f"{curve.label}: {nats(first['damage']['delta_nll'])} nats at {curve.at(first['severity'])}, "
                f"{nats(last['damage']['delta_nll'])} at {curve.at(last['severity'])}."
            )
    lines.append("Every number is in the table of trials.")
    return " ".join(lines)


def table(caption: str, note: str, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
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
        '<table class="sortable">'
        f"<caption><strong>{escape(caption)}.</strong> {escape(note)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def zone_cell(curve: Curve, tolerance: float) -> Cell:
    edge = curve.edge(tolerance)
    if edge.severity is None:
        return "–", None
    small = ""
    if edge.interval:
        small = f"<small>{escape(interval(sorted(edge.interval), lambda value: number(value, 3)))}</small>"
    return f"{escape(curve.zone_text(tolerance))}{small}", curve.distance(edge.severity)


def _zones(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
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


def _trials(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    columns = [("method", True), ("severity", False), *((name, False) for name, _, _ in TRIALS)]
    rows = []
    for curve in curves:
        for trial in curve.trials:
            damage = trial["damage"]
            cells = _trial_cells(curve, trial, colors)
            for name, value, form in TRIALS:
                text = interval(damage.get("delta_nll_interval"), signed) if "interval" in name else form(value(damage))
                cells.append((escape(text), value(damage)))
            classes = ["first"] if trial is curve.trials[0] else []
            classes += ["quiet"] if damage.get("within_noise_floor") else []
            rows.append((" ".join(classes), cells))
    note = "ΔNLL and KL in nats per token. Grey: within the noise floor. Index: 1 is no better than counting words."
    return table("Trials", note, columns, rows)


def _trial_cells(curve: Curve, trial: Mapping[str, Any], colors: Mapping[tuple[str, str], str]) -> list[Cell]:
    severity = trial["severity"]
    return [(swatch(curve, colors), curve.label), (escape(severity_text(curve.axis, severity)), severity)]


GENERATION: tuple[tuple[str, str, str | None, Callable[[float | None], str]], ...] = (
    ("first divergence", "first_divergence", None, lambda value: number(value, 3)),
    ("median", "first_divergence_median", None, lambda value: number(value, 3)),
    ("same to the end", "exact_match", None, percent),
    ("repetition", "repetition", "repetition_baseline", percent),
    ("distinct 1-grams", "distinct_1", "distinct_1_baseline", percent),
    ("distinct 2-grams", "distinct_2", "distinct_2_baseline", percent),
)


def _generated(curves: Sequence[Curve], colors: Mapping[tuple[str, str], str]) -> str:
    rows, example = [], None
    for curve in curves:
        for trial in curve.trials:
            measured = trial["damage"].get("generation")
            if not measured:
                continue
            example = measured
            cells = _trial_cells(curve, trial, colors)
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


def _sites(curves: Sequence[Curve]) -> list[str]:
    tables = []
    for curve in curves:
        if not curve.localization:
            continue
        total = summed(block_sites(curve.localization)) or 1.0
        columns = [("place", True), ("ΔNLL alone", False), ("95 % interval", False), ("share", False), ("KL", False)]
        columns += [("noise's ΔNLL", False), ("relative error", False), ("cascade gain", False)]
        rows = []
        for site in curve.localization["sites"]:
            bounds, delta = site.get("delta_nll_interval"), site["delta_nll"]
            share = None if delta is None else max(0.0, delta) / total
            cells = [
                (escape(site_name(site)), site["block"] + (0.5 if site.get("linear") else 0)),
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
