"""What a scan's numbers say, in sentences computed from the report's document, none of which goes beyond it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hemostat.report._advice import advice
from hemostat.report._bleeding import bleeding
from hemostat.report._curve import Curve, curves_of
from hemostat.report._reach import (
    FEW_WINDOWS,
    Finding,
    Reach,
    cost,
    costs,
    generation_sentence,
    reach,
    windows_of,
    windows_text,
)
from hemostat.report._surfaces import surfaces_of, together
from hemostat.report._text import interval, listed, number, percent


class Verdict(NamedTuple):
    """The parts of a report at one tolerance."""

    tolerance: float
    headline: str
    meaning: str
    safe: list[Finding]
    unsafe: list[Finding]
    together: list[Finding]
    bleeding: list[Finding]
    actions: list[Finding]
    reaches: list[Reach]


def verdict(document: Mapping[str, Any], tolerance: float) -> Verdict:
    """What the document says at a tolerance, nats per token."""
    reaches = [reach(curve, tolerance, windows_of(document)) for curve in curves_of(document) if curve.trials]
    return Verdict(
        tolerance,
        _headline(reaches, tolerance),
        _meaning(document, tolerance),
        [_safe(r, tolerance) for r in reaches if r.safe],
        [_unsafe(r, tolerance) for r in reaches if r.unsafe or r.open],
        together(surfaces_of(document), tolerance, windows_of(document)),
        bleeding(reaches),
        advice(document, reaches, tolerance),
        reaches,
    )


def summary(v: Verdict) -> str:
    """The parts for a terminal."""
    lines = [v.headline, v.meaning]
    for title, findings in (
        ("What is safe", v.safe),
        ("What is not", v.unsafe),
        ("Two methods together", v.together),
        ("Where it bleeds", v.bleeding),
        ("What to do", v.actions),
    ):
        lines += ["", title] if findings else []
        for found in findings:
            name = f"{found.curve.label} " if found.curve and title != "What to do" else ""
            lines.append("\n  ".join(filter(None, (f"- {name}{found.claim}. {found.evidence}".strip(), found.command))))
    return "\n".join(lines)


def _headline(reaches: Sequence[Reach], tolerance: float) -> str:
    limit = f"{number(tolerance)} nats per token"
    if not reaches:
        return "Nothing has been measured yet."
    without = [r.curve.label for r in reaches if not r.safe]
    if len(without) == len(reaches):
        return f"No measured severity is shown to be safe at {limit}."
    if without:
        return (
            f"{len(reaches) - len(without)} of {len(reaches)} methods have a severity that is safe at {limit}; "
            f"{listed(without)} {'has' if len(without) == 1 else 'have'} none among those measured."
        )
    each = "The method has" if len(reaches) == 1 else "Every method has"
    return f"{each} a severity that is safe at {limit}."


def _meaning(document: Mapping[str, Any], tolerance: float) -> str:
    evaluation, floor = document["provenance"]["evaluation"], document["baseline"].get("noise_floor")
    text = f" of {Path(evaluation['text']).name}" if evaluation.get("text") else ""
    meaning = (
        f"Safe: the loss grows by at most {number(tolerance)} nats per token (perplexity by "
        f"{percent(math.expm1(tolerance))}), with its whole 95 % interval, on {windows_text(evaluation['windows'])} of "
        f"{evaluation['length']} tokens{text}."
    )
    if evaluation["windows"] < FEW_WINDOWS:
        meaning += " With so few windows the intervals are uncertain themselves: take this as a first look."
    if floor and floor["delta_nll"] is not None and floor["delta_nll"] > tolerance:
        meaning += (
            f" The noise floor, what {floor['against']} alone does, is {number(floor['delta_nll'], 2)} nats: at this "
            "tolerance damage cannot be told from rounding."
        )
    return meaning


def _safe(r: Reach, tolerance: float) -> Finding:
    curve, damage = r.curve, r.safe["damage"]
    sentences = [f"There it {costs(damage)}."]
    if r.open or r.unsafe:
        sentences.append(_edge_sentence(curve, tolerance))
    elif curve.ends_at(r.safe["severity"]):
        sentences.append("That is as far as the method goes.")
    else:
        sentences.append("Safe as far as measured: nothing harsher was tried, so the limit may lie farther.")
    divergence = damage["kl"]["mean"]
    if divergence is not None and divergence > 2 * tolerance:
        sentences.append(
            f"Predictions move more than the loss shows: KL {number(divergence, 2)} nats, "
            f"top-1 agreement {percent(damage['top1_agreement'])}."
        )
    sentences.append(generation_sentence(damage))
    return Finding(curve.up_to(r.safe["severity"]), " ".join(filter(None, sentences)), curve)


def _edge_sentence(curve: Curve, tolerance: float) -> str:
    edge = curve.edge(tolerance)
    if edge.censored:
        return "The best estimate stays within the tolerance as far as measured, but its interval does not."
    if edge.severity is None or edge.severity == curve.axis["neutral"]:
        return ""
    sentence = f"The zone ends near {curve.at(edge.severity)}"
    if edge.interval:
        sentence += f" ({interval(edge.interval, lambda value: number(value, 3))})"
    return sentence + "."


def _unsafe(r: Reach, tolerance: float) -> Finding:
    curve, sentences = r.curve, []
    if r.safe is None:
        first = curve.trials[0]
        claim = "at no measured severity" if first is r.unsafe else "not even the mildest is settled"
        sentences.append(f"The mildest measured, {curve.at(first['severity'])}, {costs(first['damage'])}.")
        edge = curve.edge(tolerance).severity
        if first is r.unsafe and curve.can_be_milder() and edge not in (None, curve.axis["neutral"]):
            sentences.append(f"By interpolation the limit lies near {curve.at(edge)}, where nothing was measured.")
        if r.unsafe and first is not r.unsafe:
            sentences.append(f"From {curve.at(r.unsafe['severity'])} on it is not: {cost(r.unsafe['damage'])}.")
    elif r.unsafe:
        claim = f"from {curve.at(r.unsafe['severity'])} on"
        sentences += [f"There it {costs(r.unsafe['damage'])}.", generation_sentence(r.unsafe["damage"])]
        if r.open:
            sentences.append(f"Not settled at {curve.at(r.open['severity'])}: {cost(r.open['damage'])}.")
    else:
        claim = f"not settled from {curve.at(r.open['severity'])} on"
        sentences.append(f"There it {costs(r.open['damage'])}; the interval reaches past the tolerance.")
    if r.collapsed:
        where = curve.at(r.collapsed["severity"])
        begin = f"At {where}" if r.collapsed is curve.trials[-1] else f"From {where} on"
        sentences.append(f"{begin} the model is no better than one that only counts words.")
    return Finding(claim, " ".join(filter(None, sentences)), curve)
