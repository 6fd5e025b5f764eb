"""What a scan will do, take and cost, before it does anything."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hemostat import _C
from hemostat._checked_scan import CheckedScan
from hemostat._columns import aligned
from hemostat._methods import filter_of, is_propagated
from hemostat._number_text import number, windows_text
from hemostat._progress import duration

__all__ = ["Memory", "Seconds", "plan_memory", "plan_seconds", "plan_text"]

BATCH, COLLECT_BATCH = 4, 8  # windows at a time
HEAD_CHUNK = 64 * 2**20  # bytes of logits at a time
# Bytes of statistics for an input of n features.
STATISTICS: Mapping[str, Callable[[int], int]] = {
    "column_norm": lambda n: 8 * n,
    "absmean": lambda n: 8 * n,
    "mean": lambda n: 8 * n,
    "absmax": lambda n: 4 * n,
    "gram": lambda n: 4 * n * n,
}
# Bytes of statistics of gradients, for a weight [rows, columns] and so many calibration tokens; others have a float32
# for each weight. These take no gradient of weights.
ROWS: Mapping[str, Callable[[int, int], int]] = {
    "row_fisher": lambda rows, tokens: 8 * rows,
    "token_fisher": lambda rows, tokens: 4 * tokens,
}
HELD_BUDGET = 2**30  # bytes of what a method prepares
# As many Gram matrices of an input as a correction, and factors in float64, are solved with.
CORRECTION, FACTORING = 5, 8
GRAPH = 12  # what a block's graph with weights keeps of each token, in its hidden and its widest activation
TOKEN_METRICS = 70  # bytes that are kept of each evaluated token until its trial ends
SOLVER_COPIES = 8  # float32, of the largest linear: candidates, their errors and products, for what shares an input


@dataclass(frozen=True)
class Memory:
    """Bytes, of what is held at the same time where it is most; beside Python and PyTorch themselves.

    Attributes:
        weights: the baseline's; pages of the checkpoint's file where they are used as stored.
        baseline: its kept logits, or final hidden states.
        keeps_logits: which of the two.
        statistics: by their names.
        collecting: while gradients are collected, what enters each block, and one block's graph and gradients.
        changed: a damaged model's own weights, and what its method prepared; block by block, the calibration windows on
            their way, and what is made of one input. The largest of all methods'.
        noise_floor: the model in the other compute type, and the largest tensor once more while it is checked; before
            there are statistics or damaged models.
        working: activations, pieces of logits, each token's metrics, and a solver's copies of the layers it works on.
        mapped: what of all this lies in temporary files instead, and is not counted.
    """

    weights: float
    baseline: float
    keeps_logits: bool
    statistics: Mapping[str, float]
    collecting: float
    changed: float
    noise_floor: float
    working: float
    mapped: float

    @property
    def total(self) -> float:
        """At the widest moment."""
        most = max(self.noise_floor, sum(self.statistics.values()) + max(self.collecting, self.changed))
        return self.weights + self.baseline + most + self.working


@dataclass(frozen=True)
class Seconds:
    """Estimated time of each stage; trials without those that are finished already."""

    baseline: float = 0.0
    noise_floor: float = 0.0
    statistics: float = 0.0
    preparing: float = 0.0
    trials: float = 0.0
    localizing: float = 0.0
    unknown: list[str] = field(default_factory=list)  # methods whose own work is not counted

    @property
    def total(self) -> float:
        return self.baseline + self.noise_floor + self.statistics + self.preparing + self.trials + self.localizing


def plan_text(checked: CheckedScan, finished: Collection[tuple[str, float]], resumes: bool) -> str:
    """The plan for a terminal.

    Args:
        checked: the scan.
        finished: method and severity of each trial that is finished already.
        resumes: whether to say how many these are.
    """
    parts = _parts(checked)
    rows = [
        [part.name, str(len(part.trials)), *([str(sum(name in finished for name in part.trials))] if resumes else [])]
        + [" × ".join("  ".join(number(severity, 3) for severity in entry.severities) for entry in part.methods)]
        for part in parts
    ]
    done = sum(name in finished for name in checked.trials)
    head = ["method", "trials", *(["finished"] if resumes else []), "severities"]
    evaluation, calibration = checked.facts["evaluation"], checked.facts["calibration"]
    what = (
        f"{len(checked.trials)} trials, each on {windows_text(evaluation['windows'])} of {evaluation['length']} tokens"
    )
    lines = [
        *aligned(head, rows, left=len(head)),
        "",
        what + (f" ({evaluation['text']})" if "text" in evaluation else ""),
        f"calibration: {windows_text(calibration['windows'])} ({calibration['source']})",
    ]
    if resumes:
        lines.append(f"{done} of {len(checked.trials)} trials are finished already")
    if done == len(checked.trials):
        return "\n".join([*lines, "time: none but for the report's, since no trial remains"])
    return "\n".join(
        [*lines, _memory_line(plan_memory(checked, finished)), _seconds_line(plan_seconds(checked, finished))]
    )


def plan_memory(
    checked: CheckedScan, finished: Collection[tuple[str, float]] = (), memory_budget: float = 2**30
) -> Memory:
    """What the scan will hold, by the rules by which it decides what to keep."""
    model, (windows, length) = checked.model, checked.evaluation.shape
    vocabulary, hidden = model.config.vocab_size, _width(model)
    size, tokens = model.dtype.itemsize, windows * (length - 1)
    remaining = _remaining(checked, finished)

    logits = tokens * vocabulary * size
    states = tokens * hidden * size if model.blocks else logits  # a foreign module's head is not ours to call again
    keeps_logits = logits <= memory_budget
    baseline = logits if keeps_logits else min(states, memory_budget)
    mapped = 0 if keeps_logits else states - baseline

    statistics: dict[str, float] = {}
    left = memory_budget - baseline
    needs, of_gradients = _needs(checked, remaining)
    collecting = 0.0

    def keep(need: str, bytes_: float) -> bool:
        nonlocal left, mapped
        if bytes_ > left:
            mapped += bytes_
            return False
        left -= bytes_
        statistics[need] = statistics.get(need, 0) + bytes_
        return True

    of_weights = [need for need in of_gradients if need not in ROWS]
    for _, weight in model.linears() if of_gradients else []:
        for need in of_weights:
            keep(need, 4 * weight.numel())
        for need in set(of_gradients) - set(of_weights):
            statistics[need] = statistics.get(need, 0) + ROWS[need](weight.shape[0], checked.calibration.numel())
    if of_gradients:
        graphed, graphs = (0, 0.0) if of_weights else _graphed(model, checked.calibration.shape[1], left)
        left, collecting = left - graphs, collecting + graphs
        count, length_ = min(COLLECT_BATCH, checked.calibration.shape[0]), checked.calibration.shape[1]
        between = len(model.blocks) - graphed + 1 if model.blocks else 0
        states = between * count * length_ * hidden * size
        if states <= left:
            left, collecting = left - states, collecting + states
        else:
            mapped += states
        if of_weights or not model.blocks:
            # a foreign module's graph is one, of all its layers
            layers = 1 if model.blocks else max(1, len(model.linears()) // 7)
            block = sum(weight.numel() for _, weight in model.linears()) / max(len(model.blocks), 1)
            widest = max(max(weight.shape) for _, weight in model.linears())
            collecting += block * 2 * 4 + layers * length_ * GRAPH * (hidden + widest) * size
        elif graphed < len(model.blocks):
            collecting += _graph(model, length_)
        collecting += min(HEAD_CHUNK, length_ * vocabulary * 4)  # probabilities, and their sums to draw from
    for features in _inputs(model) if needs else []:
        for need in needs:
            if need == "gram":
                keep(need, STATISTICS[need](features))
            else:
                statistics[need] = statistics.get(need, 0) + STATISTICS[need](features)

    changed, in_files = 0.0, 0.0
    for part in remaining:
        of_part = [_changed(checked, entry, left) for entry in part.methods]
        changed = max(changed, sum(held for held, _ in of_part))
        in_files = max(in_files, sum(files for _, files in of_part))
    widest = max((max(weight.shape) for _, weight in model.linears()), default=hidden)
    batch = max(BATCH, COLLECT_BATCH if needs or of_gradients else 0) * length
    solving = SOLVER_COPIES * 4 * max(weight.numel() for _, weight in model.linears()) if "gram" in needs else 0
    head = min(HEAD_CHUNK, BATCH * length * vocabulary * 4) * size / 4
    return Memory(
        weights=model.bytes,
        baseline=baseline,
        keeps_logits=keeps_logits,
        statistics=statistics,
        collecting=collecting,
        changed=changed,
        noise_floor=model.parameters * (2 if model.dtype == torch.float32 else 4) + 4 * vocabulary * hidden,
        working=batch * 3 * (hidden + widest) * size + 2 * head + tokens * TOKEN_METRICS + solving,
        mapped=mapped + in_files,
    )


def plan_seconds(checked: CheckedScan, finished: Collection[tuple[str, float]] = ()) -> Seconds:
    """Measures the work on a short piece of the text, and each method on one linear layer."""
    model, (windows, length) = checked.model, checked.evaluation.shape
    remaining = _remaining(checked, finished)
    first = checked.evaluation[:1]
    model(first[:, :8])  # reads the weights
    short = min(length, 32)
    slow = _time(lambda: model(first[:, :short])) * length / short > 2
    sample = first[:, : min(length, 128 if slow else length)]
    scale = windows * (length - 1) / (sample.shape[1] - 1)

    evaluations: list[_C.BaselineEvaluation] = []
    baseline = _time(lambda: evaluations.append(_C.BaselineEvaluation(model, sample)))
    unchanged = _time(evaluations[0].unchanged)
    trial = _time(lambda: evaluations[0].compare(model))
    noise_floor = _time(lambda: _C.measure_noise_floor(evaluations[0]))

    # One linear layer stands for all, by how the cost grows with its sizes.
    name, weight = next(iter(model.linears()))
    block = (re.match(r"(.*?\.\d+\.)", name) or [name])[0] + "*"
    needs, of_gradients = _needs(checked, remaining, propagated=False)
    collecting, statistics = 0.0, None
    if needs or of_gradients:
        forward = _time(lambda: model(sample))
        kept: list[_C.Statistics] = []
        one = _time(lambda: kept.append(_C.collect(model, sample, needs, include=block))) if needs else forward
        blocks = len(list(model.linears())) / max(1, len(list(model.linears(include=block))))
        collecting = forward + max(0.0, one - forward) * blocks
        if of_gradients:  # back through every block; the weights' gradients in the others take about a forward pass
            both = _time(lambda: kept.append(_C.collect(model, sample, needs + of_gradients, include=block)))
            collecting += max(0.0, both - one) + (0.0 if ROWS.keys() >= set(of_gradients) else forward)
        collecting *= checked.calibration.numel() / sample.numel()
        statistics = kept[-1]
    if not any(_needs(checked, remaining)):  # collected in the passes of the trials
        collecting = 0.0

    @functools.cache
    def work(method: str, severity: float) -> tuple[float, float]:
        """Seconds to prepare a method, and to apply it."""
        spec = _C.MethodSpec.parse(method)
        text, factor = method, 1.0
        if _C.find_method(spec.method).on_linears:
            text = _only(spec, [name])
            factor = _C.estimated_work(model, method) / _C.estimated_work(model, text)
        made: list[_C.Prepared] = []
        prepared = _time(lambda: made.append(_C.prepare(model, text, statistics)))
        return factor * prepared, factor * _time(lambda: made[0].at(severity))

    per_window = trial * scale / windows
    passes = (
        baseline
        * checked.calibration.numel()
        / sample.numel()
        * (2 if (checked.propagation or {}).get("correct") else 1)
    )
    preparing, trials, localizing, unknown = 0.0, 0.0, 0.0, []
    for part in remaining:
        missing = [name for name in part.trials if name not in finished]
        trials += len(missing) * trial * scale
        # Of a pair the last is prepared and applied as often as the first changes what it gets.
        rows = len({method for method, _ in missing})
        for entry, times in zip(reversed(part.methods), (rows, 1), strict=False):
            method = _C.find_method(_name(entry))
            if method.kind == "user" or (method.needs and not method.on_linears):  # only a run of it tells
                unknown += [entry.method] if entry.method not in unknown else []
                continue
            prepare, apply = work(entry.method, entry.severities[len(entry.severities) // 2])
            if checked.propagation is not None and is_propagated(entry.method, checked.propagation["correct"]):
                # every trial is a pass of its own
                prepare, apply = 0.0, prepare + apply + passes
            preparing += times * prepare
            trials += (len(missing) if entry is part.methods[-1] else rows) * apply
            if len(part.methods) == 1:
                localizing += _localized(model, method) * per_window * min(checked.localize_windows, windows)
    return Seconds(
        baseline=(baseline + unchanged) * scale,
        noise_floor=noise_floor * scale,
        statistics=collecting,
        preparing=preparing,
        trials=trials,
        localizing=localizing,
        unknown=unknown,
    )


def _graph(model: _C.Model, length: int) -> float:
    """Bytes of a block's graph of one window without gradients of weights: what its linears read and give."""
    features = sum(sum(weight.shape) for _, weight in model.linears())
    return features / max(len(model.blocks), 1) * length * model.dtype.itemsize


def _graphed(model: _C.Model, length: int, budget: float) -> tuple[int, float]:
    """How many blocks keep their graph from the forward pass on, and its bytes."""
    graphed = min(len(model.blocks), int(max(budget, 0.0) / max(_graph(model, length), 1)))
    return graphed, graphed * _graph(model, length)


def _width(model: _C.Model) -> int:
    """Of the residual stream; of a foreign module that does not say, of its widest linear."""
    return model.config.hidden_size or max(max(weight.shape) for _, weight in model.linears())


def _localized(model: _C.Model, method: _C.Method) -> float:
    """How many trials the places of a method are worth: a place in block l runs the blocks from l on, and the head.

    Weights have another run of each place, with noise. What leaves no block in its place is not localized.
    """
    if not (method.localizable and method.in_place):
        return 0.0
    runs = 2 if method.changes_weights else 1
    if not model.blocks:  # each linear of a foreign module, by a run of all of it
        return float(len(model.linears()) * runs)
    blocks = sum(weight.numel() for _, weight in model.linears())
    head = model.embedding.numel()
    return len(model.blocks) * runs * (blocks / 2 + head) / (blocks + head)


@dataclass(frozen=True)
class _Part:
    """A method and its severities, or two of them and their grid, without the trials of the parts before it."""

    name: str
    methods: Sequence[_C.PlannedMethod]
    trials: Sequence[tuple[str, float]]


def _parts(checked: CheckedScan) -> list[_Part]:
    seen: set[tuple[str, float]] = set()
    parts = []
    for methods, trials in checked.parts():
        own = [name for name in dict.fromkeys(trials) if name not in seen]
        seen.update(own)
        parts.append(_Part(", then ".join(entry.method for entry in methods), methods, own))
    return parts


def _remaining(checked: CheckedScan, finished: Collection[tuple[str, float]]) -> list[_Part]:
    return [part for part in _parts(checked) if any(name not in finished for name in part.trials)]


def _needs(checked: CheckedScan, parts: Sequence[_Part], propagated: bool = True) -> tuple[list[str], list[str]]:
    """What these methods need of inputs, and of gradients; propagated: of the unchanged model."""
    methods = [entry.method for part in parts for entry in part.methods]
    needs = _C.needs_of(methods, propagate=propagated and checked.propagation is not None)
    of_gradients = _C.gradient_needs()
    return sorted(needs - of_gradients - {"tokens"}), sorted(needs & of_gradients)


def _name(entry: _C.PlannedMethod) -> str:
    return _C.MethodSpec.parse(entry.method).method


def _changed(checked: CheckedScan, entry: _C.PlannedMethod, budget: float) -> tuple[float, float]:
    """Bytes of a damaged model that are its own, with what it is made from; and of that what lies in files."""
    model, given = checked.model, checked.propagation
    spec = _C.MethodSpec.parse(entry.method)
    if spec.method == "gradient_aware":
        return _treated(checked, spec, budget)
    if spec.method == "slicegpt":
        return _sliced(checked, 1 - min(entry.severities))
    method, linears = _C.find_method(spec.method), model.linears(**filter_of(spec))
    propagated = given is not None and is_propagated(entry.method, given["correct"])
    weights = 0.0
    if method.changes_weights or method.kind == "user" or (propagated and given["correct"]):
        weights = sum(weight.numel() for _, weight in linears) * model.dtype.itemsize
    if method.kind == "factors" and method.on_linears:
        weights *= 1 - min(entry.severities)
    elif method.packs:
        weights *= max(entry.severities) / (8 * model.dtype.itemsize)
    if not propagated:
        held = _C.held_bytes(model, entry.method)
        return weights + min(held, HELD_BUDGET), max(0.0, held - HELD_BUDGET)
    made, files = _block_by_block(checked, spec, bool(given["correct"]), budget)
    return weights + made, files


def _block_by_block(checked: CheckedScan, spec: _C.MethodSpec, corrected: bool, budget: float) -> tuple[float, float]:
    """All calibration windows on their way through the blocks, and what is made of one input."""
    model, method = checked.model, _C.find_method(spec.method)
    widest = max(weight.shape[1] for _, weight in model.linears())
    streams = checked.calibration.numel() * (_width(model) + widest) * model.dtype.itemsize
    needs = _C.needs_of([spec.text()]) - _C.gradient_needs()
    budgeted = streams * (2 if corrected else 1) + sum(STATISTICS[need](widest) for need in needs)
    matrices = (CORRECTION if corrected else 0) + (FACTORING if method.kind == "factors" and "gram" in needs else 0)
    held = max(_C.held_bytes(model, _only(spec, names)) for names in _by_input(model.linears(**filter_of(spec))))
    made = held + matrices * STATISTICS["gram"](widest)
    return made + min(budgeted, budget), max(0.0, budgeted - budget)


def _treated(checked: CheckedScan, spec: _C.MethodSpec, budget: float) -> tuple[float, float]:
    """Of gradient-aware pruning: it judges by statistics of all inputs, then has ADMM block by block."""
    model, options = checked.model, dict(spec.options)
    linears = model.linears(**filter_of(spec))
    largest = max(weight.numel() for _, weight in linears)
    weights = sum(weight.numel() for _, weight in linears) * model.dtype.itemsize
    admm = _C.MethodSpec("admm", include=list(linears.names))
    made, files = _block_by_block(checked, admm, bool(options.get("propagate", True)), budget)
    judging = 0.0
    if options.get("allocation", True):  # freed by then, but the heap keeps most of their pages
        judging = sum(STATISTICS["gram"](features) for features in _inputs(model))
    held = weights + made + min(judging, budget) + SOLVER_COPIES * 4 * largest
    return held, max(files, judging - budget, 0.0)


def _sliced(checked: CheckedScan, kept: float) -> tuple[float, float]:
    """Of SliceGPT: norms folded into copies of all weights, then those sliced; the largest matrix in float64."""
    model, size = checked.model, checked.model.dtype.itemsize
    weights = sum(weight.numel() for _, weight in model.linears()) * size
    head = model.embedding.numel() * size
    shortcuts = 2 * len(model.blocks) * _width(model) ** 2 * kept**2 * size
    stream = checked.calibration.numel() * _width(model) * size
    turned = head * (1 + kept) * torch.float64.itemsize / size
    return weights * (1 + kept) + head * (1 + 2 * kept) + shortcuts + stream + turned, 0.0


def _by_input(linears: _C.Linears) -> list[list[str]]:
    """Names of linears; those that share an input together."""
    names: dict[int, list[str]] = {}
    for place, (name, _) in zip(linears.input_ids, linears, strict=True):
        names.setdefault(place, []).append(name)
    return list(names.values())


def _only(spec: _C.MethodSpec, names: Sequence[str]) -> str:
    """The method on these linears alone."""
    return _C.MethodSpec(spec.method, **(dict(spec.options) | {"include": list(names), "exclude": []})).text()


def _inputs(model: _C.Model) -> list[int]:
    """The features of each input that statistics are collected of: linears that share one share its statistics."""
    linears = model.linears()
    return list(
        {place: weight.shape[1] for place, (_, weight) in zip(linears.input_ids, linears, strict=True)}.values()
    )


def _time(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _memory_line(memory: Memory) -> str:
    parts = [
        f"{_bytes(memory.weights)} of weights",
        f"{_bytes(memory.baseline)} of the baseline's {'logits' if memory.keeps_logits else 'hidden states'}",
        *(f"{_bytes(count)} of {name}" for name, count in memory.statistics.items()),
    ]
    if memory.collecting:
        parts.append(f"{_bytes(memory.collecting)} while gradients are collected")
    if memory.changed:
        parts.append(f"up to {_bytes(memory.changed)} for a damaged model")
    parts.append(f"{_bytes(memory.working)} to compute with")
    line = f"memory: about {_bytes(memory.total)} at once ({', '.join(parts)})"
    return line + (f"; {_bytes(memory.mapped)} in temporary files" if memory.mapped else "")


def _seconds_line(seconds: Seconds) -> str:
    parts = [
        ("baseline", seconds.baseline),
        ("noise floor", seconds.noise_floor),
        ("statistics", seconds.statistics),
        ("preparing", seconds.preparing),
        ("trials", seconds.trials),
        ("localizing", seconds.localizing),
    ]
    line = f"time: about {duration(seconds.total)} ("
    line += ", ".join(f"{name} {duration(value)}" for name, value in parts if value) + ")"
    return line + (f", and what {', '.join(seconds.unknown)} takes itself" if seconds.unknown else "")


def _bytes(count: float) -> str:
    if count >= 1000 * 2**20:
        return f"{count / 2**30:.{1 if count < 10 * 2**30 else 0}f} GiB"
    return f"{count / 2**20:.3g} MiB" if count >= 1000 * 2**10 else f"{count / 2**10:.3g} KiB"
