"""The whole run: methods × severities on one model, pairs of methods, and what is recorded about it."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from hemostat import _C
from hemostat._baseline import warn_of_unknown_floor
from hemostat._immutable import check
from hemostat._method_list import ListedMethod, split_joint, split_methods
from hemostat._methods import checked_correction, is_propagated, lent_to, source_of
from hemostat._progress import ScanProgress, scan_display
from hemostat._provenance import (
    byte_count,
    machine_facts,
    model_facts,
    model_hashes,
    shared_windows,
    token_facts,
    versions,
)
from hemostat._run import Run
from hemostat._store import Store
from hemostat._surface import method_facts, surface_facts
from hemostat.report import Report
from hemostat.report._document import (
    Arguments,
    Baseline,
    Document,
    LocalizationFacts,
    Provenance,
    Trial,
    baseline_warnings,
    read,
    threshold_facts,
    to_json,
)

__all__ = ["CheckedScan", "scan"]

PROTOCOL = (
    "Teacher forcing; the text is tokenized as a whole and cut into windows of {length} tokens; every target inside a "
    "window counts once; logarithms are natural."
)


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
        return checked.run(checked.in_store(kept), memory_budget=memory_budget, batch=batch, progress=progress)


class CheckedScan:
    """A scan that could begin: its input is checked and its trials are planned.

    Args:
        evaluation_text: where the evaluated tokens came from, for the report.
        calibration_text: likewise.
        arguments: what a command line was given, for the commands that follow from the report.
        text_sha256: of the file that the evaluated tokens came from.
        (others): as :func:`scan` takes them.

    Attributes:
        planned: the methods and their severities.
        planned_joint: the pairs of methods and their grids.
        trials: method and severity of every trial that there is, as a store knows them.
        settings: all that decides on the numbers.
        facts: what else a report says of it.
    """

    def __init__(
        self,
        model: _C.Model,
        evaluation: torch.Tensor,
        calibration: torch.Tensor | None,
        *,
        methods: str | Sequence[str] | None = None,
        joint: Sequence[str | Sequence[str]] = (),
        severities: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
        points: int | None = None,
        localize_windows: int = 0,
        generation: bool | _C.GenerationProtocol = False,
        bootstrap_samples: int = 2000,
        seed: int = 0,
        propagate: bool = False,
        correct: float = 0.0,
        correct_damp: float = 0.1,
        evaluation_text: str | None = None,
        calibration_text: str | None = None,
        arguments: Arguments | None = None,
        text_sha256: str | None = None,
    ):
        correct, correct_damp = checked_correction("hemostat.scan", propagate, correct, correct_damp)
        self.propagation = (
            {"correct": correct} | ({"correct_damp": correct_damp} if correct else {}) if propagate else None
        )
        listed_pairs = split_joint(joint)
        paired = [entry for pair in listed_pairs for entry in pair]
        if methods is None and paired:
            listed = list({entry.spec: entry for entry in paired}.values())
        else:
            listed = split_methods(() if methods is None else methods)
        pairs = [tuple(_C.MethodSpec.parse(entry.spec) for entry in pair) for pair in listed_pairs]
        specs = [entry.spec for entry in listed]
        grids = _severities_by_spec(listed, paired, severities)
        self.planned = _C.plan(model, specs, severities=grids, points=points, joint=pairs)
        self.planned_joint = _C.plan_joint(model, pairs, severities=grids, points=points)
        self.trials = list(dict.fromkeys(name for _, trials in self.parts() for name in trials))
        source = calibration_text or "given"
        if calibration is None:
            calibration, evaluation = _first_fifth(evaluation)
            source = "the first fifth of the evaluation windows, not evaluated"
        for name, tokens in (("evaluation", evaluation), ("calibration", calibration)):
            if tokens.dim() != 2 and tokens.numel():
                raise ValueError(f"hemostat.scan: {name} has shape {list(tokens.shape)}, but must be [windows, length]")
        self.model, self.evaluation, self.calibration = model, evaluation, calibration
        self._pairs = pairs
        self.seed, self.bootstrap_samples = seed, bootstrap_samples
        self.localize_windows, self.generation = localize_windows, generation
        self._byte_count = byte_count(model, evaluation)

        sha256, self._former_model = model_hashes(model)
        facts = model_facts(model, sha256)
        self.text_sha256 = text_sha256
        self.settings = {
            "model": sha256,
            "dtype": facts["dtype"],
            "device": model.device.type,
            "evaluation": token_facts(evaluation),
            "calibration": token_facts(calibration),
            "methods": {entry.method: _method_settings(entry, self.propagation) for entry in self.planned},
            "seed": seed,
            "bootstrap_samples": bootstrap_samples,
            "localize_windows": localize_windows,
            "generation": _generation_settings(generation, model),
            "hemostat": versions()["hemostat"],
            "joint": {_joint_label(entry): _joint_settings(entry, self.propagation) for entry in self.planned_joint},
        }
        text = {"text": evaluation_text} if evaluation_text else {}
        self.facts = {
            "warnings": _warnings(calibration, evaluation),
            "model": facts,
            "protocol": PROTOCOL.format(length=self.settings["evaluation"]["length"]),
            "evaluation": self.settings["evaluation"] | text,
            "calibration": self.settings["calibration"] | {"source": source},
            "methods": [_method_facts(entry) for entry in self.planned],
            "seed": seed,
            "bootstrap_samples": bootstrap_samples,
        }
        if self.propagation is not None:
            self.facts["propagation"] = self.propagation
        if arguments:
            self.facts["arguments"] = to_json(arguments)

    def parts(self) -> Iterator[tuple[Sequence[_C.PlannedMethod], list[tuple[str, float]]]]:
        """Each method, then each pair, with method and severity of its trials; a pair's edges are methods' own."""
        for entry in self.planned:
            yield [entry], [(entry.method, severity) for severity in entry.severities]
        for pair in self.planned_joint:
            sizes = [range(len(method.severities)) for method in pair.methods]
            yield pair.methods, list(filter(None, (pair.trial(*place) for place in itertools.product(*sizes))))

    def in_store(self, store: Store, command: str | None = None) -> Run:
        """This scan's run in a store."""
        return Run(
            store,
            self.settings,
            self.facts | ({"text_sha256": self.text_sha256} if self.text_sha256 else {}),
            {"command": command, "versions": versions(), "machine": machine_facts(self.model)},
            planned=frozenset(self.trials),
            former_model=self._former_model,
            unigram_nll=self._unigram_nll if self.calibration.numel() else None,
        )

    def run(self, run: Run, *, memory_budget: float = 2**30, batch: int = 4, progress: ScanProgress = None) -> Report:
        """Runs the trials that the run does not have yet, and reports all of them."""
        for phrase in run.mend():
            warnings.warn(f"hemostat.scan: store {run.store.path}: {phrase}; it is measured again", stacklevel=3)
        grids = {entry.method: entry.severities for pair in self.planned_joint for entry in pair.methods}
        specs = [entry.method for methods, _ in self.parts() for entry in methods]
        lent = lent_to(specs, self.model, evaluation=self.evaluation, calibration=self.calibration)
        with scan_display(progress, finished=run.count(), trials=len(self.trials)) as display:

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
                self.model,
                self.evaluation,
                self.calibration,
                [entry.method for entry in self.planned],
                joint=self._pairs,
                propagate=self.propagation is not None,
                **(self.propagation or {}),
                severities=grids | {entry.method: entry.severities for entry in self.planned},
                byte_count=self._byte_count,
                memory_budget=memory_budget,
                seed=self.seed,
                bootstrap_samples=self.bootstrap_samples,
                batch=batch,
                generation=self.generation,
                baseline=run.baseline,
                on_baseline=run.keep_baseline,
                known=run.trial,
                on_trial=on_trial,
                localize_windows=self.localize_windows,
                known_localization=run.known_localization,
                on_localization=on_localization,
                progress=display.on_progress,
            )
        warn_of_unknown_floor(self.model, run.baseline[1])
        return report_of(run, self.planned_joint)

    def _unigram_nll(self) -> float:
        """Of the calibration text's counts on the evaluated tokens, as the index takes it."""
        counts = torch.bincount(self.calibration.flatten(), minlength=self.model.embedding.shape[0])
        return _C.metrics.unigram_nll(counts, self.evaluation[:, 1:])


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


def _severities_by_spec(
    listed: Sequence[ListedMethod],
    paired: Sequence[ListedMethod],
    severities: Mapping[str, Sequence[float]] | Sequence[float] | None,
) -> dict[str, list[float]]:
    """Those that stand in the lists, and those given by spec, or for all methods that list none."""
    own: dict[str, list[float]] = {}
    for entry in [*listed, *paired]:
        if entry.severities is not None:
            text, values = _C.MethodSpec.parse(entry.spec).text(), list(entry.severities)
            if own.setdefault(text, values) != values:
                raise ValueError(f"hemostat.scan: severities of {text} are listed twice, and differ")
    if isinstance(severities, Mapping):
        given = {_C.MethodSpec.parse(spec).text(): list(values) for spec, values in severities.items()}
    else:
        given = {} if severities is None else {entry.spec: list(severities) for entry in listed if not entry.severities}
    if twice := sorted(own.keys() & given.keys()):
        raise ValueError(f"hemostat.scan: severities of {', '.join(twice)} are given twice: after the @, and by name")
    return given | own


def _first_fifth(evaluation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(calibration, what remains to be evaluated)."""
    windows = len(evaluation) if evaluation.dim() else 0
    if windows < 2:
        raise ValueError(
            f"hemostat.scan: evaluation has {windows} windows, but takes at least 2 where no calibration is given"
        )
    split = max(1, windows // 5)
    return evaluation[:split], evaluation[split:]


def _warnings(calibration: torch.Tensor, evaluation: torch.Tensor) -> list[str]:
    """What to know before reading any number of a scan on these tokens."""
    shared = shared_windows(calibration, evaluation)
    if not shared:
        return []
    what = (
        "The calibration text is the evaluated one"
        if shared == len(calibration)
        else (f"{shared} of {len(calibration)} calibration windows hold evaluated text")
    )
    return [f"{what}: methods that need statistics have seen what they are measured on, which flatters them."]


def _method_settings(entry: _C.PlannedMethod, propagation: Mapping[str, float] | None) -> dict[str, Any]:
    return {"severities": list(entry.severities)} | _dependencies(entry, propagation)


def _dependencies(entry: _C.PlannedMethod, propagation: Mapping[str, float] | None) -> dict[str, Any]:
    """What a method is, spelled out: a default that changes makes another trial."""
    spec = _C.MethodSpec.parse(entry.method)
    source = source_of(spec.method)
    defaults = {option.name: option.default for option in _C.find_method(spec.method).options}
    propagated = propagation is not None and is_propagated(entry.method, propagation["correct"])
    return {
        "options": defaults | spec.options | ({"propagate": True} | propagation if propagated else {}),
        "needs": sorted(_C.needs_of([entry.method])),
        "generates": entry.axis.measured_by == "generation",
    } | ({"source": source} if source else {})


def _joint_label(entry: _C.PlannedSurface) -> str:
    return ", then ".join(method.method for method in entry.methods)


def _joint_settings(entry: _C.PlannedSurface, propagation: Mapping[str, float] | None) -> dict[str, Any]:
    return {
        "severities": [list(method.severities) for method in entry.methods],
        "methods": {method.method: _dependencies(method, propagation) for method in entry.methods},
    }


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


def _generation_settings(generation: bool | _C.GenerationProtocol, model: _C.Model) -> dict[str, Any]:
    protocol = _C.GenerationProtocol() if isinstance(generation, bool) else generation
    return {
        "always": generation is not False,
        "prompts": protocol.prompts,
        "prompt_length": protocol.prompt_length,
        "new_tokens": protocol.new_tokens,
        "decoder": protocol.decoder and repr(protocol.decoder),
        "context": model.config.context,
        "eos_token_ids": list(model.config.eos_token_ids),
    }


def _method_facts(entry: _C.PlannedMethod) -> dict[str, Any]:
    return to_json(method_facts(entry.method, entry.axis)) | {"severities": list(entry.severities)}


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
