"""What a scan is, before any work: its input checked, its trials planned, and all that decides on its numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from hemostat import _C
from hemostat._method_list import ListedMethod, split_joint, split_methods
from hemostat._methods import checked_correction, is_propagated, source_of
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
from hemostat._surface import method_facts
from hemostat.report._document import (
    Arguments,
    to_json,
)

__all__ = ["CheckedScan"]

PROTOCOL = (
    "Teacher forcing; the text is tokenized as a whole and cut into windows of {length} tokens; every target inside a "
    "window counts once; logarithms are natural."
)


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
        pairs: their specs.
        trials: method and severity of every trial that there is, as a store knows them.
        settings: all that decides on the numbers.
        byte_count: of the evaluated targets, for bits per byte.
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
        if not model.config.vocab_size:
            raise ValueError(
                "hemostat.scan: its report is on what a language model predicts; sweep and localize measure the loss "
                f"of a {model.config.family}"
            )
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
        self.pairs = pairs
        self.seed, self.bootstrap_samples = seed, bootstrap_samples
        self.localize_windows, self.generation = localize_windows, generation
        self.byte_count = byte_count(model, evaluation)

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

    def _unigram_nll(self) -> float:
        """Of the calibration text's counts on the evaluated tokens, as the index takes it."""
        counts = torch.bincount(self.calibration.flatten(), minlength=self.model.config.vocab_size)
        return _C.metrics.unigram_nll(counts, self.evaluation[:, 1:])


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
