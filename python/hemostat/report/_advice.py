"""What to do: which method and severity to use, what to leave out, and what to measure before trusting more."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hemostat import _C
from hemostat._number_text import interval, known, listed, nats, number, whole_percent, windows_text
from hemostat.report._bleeding import block_sites, is_concentrated, site_names, worst_sites
from hemostat.report._commands import ON_LINEARS, apply_command, localize_command, scan_command
from hemostat.report._curve import Curve
from hemostat.report._document import Document
from hemostat.report._reach import FEW_WINDOWS, Finding, Reach, bounds_of

# A zone's edge is poorly known where its interval covers more than this part of the axis.
WIDE_ZONE = 0.05
# Changes that a checkpoint can hold, so that `hemostat apply` is the next step.
APPLIED = ("weights", "factors", "architecture", "normalization", "activations")


def advice(document: Document, reaches: Sequence[Reach], tolerance: float, by: str) -> list[Finding]:
    """What follows from the numbers, most useful first."""
    windows = document.provenance.evaluation.windows
    more_text = list(_more_text(windows, reaches, tolerance, by))
    findings = more_text if windows < FEW_WINDOWS else []
    findings += [_use(document, group, tolerance, by) for group in _comparable(reaches)]
    findings += [_leave_out(document, r.curve) for r in reaches if _can_leave_out(r.curve)]
    if not any(r.curve.localization for r in reaches):
        unlocalized = [r for r in reaches if r.unsafe and r.curve.method.kind in ON_LINEARS]
        findings += [found for found in (_localize(document, r) for r in unlocalized) if found.command][:1]
    findings += more_text if windows >= FEW_WINDOWS else []
    findings += _other_severities(reaches)
    if len(reaches) > 1 and not document.surfaces:
        findings.append(_combine(document, reaches))
    return findings


def _combine(document: Document, reaches: Sequence[Reach]) -> Finding:
    """Two methods that change different things are what people combine; of each kind the best is tried."""
    best = [_best(group).curve for group in _comparable(reaches)]
    pair = [curve for curve in best if curve.method.kind in APPLIED][:2]
    pair.sort(key=lambda curve: curve.axis.name == "bits")
    return Finding(
        "Measure what you combine",
        "Each method was measured alone, and safe ranges do not add up: scan the combination before it ships.",
        None,
        scan_command(document, pair, joint=",".join(curve.label for curve in pair)) if len(pair) == 2 else "",
    )


def _comparable(reaches: Sequence[Reach]) -> list[list[Reach]]:
    """Methods that change the same thing on the same axis: equal severity is then equal size."""
    groups: dict[tuple[str, str, str], list[Reach]] = {}
    for r in reaches:
        method, axis = r.curve.method, r.curve.axis
        groups.setdefault((method.kind or method.method, axis.name, axis.unit), []).append(r)
    return sorted(groups.values(), key=lambda group: all(r.safe is None for r in group))


def _use(document: Document, group: Sequence[Reach], tolerance: float, by: str) -> Finding:
    best = _best(group)
    curve, sentences = best.curve, [_comparison(best, [r for r in group if r is not best], tolerance)]
    verb = "use" if curve.method.kind in APPLIED else "rely on"
    if best.safe is None:
        sentences.append("Nothing that was measured of it is shown to be safe." if len(group) == 1 else "")
        if not curve.can_be_milder():
            sentences.append(f"There is nothing milder than {curve.at(curve.trials[0].severity)}.")
        labels = listed([r.curve.label for r in group])
        until = "as it stands" if all(r.unsafe is r.curve.trials[0] for r in group) else "yet"
        return Finding(f"Do not {verb} {labels} {until}", " ".join(filter(None, sentences)))
    zone, severity = curve.zone(tolerance, by), best.safe.severity
    if zone.severity is not None and curve.distance(zone.severity) > curve.distance(severity):
        sentences.append(
            f"Between that and {curve.at(zone.severity)}, as far as safety is shown by interpolation, nothing was "
            "measured: measure before you go there."
        )
    elif not (best.open or best.unsafe or curve.ends_at(severity)):
        sentences.append("Nothing harsher was measured.")
    return Finding(
        f"{verb.capitalize()} {curve.label} {curve.up_to(severity)}, the harshest measured that is safe",
        " ".join(filter(None, sentences)),
        curve,
        apply_command(document, curve, severity) if curve.method.kind in APPLIED else "",
    )


def _damage_at(r: Reach, severity: float) -> _C.Damage:
    return next(trial.damage for trial in r.curve.trials if trial.severity == severity)


def _common(group: Sequence[Reach]) -> list[float]:
    """Severities that all of them were measured at, from mild to severe."""
    shared = set.intersection(*({trial.severity for trial in r.curve.trials} for r in group))
    return sorted(shared, key=group[0].curve.distance)


def _best(group: Sequence[Reach]) -> Reach:
    """The one that is safe farthest, then the one that most often costs least."""

    def loss(r: Reach, severity: float) -> float:
        delta = _damage_at(r, severity).delta_nll
        return delta if known(delta) else math.inf

    common = _common(group)
    wins = [min(range(len(group)), key=lambda i, at=severity: loss(group[i], at)) for severity in common]
    place = max(
        range(len(group)),
        key=lambda i: (
            group[i].curve.distance(group[i].safe.severity) if group[i].safe else -1.0,
            wins.count(i),
        ),
    )
    return group[place]


def _comparison(best: Reach, others: Sequence[Reach], tolerance: float) -> str:
    """How the best stands against the others at equal severity, and how sure that is."""
    common = _common([best, *others]) if others else []
    if not common:
        return ""
    names, axis = listed([r.curve.label for r in others]), best.curve.axis.name.replace("_", " ")

    def better(severity: float) -> bool:
        return all(_lies_below(_damage_at(best, severity), _damage_at(r, severity)) for r in others)

    def worse(severity: float) -> bool:
        return any(_lies_below(_damage_at(r, severity), _damage_at(best, severity)) for r in others)

    apart, against = list(filter(better, common)), list(filter(worse, common))
    if not apart:
        if against:
            return f"At equal {axis} it does not cost less than {names}, but it is safe as far as any."
        return f"At equal {axis} no difference from {names} is established at any severity."

    def nearness(severity: float) -> float:  # of the damage there to the tolerance
        delta = _damage_at(best, severity).delta_nll
        return abs(math.log(max(delta, tolerance / 100) / tolerance))

    shown = min(apart, key=nearness)
    losses = listed([nats(_damage_at(r, shown).delta_nll) for r in others])
    sentence = (
        f"At equal {axis} it costs less than {names}: {nats(_damage_at(best, shown).delta_nll)} against {losses} "
        f"nats at {best.curve.at(shown)}; that is certain at {len(apart)} of {len(common)} severities"
    )
    return sentence + (f", the other way round at {len(against)}." if against else ".")


def _lies_below(damage: _C.Damage, other: _C.Damage) -> bool:
    """Whether it costs less for certain: window by window, or, where windows are not known, by intervals apart."""
    if not known(damage.delta_nll) or not known(other.delta_nll):
        return known(damage.delta_nll)
    if damage.window_nll and other.window_nll:
        difference = _C.difference_interval(damage, other)
        return difference is not None and difference[1] < 0
    mine, its = bounds_of(damage), bounds_of(other)
    return mine is not None and its is not None and mine[1] < its[0]


def _can_leave_out(curve: Curve) -> bool:
    return (
        curve.method.kind in ON_LINEARS
        and curve.localization is not None
        and len(block_sites(curve.localization)) > 1
        and is_concentrated(curve.localization)
        and all(site.block is not None for site in worst_sites(curve.localization)[0])
        and "exclude" not in curve.method.options
    )


def _leave_out(document: Document, curve: Curve) -> Finding:
    worst, share = worst_sites(curve.localization)
    patterns = "+".join(site.name if site.linear else f"{site.name}.*" for site in worst)
    spec = f"{curve.label}{',' if curve.method.options else ':'}exclude={patterns}"
    return Finding(
        f"Try {curve.label} without {site_names(worst)}",
        f"Of {len(block_sites(curve.localization))}, changed alone, {'it makes' if len(worst) == 1 else 'these make'} "
        f"{whole_percent(share)} of the damage. What leaving them out gains is not measured yet; this measures it.",
        curve,
        scan_command(document, [curve], methods=spec),
    )


def _localize(document: Document, r: Reach) -> Finding:
    return Finding(
        "Find out where it bleeds",
        f"Which layers carry the damage was not measured. This measures it where {r.curve.label} first does harm.",
        r.curve,
        localize_command(document, r.curve, r.unsafe.severity),
    )


def _more_text(windows: int, reaches: Sequence[Reach], tolerance: float, by: str) -> Iterable[Finding]:
    wide = []
    for r in reaches:
        bounds = r.curve.zone(tolerance, by).interval
        if bounds and r.curve.distance(bounds[1]) - r.curve.distance(bounds[0]) > WIDE_ZONE:
            wide.append(f"{r.curve.label} ({interval(bounds, lambda value: number(value, 3))})")
    undecided = [f"{r.curve.label} at {r.curve.at(r.open.severity)}" for r in reaches if r.open]
    sentences = [f"Where damage reaches the tolerance is known only roughly for {listed(wide)}."] if wide else []
    sentences += [f"Undecided: {listed(undecided)}."] if undecided else []
    if windows < FEW_WINDOWS:
        few = f"Only {windows_text(windows)} of text {'was' if windows == 1 else 'were'} evaluated: "
        few += (
            "that gives no interval." if windows == 1 else "intervals from so few are wide, and uncertain themselves."
        )
        yield Finding("Evaluate more text first", " ".join([few, *sentences, "Take 40 windows or more."]))
    elif sentences:
        sentences.append(f"Four times the text ({4 * windows} windows) would about halve the intervals.")
        yield Finding("Evaluate more text", " ".join(sentences))


def _other_severities(reaches: Sequence[Reach]) -> Iterable[Finding]:
    milder = [r.curve.label for r in reaches if not r.safe and r.curve.can_be_milder()]
    if milder:
        yield Finding(
            f"Measure {listed(milder)} at milder severities",
            "Whether there is a safe range before the mildest one measured is not known.",
        )
    farther = [
        r.curve.label for r in reaches if r.safe and not (r.open or r.unsafe) and not r.curve.ends_at(r.safe.severity)
    ]
    if farther:
        yield Finding(f"Measure {listed(farther)} at harsher severities", "The limit was not reached.")
