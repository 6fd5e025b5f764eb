"""What a scan's numbers say, in sentences computed from the report's document, none of which goes beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hemostat._number_text import known, listed, number, percent, windows_text
from hemostat.report._advice import advice
from hemostat.report._bleeding import bleeding
from hemostat.report._curve import Curve, curves_of
from hemostat.report._document import Document
from hemostat.report._reach import FEW_WINDOWS, Finding, Reach, cost, costs, generation_sentence, reach
from hemostat.report._surfaces import surfaces_of, together


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


def verdict(document: Document, tolerance: float, by: str = "delta_nll") -> Verdict:
    """What the document says at a tolerance; see :func:`hemostat.judge`."""
    reaches = [reach(curve, tolerance, by) for curve in curves_of(document) if curve.trials]
    return Verdict(
        tolerance,
        _headline(document, reaches, tolerance, by),
        _meaning(document, tolerance, by),
        [_safe(r, tolerance, by) for r in reaches if r.safe],
        [_unsafe(r, tolerance, by) for r in reaches if r.unsafe or r.open],
        together(surfaces_of(document), tolerance) if by == "delta_nll" else [],
        bleeding(reaches),
        advice(document, reaches, tolerance, by),
        reaches,
    )


def limit_text(tolerance: float, by: str) -> str:
    """A tolerance within a sentence."""
    if by == "kl":
        return f"a KL of {number(tolerance)} nats per token"
    if by == "top1_agreement":
        return f"{percent(tolerance)} of changed predictions"
    return f"{number(tolerance)} nats per token"


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


def _headline(document: Document, reaches: Sequence[Reach], tolerance: float, by: str) -> str:
    limit = limit_text(tolerance, by)
    if not reaches:
        return "Nothing has been measured yet."
    if document.baseline.index is None:
        return "No severity is called safe: the unchanged model is itself no better than one that only counts words."
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


def _meaning(document: Document, tolerance: float, by: str) -> str:
    evaluation, floor = document.provenance.evaluation, document.baseline.noise_floor
    text = f" of {Path(evaluation.text).name}" if evaluation.text else ""
    what = {
        "delta_nll": f"the loss grows by at most {number(tolerance)} nats per token (perplexity by "
        f"{percent(math.expm1(tolerance))})",
        "kl": f"predictions move by at most {number(tolerance)} nats of KL per token",
        "top1_agreement": f"at most {percent(tolerance)} of the predictions change",
    }[by]
    meaning = (
        f"Safe: {what}, with its whole 95 % interval, on {windows_text(evaluation.windows)} of "
        f"{evaluation.length} tokens{text}."
    )
    if evaluation.windows < FEW_WINDOWS:
        meaning += " With so few windows the intervals are uncertain themselves: take this as a first look."
    rounding = floor and (floor.kl if by == "kl" else floor.delta_nll)
    if by != "top1_agreement" and known(rounding) and rounding > tolerance:
        meaning += (
            f" The noise floor, what {floor.against} alone does, is {number(rounding, 2)} nats: at this tolerance "
            "damage cannot be told from rounding."
        )
    return meaning


def _safe(r: Reach, tolerance: float, by: str) -> Finding:
    curve, damage, zone = r.curve, r.safe.damage, r.curve.zone(tolerance, by)
    reached = r.safe.severity if zone.severity is None else zone.severity
    if reached == r.safe.severity:
        sentences = [f"There it {costs(damage)}."]
    else:
        measured = curve.at(r.safe.severity)
        sentences = [f"Measured to be safe up to {measured}, beyond by interpolation."]
        sentences.append(f"At {measured} it {costs(damage)}.")
    if damage.silent:
        sentences.append("That is silent: no damage was shown, which does not prove that there is none.")
    if r.open or r.unsafe:
        sentences.append(_edge_sentence(curve, tolerance, by))
    elif curve.ends_at(r.safe.severity):
        sentences.append("That is as far as the method goes.")
    else:
        sentences.append("Safe as far as measured: nothing harsher was tried, so the limit may lie farther.")
    divergence = damage.kl.mean
    if by == "delta_nll" and known(divergence) and divergence > 2 * tolerance:
        sentences.append(
            f"Predictions move more than the loss shows: KL {number(divergence, 2)} nats, "
            f"top-1 agreement {percent(damage.top1_agreement)}."
        )
    sentences.append(generation_sentence(damage))
    return Finding(curve.up_to(reached), " ".join(filter(None, sentences)), curve)


NAMES = {"delta_nll": "the loss", "kl": "KL", "top1_agreement": "the share of changed predictions"}


def _edge_sentence(curve: Curve, tolerance: float, by: str) -> str:
    zone = curve.zone(tolerance, by)
    if zone.edge_censored:
        return "The best estimate stays within the tolerance as far as measured, but its interval does not."
    if zone.edge is None:
        return ""
    where = curve.at(zone.edge)
    spread = curve.edge_text(tolerance, by).partition(" (")[2]
    return f"By estimate {NAMES[by]} reaches the tolerance near {where}{f' ({spread}' if spread else ''}."


def _unsafe(r: Reach, tolerance: float, by: str) -> Finding:
    curve, sentences = r.curve, []
    if r.safe is None:
        first = curve.trials[0]
        claim = "at no measured severity" if first is r.unsafe else "not even the mildest is decided"
        sentences.append(f"The mildest measured, {curve.at(first.severity)}, {costs(first.damage)}.")
        reached = curve.zone(tolerance, by).severity
        if first is r.unsafe and curve.can_be_milder() and reached is not None:
            sentences.append(f"By interpolation it is safe up to {curve.at(reached)}, where nothing was measured.")
        if r.unsafe and first is not r.unsafe:
            sentences.append(f"From {curve.at(r.unsafe.severity)} on it is not: {cost(r.unsafe.damage)}.")
    elif r.unsafe:
        claim = f"from {curve.at(r.unsafe.severity)} on"
        sentences += [f"There it {costs(r.unsafe.damage)}.", generation_sentence(r.unsafe.damage)]
        if r.open:
            sentences.append(f"Undecided at {curve.at(r.open.severity)}: {cost(r.open.damage)}.")
    else:
        claim = f"undecided from {curve.at(r.open.severity)} on"
        sentences.append(f"There it {costs(r.open.damage)}; the interval reaches past the tolerance.")
    if r.collapsed:
        where = curve.at(r.collapsed.severity)
        begin = f"At {where}" if r.collapsed is curve.trials[-1] else f"From {where} on"
        sentences.append(f"{begin} the model is no better than one that only counts words.")
    return Finding(claim, " ".join(filter(None, sentences)), curve)
