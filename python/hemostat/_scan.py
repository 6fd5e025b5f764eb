"""The whole run: methods × severities on one model, pairs of methods, and what is recorded about it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from tqdm import tqdm

from hemostat import _C
from hemostat._methods import source_of
from hemostat._progress import disabled
from hemostat._provenance import byte_count, machine_facts, model_facts, token_facts, versions
from hemostat._store import Run, Store
from hemostat._surface import surface_facts
from hemostat.report import TOLERANCES, Report

__all__ = ["CheckedScan", "scan", "split_joint", "split_methods"]

PROTOCOL = (
    "Teacher forcing; the text is tokenized as a whole and cut into windows of {length} tokens; every target inside a "
    "window counts once; logarithms are natural."
)

Progress = bool | Callable[[str, int, int], None] | None


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
    progress: Progress = None,
) -> Report:
    """Measures what each method does to the model at each severity.

    The baseline is evaluated once, statistics are collected once for all methods that need them, each method is
    prepared once, and every severity then costs one evaluation.

    With a ``store`` every finished trial is kept at once. A scan of the same settings goes on where an earlier one
    ended, however it ended, and gives the same result as if it had not; where all trials are finished, nothing is
    evaluated. Settings are all that decides on the numbers: the model, the tokens, the methods with their options and
    severities (and the source of a method of one's own), the seed, and hemostat's version; ``memory_budget``, ``batch``
    and the machine, which may change a last digit, are not among them. A scan of other settings is another run in the
    same file. Scans may use one store at the same time, and those of the same settings share their trials.

    Args:
        model: the baseline.
        evaluation: int64 [windows, length], what damage is measured on.
        calibration: int64 [windows, length], what statistics and unigram counts are collected on. None: the first fifth
            of ``evaluation``, which is then not evaluated.
        methods: specs such as ``"wanda"`` or ``"rtn:group_size=64"``, in a sequence or separated by commas. None: those
            of ``joint``.
        joint: pairs of methods to measure together, such as ``[("wanda", "rtn:group_size=64")]``: the second changes
            what the first gave, on a grid of both's severities, as :func:`surface` does. What one of them does alone is
            measured once, also where ``methods`` has it.
        severities: by spec, or one sequence for every one of ``methods``; others take their axis's default grid.
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
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(stage, done, total)``.

    Returns:
        Report: ``.to_html(path)``, ``.to_json(path)``, ``.to_dataframe()``, ``.table()``.

    Raises:
        ValueError: an unknown method or option, a severity out of range, token ids out of range, too few windows, or a
            store that is no scan store; all seen before any work.
        FileNotFoundError: the store's directory does not exist.

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
        )
        return checked.run(checked.in_store(kept), memory_budget=memory_budget, batch=batch, progress=progress)


class CheckedScan:
    """A scan that could begin: its input is checked and its trials are planned.

    Args:
        evaluation_text: where the evaluated tokens came from, for the report.
        calibration_text: likewise.
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
        evaluation_text: str | None = None,
        calibration_text: str | None = None,
    ):
        pairs = split_joint(joint)
        if methods is None and pairs:
            methods = list(dict.fromkeys(spec.text() for pair in pairs for spec in pair))
        specs = split_methods(() if methods is None else methods)
        grids = _severities_by_spec(specs, severities) or {}
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

        facts = model_facts(model)
        self.settings = {
            "model": facts["sha256"],
            "dtype": facts["dtype"],
            "device": model.device.type,
            "evaluation": token_facts(evaluation),
            "calibration": token_facts(calibration),
            "methods": {entry.method: _method_settings(entry) for entry in self.planned},
            "seed": seed,
            "bootstrap_samples": bootstrap_samples,
            "localize_windows": localize_windows,
            "generation": _generation_settings(generation),
            "hemostat": versions()["hemostat"],
        }
        if self.planned_joint:  # so that a scan without has the settings that it always had
            self.settings["joint"] = {_joint_label(entry): _joint_settings(entry) for entry in self.planned_joint}
        text = {"text": evaluation_text} if evaluation_text else {}
        self.facts = {
            "model": facts,
            "protocol": PROTOCOL.format(length=self.settings["evaluation"]["length"]),
            "evaluation": self.settings["evaluation"] | text,
            "calibration": self.settings["calibration"] | {"source": source},
            "methods": [_method_facts(entry) for entry in self.planned],
            "seed": seed,
            "bootstrap_samples": bootstrap_samples,
        }

    def parts(self) -> Iterator[tuple[Sequence[_C.PlannedMethod], list[tuple[str, float]]]]:
        """Each method, then each pair, with method and severity of its trials; a pair's edges are methods' own."""
        for entry in self.planned:
            yield [entry], [(entry.method, severity) for severity in entry.severities]
        for pair in self.planned_joint:
            sizes = [range(len(method.severities)) for method in pair.methods]
            yield pair.methods, list(filter(None, (pair.trial(*place) for place in itertools.product(*sizes))))

    def in_store(self, store: Store, command: str | None = None) -> Run:
        """This scan's run in a store."""
        session = {"command": command, "versions": versions(), "machine": machine_facts(self.model)}
        return store.run(self.settings, self.facts, session)

    def run(self, run: Run, *, memory_budget: float = 2**30, batch: int = 4, progress: Progress = None) -> Report:
        """Runs the trials that the run does not have yet, and reports all of them."""
        grids = {entry.method: entry.severities for pair in self.planned_joint for entry in pair.methods}
        with _Bar(progress, finished=run.count(), trials=len(self.trials)) as bar:
            _C.scan(
                self.model,
                self.evaluation,
                self.calibration,
                [entry.method for entry in self.planned],
                joint=self._pairs,
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
                on_trial=run.add,
                localize_windows=self.localize_windows,
                known_localization=run.localization,
                on_localization=run.add_localization,
                progress=bar.on_progress,
            )
        return report_of(run, self.planned_joint)


def report_of(run: Run, joint: Sequence[_C.PlannedSurface] = ()) -> Report:
    """The report of what a run's store has.

    Args:
        run: Its trials.
        joint: The pairs of methods that were measured together.
    """
    facts, trials = run.facts, run.trials()
    damage, noise_floor = run.baseline
    curves = [_curve(method, trials, noise_floor) for method in facts["methods"]]
    sessions = run.sessions()
    last = sessions[-1]
    document = {
        "provenance": facts
        | {
            "methods": [
                {name: value for name, value in method.items() if name != "severities"}
                | {
                    "seconds_prepare": round(curve.seconds_prepare, 3),
                    "seconds": [round(seconds, 3) for seconds in curve.seconds],
                }
                for method, curve in zip(facts["methods"], curves, strict=True)
            ],
            "versions": last.facts["versions"],
            "machine": last.facts["machine"],
            "command": last.facts["command"],
            "settings": run.digest,
            "resumed": run.resumed(),
            "date": last.finished,
            "seconds": round(sum(session.seconds for session in sessions), 3),
        },
        "baseline": _baseline_facts(damage, noise_floor),
        "trials": [
            _identity(method) | {"severity": severity, "damage": damage.to_dict()}
            for method, curve in zip(facts["methods"], curves, strict=True)
            for severity, damage in zip(curve.severities, curve.damages, strict=True)
        ],
        "thresholds": [
            _identity(method) | _threshold_facts(curve) for method, curve in zip(facts["methods"], curves, strict=True)
        ],
    }
    localizations = map(run.localization, (method["label"] for method in facts["methods"]))
    if found := [localization.to_dict() for localization in localizations if localization]:
        document["localizations"] = found
    if joint:
        document["surfaces"] = [surface_facts(_surface(entry, trials, damage, noise_floor)) for entry in joint]
    elsewhere = [session for session in sessions if session.facts | {"command": None} != last.facts | {"command": None}]
    if elsewhere:  # some trials were measured by other versions or on another machine
        document["provenance"]["other_sessions"] = [
            {name: session.facts[name] for name in ("versions", "machine")}
            | {"trials": session.trials, "date": session.finished}
            for session in elsewhere
        ]
    return Report(document, curves)


def split_methods(methods: str | Sequence[str]) -> list[str]:
    """Specs, one a method. A comma parts two methods, or two options of one.

    ``wanda,rtn:group_size=64,symmetric=true`` is two methods, since a part with "=" and no ":" goes on with the spec
    before it.

    Raises:
        ValueError: there is no method, or an option comes before the first.
    """
    specs: list[str] = []
    for text in [methods] if isinstance(methods, str) else methods:
        if not isinstance(text, str):
            raise TypeError(f"hemostat.scan: methods has {text!r}, but must have strings")
        begun = False
        for part in filter(None, (part.strip() for part in text.split(","))):
            if "=" in part and ":" not in part:
                if not begun:
                    raise ValueError(f"hemostat.scan: methods has the option {part!r} before any method")
                specs[-1] += ("," if ":" in specs[-1] else ":") + part
            else:
                specs.append(part)
                begun = True
    if not specs:
        raise ValueError("hemostat.scan: methods is empty")
    return specs


def split_joint(joint: Sequence[str | Sequence[str]]) -> list[tuple[_C.MethodSpec, _C.MethodSpec]]:
    """Pairs of specs, each given as two of them or as one text, which :func:`split_methods` parts.

    Raises:
        ValueError: one is not two methods, or there is an unknown one.
    """
    pairs = []
    for given in [joint] if isinstance(joint, str) else joint:
        specs = split_methods(given)
        if len(specs) != 2:
            raise ValueError(
                f"hemostat.scan: joint has {', '.join(specs)}, but takes two methods at a time, such as "
                "wanda,rtn:group_size=64"
            )
        pairs.append(tuple(map(_C.MethodSpec.parse, specs)))
    return pairs


def _severities_by_spec(
    specs: Sequence[str], severities: Mapping[str, Sequence[float]] | Sequence[float] | None
) -> dict[str, list[float]] | None:
    if severities is None:
        return None
    if not isinstance(severities, Mapping):
        return {spec: list(severities) for spec in specs}
    return {spec: list(values) for spec, values in severities.items()}


def _first_fifth(evaluation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(calibration, what remains to be evaluated)."""
    windows = len(evaluation) if evaluation.dim() else 0
    if windows < 2:
        raise ValueError(
            f"hemostat.scan: evaluation has {windows} windows, but takes at least 2 where no calibration is given"
        )
    split = max(1, windows // 5)
    return evaluation[:split], evaluation[split:]


def _method_settings(entry: _C.PlannedMethod) -> dict[str, Any]:
    source = source_of(_C.MethodSpec.parse(entry.method).method)
    return {"severities": list(entry.severities)} | ({"source": source} if source else {})


def _joint_label(entry: _C.PlannedSurface) -> str:
    return ", then ".join(method.method for method in entry.methods)


def _joint_settings(entry: _C.PlannedSurface) -> dict[str, Any]:
    """The severities of both, and the sources of methods of one's own."""
    settings = [_method_settings(method) for method in entry.methods]
    sources = [each["source"] for each in settings if "source" in each]
    return {"severities": [each["severities"] for each in settings]} | ({"sources": sources} if sources else {})


def _surface(
    planned: _C.PlannedSurface,
    trials: Mapping[tuple[str, float], _C.Trial],
    unchanged: _C.Damage,
    noise_floor: _C.NoiseFloor,
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


def _generation_settings(generation: bool | _C.GenerationProtocol) -> Any:
    if isinstance(generation, bool):
        return generation
    fields = {name: getattr(generation, name) for name in ("prompts", "prompt_length", "new_tokens")}
    return fields | {"decoder": generation.decoder and repr(generation.decoder)}


def _method_facts(entry: _C.PlannedMethod) -> dict[str, Any]:
    return _C.MethodSpec.parse(entry.method).to_dict() | {
        "label": entry.method,
        "axis": entry.axis.to_dict(),
        "severities": list(entry.severities),
    }


def _identity(method: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": method["method"], "options": method["options"]}


def _curve(
    method: Mapping[str, Any], trials: Mapping[tuple[str, float], _C.Trial], noise_floor: _C.NoiseFloor
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


def _threshold_facts(curve: _C.SweepCurve) -> dict[str, Any]:
    threshold = _C.find_threshold(curve)
    zones = {str(tolerance): threshold.zone_details(tolerance) for tolerance in TOLERANCES}
    return threshold.to_dict(tolerances=list(TOLERANCES)) | {
        "zone_interval": {name: list(zone.interval) if zone.interval else None for name, zone in zones.items()},
        "zone_censored": {name: zone.censored for name, zone in zones.items()},
    }


def _baseline_facts(baseline: _C.Damage, noise_floor: _C.NoiseFloor) -> dict[str, Any]:
    damage = baseline.to_dict()
    kept = ("windows", "tokens", "nll", "perplexity", "bits_per_byte", "accuracy", "calibration_error")
    return {name: damage[name] for name in kept} | {
        "entropy": damage["entropy_baseline"],
        "noise_floor": noise_floor.to_dict(),
    }


class _Bar:
    """A tqdm bar over trials; silent where there is no terminal, unless told."""

    def __init__(self, progress: Progress, finished: int, trials: int):
        self._function = progress if callable(progress) else None
        self._bar = tqdm(total=trials, initial=finished, disable=disabled(progress), unit="trial", dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if self._function:
            self._function(stage, done, total)
            return
        self._bar.set_description_str(stage if stage == "trials" else f"{stage} {done}/{total}")
        if stage == "trials":
            self._bar.update(done - self._bar.n)
