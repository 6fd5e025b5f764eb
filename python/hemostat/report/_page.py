"""The report as one HTML page that needs no network. Every name that comes from data is escaped here."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from hemostat._number_text import listed, nats, number, windows_text
from hemostat.report._curve import PALETTE, TOLERANCES, Curve, curves_of
from hemostat.report._document import Document, Provenance, Tokens, to_json
from hemostat.report._reach import Finding, Reach
from hemostat.report._surfaces import surface_tables, surfaces_of
from hemostat.report._tables import colors_of, generated, provenance_list, sites, swatch, trials, zones
from hemostat.report._verdict import Verdict, verdict

# The tolerance that a page opens with.
OPENING = 0.05


def report_page(document: Document) -> str:
    """The page of one run.

    Args:
        document: A report's.
    """
    name = document.name
    provenance, evaluation = document.provenance, document.provenance.evaluation
    floor = document.baseline.noise_floor
    curves = curves_of(document)
    facts = [
        f"{len(document.trials)} trials of {len(curves)} methods",
        *(["calibrated block by block"] if provenance.propagation else []),
        f"perplexity {number(document.baseline.perplexity)} unchanged",
        f"noise floor {number(floor.delta_nll, 2)} nats ({floor.against})" if floor else "noise floor unknown",
    ]
    verdicts = [verdict(document, tolerance) for tolerance in TOLERANCES]
    colors = colors_of(curves)
    return fill(
        {
            "title": f"hemostat: {escape(name)}",
            "heading": f"How {escape(name)} bleeds",
            "subtitle": f"{escape(provenance.date[:10])} · {escape(' · '.join(facts))}",
            "notice": _notices(provenance),
            "tolerance": tolerance_choice(),
            "headline": _by_tolerance(
                verdicts, lambda v: f'<p class="headline">{escape(f"On {text_of(evaluation)}: {v.headline}")}</p>'
            ),
            "parts": _parts(verdicts, colors),
            "first": "safe",
            "curves_alt": escape(curves_alt(curves), quote=True),
            "tables": "".join(
                [zones(curves, colors), trials(curves, colors), *surface_tables(surfaces_of(document))]
                + [generated(curves, colors), *sites(curves)]
            ),
            "together": _by_tolerance(verdicts, lambda v: findings("safe" if v.together else "", v.together, {})),
            "provenance": provenance_list(to_json(provenance)),
            "version": escape(provenance.versions.hemostat),
            "documents": documents(report=document.to_json(windows=False)),
        }
    )


def text_of(evaluation: Tokens) -> str:
    """What was evaluated, and how much of it."""
    name = Path(evaluation.text).name if evaluation.text else f"a text that was not named ({evaluation.sha256[:8]})"
    return f"{windows_text(evaluation.windows)} of {evaluation.length} tokens of {name}"


def fill(fields: dict[str, str]) -> str:
    """The template with its fields, the style, the scripts."""
    fields |= {"css": _asset("page.css"), "vega": _vega()}
    fields |= {"charts": _asset("charts.js"), "surfaces": _asset("surfaces.js"), "js": _asset("page.js")}
    parts = _asset("page.html").split("{{")
    rest = (part.split("}}", 1) for part in parts[1:])
    return parts[0] + "".join(fields[name] + after for name, after in rest)


@functools.cache
def _vega() -> str:
    """Vega with what it needs, as one script that sets ``vegaEmbed``."""
    from vl_convert import javascript_bundle

    return javascript_bundle("window.vegaEmbed = vegaEmbed;")


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


def _notices(provenance: Provenance) -> str:
    """What to know before reading any number."""
    html = notice("Read these numbers with care.", provenance.warnings) if provenance.warnings else ""
    missing = provenance.trials_missing
    return html + (notice(f"This run is not finished: {missing} of its trials are missing here.") if missing else "")


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
    '<span><span class="track"><span class="is-open"></span></span>undecided</span>'
    '<span><span class="track"><span class="is-unsafe"></span></span>unsafe</span>'
    '<span><span class="track"></span>not measured</span>'
    '<span><span class="track"><span class="spread"></span><span class="edge"></span></span>'
    "where the loss is estimated to reach the tolerance, with its interval</span>"
    "<span>Left: the unchanged model; right: the far end of the method's axis.</span></p>"
)


def _parts(verdicts: Sequence[Verdict], colors: Mapping[tuple[str, str], str]) -> str:
    def reached(v: Verdict) -> str:
        rows = "".join(_reach_row(r, v, colors) for r in v.reaches)
        content = f'<ul class="findings methods">{rows}</ul>{KEY}' if rows else "<p>Nothing was measured.</p>"
        return f'<p class="soft">{escape(v.meaning)}</p>{content}'

    def bleeding(v: Verdict) -> str:
        return findings("bleeding", v.bleeding, colors) or "<p>Nothing was measured.</p>"

    def actions(v: Verdict) -> str:
        return findings("actions", v.actions, {}) or "<p>Measure something first.</p>"

    return "".join(
        section(name, title, _by_tolerance(verdicts, part))
        for name, title, part in (
            ("safe", "What is safe, and what is not", reached),
            ("where", "Where it bleeds", bleeding),
            ("todo", "What to do", actions),
        )
    )


def _reach_row(r: Reach, v: Verdict, colors: Mapping[tuple[str, str], str]) -> str:
    """One method: how far it is safe, where that is undecided, from where it is not, how far it is silent."""
    curve = r.curve
    safe = next((found for found in v.safe if found.curve is curve), None)
    unsafe = next((found for found in v.unsafe if found.curve is curve), None)
    facts = [("safe", f"safe {safe.claim}") if safe else ("none", "nothing shown to be safe")]
    if r.unsafe and (safe or r.open):
        facts.append(("open", "undecided in between" if safe else f"undecided before {curve.at(r.unsafe.severity)}"))
    elif r.open:
        facts.append(("open", f"undecided from {curve.at(r.open.severity)} on"))
    if r.unsafe:
        facts.append(("unsafe", f"unsafe from {curve.at(r.unsafe.severity)}"))
    silent = list(itertools.takewhile(lambda trial: trial.damage.silent, curve.trials))
    if silent:
        facts.append(("silent", f"silent {curve.up_to(silent[-1].severity)}"))
    kinds = (("safe", safe), ("unsafe" if r.unsafe else "open", unsafe))
    return method_row(
        curve, colors, facts, [(kind, found.evidence) for kind, found in kinds if found], track(r, v.tolerance)
    )


def method_row(
    curve: Curve,
    colors: Mapping[tuple[str, str], str],
    facts: Sequence[tuple[str, str]],
    evidence: Sequence[tuple[str, str]],
    picture: str = "",
) -> str:
    """One method in a list: its facts and what they rest on, each with the class that marks it."""
    points = "".join(f'<li class="{kind}">{escape(fact)}</li>' for kind, fact in facts)
    words = "".join(f'<p class="evidence {kind}">{escape(text)}</p>' for kind, text in evidence if text)
    return (
        f'<li><div class="claim"><span class="name">{swatch(curve, colors)}</span><ul class="facts">{points}</ul></div>'
        f"<div>{picture}{words}</div></li>"
    )


def findings(kind: str, items: Sequence[Finding], colors: Mapping[tuple[str, str], str]) -> str:
    """A list of findings; a curve's name stands before its claim where `colors` are given."""
    if not items:
        return ""
    rows = []
    for item in items:
        name = f'<span class="name">{swatch(item.curve, colors)}</span>' if item.curve and colors else ""
        rows.append(
            f'<li><div class="claim">{name}<strong>{escape(item.claim)}</strong></div>'
            + (f'<p class="evidence">{escape(item.evidence)}</p>' if item.evidence else "")
            + (f'<pre class="command"><code>{escape(item.command)}</code></pre>' if item.command else "")
            + "</li>"
        )
    tag = "ol" if kind == "actions" else "ul"
    return f'<{tag} class="findings {kind}">{"".join(rows)}</{tag}>'


def track(reach: Reach, tolerance: float) -> str:
    """A bar along the method's axis: safe, undecided, unsafe, not measured, and where the tolerance is reached."""
    curve = reach.curve
    spots, zone = [curve.distance(trial.severity) for trial in curve.trials], curve.zone(tolerance)
    end = spots[-1]
    safe = curve.distance(reach.safe.severity) if reach.safe else 0.0
    if reach.safe and zone.severity is not None:
        safe = max(safe, curve.distance(zone.severity))
    begin = 0.0 if curve.axis.continuous_at_neutral else min(spots[0], safe)
    if not (reach.safe or curve.can_be_milder()):
        begin = spots[0]  # nothing lies before it that could be undecided
    unsafe = curve.distance(reach.unsafe.severity) if reach.unsafe else end
    if not (reach.unsafe or reach.open):
        unsafe = safe

    def span(kind: str, start: float, stop: float) -> str:
        start, stop = min(start, 1.0), min(stop, 1.0)
        return f'<span class="{kind}" style="left:{start:.2%};width:{stop - start:.2%}"></span>' if stop > start else ""

    parts = [span("is-safe", begin, safe), span("is-open", max(safe, begin), unsafe), span("is-unsafe", unsafe, end)]
    parts += [f'<span class="tick" style="left:{spot:.2%}"></span>' for spot in spots]
    if zone.edge is not None and not zone.edge_censored and reach.safe:
        if zone.interval:
            parts.append(span("spread", *map(curve.distance, zone.interval)))
        parts.append(f'<span class="edge" style="left:{min(curve.distance(zone.edge), 1):.2%}"></span>')
    words = [f"safe {curve.up_to(zone.severity or reach.safe.severity)}" if reach.safe else "nothing shown to be safe"]
    if reach.open:
        words.append(f"undecided at {curve.at(reach.open.severity)}")
    if reach.unsafe:
        words.append(f"unsafe from {curve.at(reach.unsafe.severity)}")
    return f'<div class="track" role="img" aria-label="{escape(listed(words), quote=True)}">{"".join(parts)}</div>'


def curves_alt(curves: Sequence[Curve]) -> str:
    """What the picture of the curves shows, for those who do not see it."""
    lines = ["Damage against distance from the unchanged model, one line a method."]
    for curve in curves:
        if curve.trials:
            first, last = curve.trials[0], curve.trials[-1]
            lines.append(
                f"{curve.label}: {nats(first.damage.delta_nll)} nats at {curve.at(first.severity)}, "
                f"{nats(last.damage.delta_nll)} at {curve.at(last.severity)}."
            )
    lines.append("Every number is in the table of trials.")
    return " ".join(lines)
