"""The report as one HTML page that needs no network. Every name that comes from data is escaped here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from hemostat.report._curve import PALETTE, TOLERANCES, Curve, curves_of, trial_key
from hemostat.report._reach import Finding, Reach
from hemostat.report._surfaces import surface_tables, surfaces_of
from hemostat.report._tables import colors_of, generated, provenance_list, sites, swatch, trials, zones
from hemostat.report._text import listed, nats, number
from hemostat.report._verdict import Verdict, verdict

# The tolerance that a page opens with.
OPENING = 0.05


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
            "first": "safe",
            "curves_alt": escape(curves_alt(curves), quote=True),
            "tables": "".join(
                [zones(curves, colors), trials(curves, colors), *surface_tables(surfaces_of(document))]
                + [generated(curves, colors), *sites(curves)]
            ),
            "together": _by_tolerance(verdicts, lambda v: findings("safe" if v.together else "", v.together, {})),
            "provenance": provenance_list(provenance),
            "version": escape(provenance["versions"]["hemostat"]),
            "documents": documents(report=document),
        }
    )


def fill(fields: dict[str, str]) -> str:
    """The template with its fields, the style, the scripts."""
    from plotly.offline import get_plotlyjs

    fields |= {"css": _asset("page.css"), "plotly": get_plotlyjs()}
    fields |= {"surfaces": _asset("surfaces.js"), "js": _asset("page.js")}
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
