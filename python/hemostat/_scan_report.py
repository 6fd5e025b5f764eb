"""The report of a scan: what its run has, as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hemostat import _C
from hemostat._run import Run
from hemostat._surface import surface_facts
from hemostat.report import Report
from hemostat.report._document import (
    Baseline,
    Document,
    LocalizationFacts,
    Provenance,
    Trial,
    baseline_warnings,
    read,
    threshold_facts,
)

__all__ = ["report_of"]


def report_of(run: Run, joint: Sequence[_C.PlannedSurface] = ()) -> Report:
    """The report of what a run's store has.

    Args:
        run: Its trials.
        joint: The pairs of methods that were measured together.
    """
    facts, trials = run.facts, run.trials()
    damage, noise_floor = run.baseline
    sessions = run.sessions()
    last = sessions[-1]
    curves, methods = [], []
    for entry in facts["methods"]:
        curves.append(_curve(entry, trials, noise_floor))
        methods.append(
            {name: value for name, value in entry.items() if name != "severities"}
            | {
                "seconds_prepare": round(curves[-1].seconds_prepare, 3),
                "seconds": [round(seconds, 3) for seconds in curves[-1].seconds],
            }
        )
    made = {
        "warnings": [*facts.get("warnings", ()), *baseline_warnings(damage.index)],
        "methods": methods,
        "versions": last.facts["versions"],
        "machine": last.facts["machine"],
        "command": last.facts["command"],
        "settings": run.digest,
        "resumed": run.resumed(),
        "date": last.finished,
        "seconds": round(sum(session.seconds for session in sessions), 3),
    }
    elsewhere = [session for session in sessions if session.facts | {"command": None} != last.facts | {"command": None}]
    if elsewhere:  # some trials were measured by other versions or on another machine
        made["other_sessions"] = [
            {name: session.facts[name] for name in ("versions", "machine")}
            | {"trials": session.trials, "date": session.finished}
            for session in elsewhere
        ]
    provenance = read(Provenance, facts | made, "provenance")
    measured = list(zip(provenance.methods, curves, strict=True))
    localizations = map(run.localization, (method.label for method in provenance.methods))
    document = Document(
        provenance=provenance,
        baseline=_baseline_facts(damage, noise_floor),
        trials=tuple(
            Trial(method=method.method, options=method.options, severity=severity, damage=damage)
            for method, curve in measured
            for severity, damage in zip(curve.severities, curve.damages, strict=True)
        ),
        thresholds=tuple(
            threshold_facts(method, _C.find_threshold(curve)) for method, curve in measured if curve.severities
        ),
        localizations=tuple(
            read(LocalizationFacts, found.to_dict(), f"localization of {found.method}")
            for found in localizations
            if found
        ),
        surfaces=tuple(surface_facts(_surface(entry, trials, damage, noise_floor)) for entry in joint),
    )
    return Report(document, curves)


def _surface(
    planned: _C.PlannedSurface,
    trials: Mapping[tuple[str, float], _C.Trial],
    unchanged: _C.Damage,
    noise_floor: _C.NoiseFloor | None,
) -> _C.Surface:
    """A grid of finished trials."""
    rows, columns = [range(len(method.severities)) for method in planned.methods]
    names = [[planned.trial(row, column) for column in columns] for row in rows]
    return _C.Surface(
        [method.method for method in planned.methods],
        [method.axis for method in planned.methods],
        [method.severities for method in planned.methods],
        [[trials[name].damage if name else unchanged for name in row] for row in names],
        noise_floor,
    )


def _curve(
    method: Mapping[str, Any], trials: Mapping[tuple[str, float], _C.Trial], noise_floor: _C.NoiseFloor | None
) -> _C.SweepCurve:
    label = method["label"]
    kept = [trials[label, severity] for severity in method["severities"] if (label, severity) in trials]
    return _C.SweepCurve(
        label,
        _C.Axis(**method["axis"]),
        [trial.severity for trial in kept],
        [trial.damage for trial in kept],
        noise_floor,
        sum(trial.seconds_prepare for trial in kept),
        [trial.seconds for trial in kept],
    )


def _baseline_facts(baseline: _C.Damage, noise_floor: _C.NoiseFloor | None) -> Baseline:
    return Baseline(
        windows=baseline.windows,
        perplexity=baseline.perplexity,
        index=baseline.index,
        noise_floor=noise_floor,
        window_nll=tuple(baseline.window_nll),
        more={
            "tokens": baseline.tokens,
            "nll": baseline.nll,
            "bits_per_byte": baseline.bits_per_byte,
            "accuracy": baseline.accuracy,
            "calibration_error": baseline.calibration_error,
            "entropy": baseline.entropy_baseline,
        },
    )
