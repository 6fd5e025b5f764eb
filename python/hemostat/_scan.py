"""The whole run: methods × severities on one model, pairs of methods, and what is recorded about it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import torch

from hemostat import _C
from hemostat._baseline import warn_of_unknown_floor
from hemostat._checked_scan import CheckedScan
from hemostat._foreign import uncalled_linears
from hemostat._immutable import check
from hemostat._methods import lent_to
from hemostat._progress import ScanProgress, scan_display
from hemostat._run import Run
from hemostat._scan_report import report_of
from hemostat._store import Store
from hemostat.report import Report

__all__ = ["run_scan", "scan"]


def scan(
    model: _C.Model,
    evaluation: torch.Tensor,
    calibration: torch.Tensor | None = None,
    *,
    methods: str | Sequence[str] | None = None,
    joint: Sequence[str | Sequence[str]] = (),
    severities: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    points: int | None = None,
    store: str | os.PathLike[str] | None = None,
    localize_windows: int = 0,
    generation: bool | _C.GenerationProtocol = False,
    memory_budget: float = 2**30,
    batch: int = 4,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    propagate: bool = False,
    correct: float = 0.0,
    correct_damp: float = 0.1,
    progress: ScanProgress = None,
) -> Report:
    """Measures what each method does to the model at each severity.

    The baseline is evaluated once, statistics are collected once for all methods that need them, each method is
    prepared once, and every severity then costs one evaluation.

    With a ``store`` every finished trial is kept at once, with all that it depends on: the model (its weights, and what
    its config says about numbers), the evaluated tokens, its method with every option and the source of a method of
    one's own, its severity, the calibration tokens where the method needs statistics, how it generates where it does,
    ``seed``, ``bootstrap_samples``, and hemostat's version. A later scan, of the same methods or of others, measures
    what the store does not have, and gives the same result as if it had measured everything. ``memory_budget``,
    ``batch`` and the machine, which may change a last digit, are not among these. Scans may use one store at the same
    time. What is damaged in a store is measured again, with a warning that names it.

    A method of one's own that changes the model, the statistics or the tokens in place ends the scan before anything
    that rests on the change is kept.

    Args:
        model: the baseline.
        evaluation: int64 [windows, length], what damage is measured on.
        calibration: int64 [windows, length], what statistics and unigram counts are collected on. None: the first fifth
            of ``evaluation``, which is then not evaluated.
        methods: specs such as ``"wanda"`` or ``"rtn:group_size=64"``, in a sequence or separated by commas, each with
            its severities where an @ follows: ``"wanda@0.4,0.5,rtn:group_size=64@4,3"``. None: those of ``joint``.
        joint: pairs of methods to measure together, such as ``[("wanda", "rtn:group_size=64")]``: the second changes
            what the first gave, on a grid of both's severities, as :func:`surface` does. What one of them does alone is
            measured once, also where ``methods`` has it.
        severities: by spec, or one sequence for every one of ``methods`` that lists none; others take their axis's
            default grid.
        points: at most so many severities a method, spread over its grid.
        store: SQLite file to keep trials in; it is made with the first of them. None: nothing is kept.
        localize_windows: say of each method that changes blocks in place where it bleeds, as :func:`localize` does, on
            the first so many windows of ``evaluation``, at the mildest severity that costs more than 0.1 nats per
            token. 0: of none.
        generation: True: measure every method by generation too, not only those whose axis is measured so. A
            :class:`GenerationProtocol`: and in this way.
        memory_budget: bytes for statistics, and for the baseline's logits.
        batch: windows at a time.
        bootstrap_samples: resamplings of windows behind each interval.
        seed: of the bootstrap, of text that is sampled, and of the noise beside what is localized.
        propagate: calibrate methods on linears block by block, as :func:`prepare` does: a pass over the calibration
            tokens for each of their trials, which are other trials than those without.
        correct: with ``propagate``; see there.
        correct_damp: with ``correct``.
        progress: None: a bar where there is a terminal; True or False: always or never; ``"lines"``: a line on standard
            error for each trial; or a function ``(stage, done, total)``.

    Returns:
        Report: ``.to_html(path)``, ``.to_json(path)``, ``.to_dataframe()``, ``.table()``.

    Raises:
        ValueError: an unknown method or option, a severity out of range, token ids out of range, too few windows, or a
            store that is no scan store; all seen before any work. Or a method that changed something in place.
        FileNotFoundError: the store's directory does not exist.
        NumericalError: the baseline is not finite, seen before any trial; the message says where that begins, and the
            dtype's part.

    Warns:
        BaselineWarning: the noise floor is unknown, since the model is not finite in the other compute type.

    Examples:
        >>> report = hemostat.scan(model, evaluation, methods=["magnitude", "rtn:group_size=64"])  # doctest: +SKIP
        >>> report.to_html("report.html")                                                          # doctest: +SKIP
    """
    with Store(store) as kept:
        checked = CheckedScan(
            model,
            evaluation,
            calibration,
            methods=methods,
            joint=joint,
            severities=severities,
            points=points,
            localize_windows=localize_windows,
            generation=generation,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            propagate=propagate,
            correct=correct,
            correct_damp=correct_damp,
        )
        return run_scan(checked, checked.in_store(kept), memory_budget=memory_budget, batch=batch, progress=progress)


def run_scan(
    checked: CheckedScan, run: Run, *, memory_budget: float = 2**30, batch: int = 4, progress: ScanProgress = None
) -> Report:
    """Measures the trials that the run does not have yet, and reports all of them."""
    for phrase in run.mend():
        warnings.warn(f"hemostat.scan: store {run.store.path}: {phrase}; it is measured again", stacklevel=3)
    grids = {entry.method: entry.severities for pair in checked.planned_joint for entry in pair.methods}
    specs = [entry.method for methods, _ in checked.parts() for entry in methods]
    lent = lent_to(specs, checked.model, evaluation=checked.evaluation, calibration=checked.calibration)
    if checked.model.foreign and _C.needs_of(specs):
        on_one = _C.collect(checked.model, checked.calibration[:1], ["absmax"])
        if unreached := uncalled_linears(checked.model, on_one):
            warnings.warn(f"hemostat.scan: {unreached}", stacklevel=3)
    with scan_display(progress, finished=run.count(), trials=len(checked.trials)) as display:

        def check_lent(what: str) -> None:
            if lent:  # nothing poisoned is kept, whoever did it
                check(f"hemostat.scan: what ran beside {what}", lent)

        def on_trial(trial: _C.Trial) -> None:
            check_lent(f"the trial of {trial.method}")
            run.add(trial)
            display.on_trial(trial)

        def on_localization(localization: _C.Localization) -> None:
            check_lent(f"the localization of {localization.method}")
            run.add_localization(localization)

        _C.scan(
            checked.model,
            checked.evaluation,
            checked.calibration,
            [entry.method for entry in checked.planned],
            joint=checked.pairs,
            propagate=checked.propagation is not None,
            **(checked.propagation or {}),
            severities=grids | {entry.method: entry.severities for entry in checked.planned},
            byte_count=checked.byte_count,
            memory_budget=memory_budget,
            seed=checked.seed,
            bootstrap_samples=checked.bootstrap_samples,
            batch=batch,
            generation=checked.generation,
            baseline=run.baseline,
            on_baseline=run.keep_baseline,
            known=run.trial,
            on_trial=on_trial,
            localize_windows=checked.localize_windows,
            known_localization=run.known_localization,
            on_localization=on_localization,
            progress=display.on_progress,
        )
    warn_of_unknown_floor(checked.model, run.baseline[1])
    return report_of(run, checked.planned_joint)
