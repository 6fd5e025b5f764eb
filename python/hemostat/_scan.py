"""The whole run: methods × severities on one model, and what is recorded about it."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hemostat import _C, data
from hemostat._progress import disabled
from hemostat.report import TOLERANCES, Report

__all__ = ["scan", "split_methods"]

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
    methods: str | Sequence[str],
    severities: Mapping[str, Sequence[float]] | Sequence[float] | None = None,
    points: int | None = None,
    memory_budget: float = 2**30,
    batch: int = 4,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    progress: Progress = None,
) -> Report:
    """Measures what each method does to the model at each severity.

    The baseline is evaluated once, statistics are collected once for all methods that need them, each method is
    prepared once, and every severity then costs one evaluation.

    Args:
        model: the baseline.
        evaluation: int64 [windows, length], what damage is measured on.
        calibration: int64 [windows, length], what statistics and unigram counts are collected on. None: the first fifth
            of ``evaluation``, which is then not evaluated.
        methods: specs such as ``"wanda"`` or ``"rtn:group_size=64"``, in a sequence or separated by commas.
        severities: by spec, or one sequence for every method; others take their axis's default grid.
        points: at most so many severities a method, spread over its grid.
        memory_budget: bytes for statistics, and for the baseline's logits.
        batch: windows at a time.
        bootstrap_samples: resamplings of windows behind each interval.
        seed: of the bootstrap.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(stage, done, total)``.

    Returns:
        Report: ``.to_html(path)``, ``.to_json(path)``, ``.to_dataframe()``, ``.table()``.

    Raises:
        ValueError: an unknown method or option, a severity out of range, token ids out of range, too few windows; all
            seen before any work.

    Examples:
        >>> report = hemostat.scan(model, evaluation, methods=["magnitude", "rtn:group_size=64"])  # doctest: +SKIP
        >>> report.to_html("report.html")                                                          # doctest: +SKIP
    """
    started = time.monotonic()
    specs = split_methods(methods)
    grids = _severities_by_spec(specs, severities)
    source = "given"
    if calibration is None:
        calibration, evaluation = _first_fifth(evaluation)
        source = "the first fifth of the evaluation windows, not evaluated"

    planned = _C.plan(model, specs, severities=grids, points=points)
    with _Bar(progress, trials=sum(len(entry.severities) for entry in planned)) as bar:
        result = _C.scan(
            model,
            evaluation,
            calibration,
            specs,
            severities=grids,
            points=points,
            byte_count=_byte_count(model, evaluation),
            memory_budget=memory_budget,
            seed=seed,
            bootstrap_samples=bootstrap_samples,
            batch=batch,
            on_trial=bar.on_trial,
            progress=bar.on_progress,
        )

    document = {
        "provenance": {
            "model": _model_facts(model),
            "protocol": PROTOCOL.format(length=evaluation.shape[1]),
            "evaluation": _token_facts(evaluation),
            "calibration": _token_facts(calibration) | {"source": source},
            "methods": [_method_facts(curve) for curve in result.curves],
            "seed": seed,
            "bootstrap_samples": bootstrap_samples,
            "versions": {
                "hemostat": _version(),
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "machine": _machine_facts(model),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - started, 3),
        },
        "baseline": _baseline_facts(result),
        "trials": [
            _identity(curve.method) | {"severity": severity, "damage": damage.to_dict()}
            for curve in result.curves
            for severity, damage in zip(curve.severities, curve.damages, strict=True)
        ],
        "thresholds": [_threshold_facts(curve) for curve in result.curves],
    }
    return Report(document, result.curves)


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


def _byte_count(model: _C.Model, evaluation: torch.Tensor) -> int | None:
    """None where the model has no tokenizer whose tokens have bytes; bits per byte are then left out."""
    try:
        return data.byte_count(model, evaluation)
    except ValueError:
        return None


def _identity(spec: str) -> dict[str, Any]:
    parsed = _C.MethodSpec.parse(spec)
    options = {name: int(value) if _is_integer(value) else value for name, value in parsed.options.items()}
    return {"method": parsed.method, "options": options}


def _is_integer(value: Any) -> bool:
    """Options that also take a word, such as group_size, hold their numbers as text."""
    return isinstance(value, str) and value.removeprefix("-").isdecimal()


def _method_facts(curve: _C.SweepCurve) -> dict[str, Any]:
    identity = _identity(curve.method)
    method = next(method for method in _C.methods() if method.name == identity["method"])
    return identity | {
        "label": curve.method,
        "kind": method.kind,
        "needs": sorted(method.needs),
        "axis": curve.axis.to_dict(),
        "seconds_prepare": round(curve.seconds_prepare, 3),
        "seconds": [round(seconds, 3) for seconds in curve.seconds],
    }


def _threshold_facts(curve: _C.SweepCurve) -> dict[str, Any]:
    threshold = _C.find_threshold(curve)
    zones = {str(tolerance): threshold.zone_details(tolerance) for tolerance in TOLERANCES}
    return (
        _identity(curve.method)
        | threshold.to_dict(tolerances=list(TOLERANCES))
        | {
            "zone_interval": {name: list(zone.interval) if zone.interval else None for name, zone in zones.items()},
            "zone_censored": {name: zone.censored for name, zone in zones.items()},
        }
    )


def _baseline_facts(result: _C.ScanResult) -> dict[str, Any]:
    damage = result.baseline.to_dict()
    kept = ("windows", "tokens", "nll", "perplexity", "bits_per_byte", "accuracy", "calibration_error")
    return {name: damage[name] for name in kept} | {
        "entropy": damage["entropy_baseline"],
        "noise_floor": result.noise_floor.to_dict(),
    }


def _model_facts(model: _C.Model) -> dict[str, Any]:
    return {
        "name": Path(model.source).name if model.source else None,
        "source": model.source or None,
        "family": model.config.family,
        "parameters": model.parameters,
        "blocks": len(model.blocks),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "sha256": weights_hash(model),
    }


def weights_hash(model: _C.Model) -> str:
    """SHA-256 over config.json and each tensor's name, dtype, shape and the SHA-256 of all its bytes, in name order."""

    def digest(tensor: torch.Tensor) -> bytes:
        flat = tensor.detach().cpu().contiguous().flatten()
        return hashlib.sha256(flat.view(torch.uint8).numpy()).digest()

    tensors = sorted(model.tensors().items())
    whole = hashlib.sha256(model.config.json.encode())
    with ThreadPoolExecutor() as pool:  # hashlib lets other threads run meanwhile
        for (name, tensor), part in zip(tensors, pool.map(digest, (tensor for _, tensor in tensors)), strict=True):
            whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode() + part)
    return whole.hexdigest()


def _token_facts(tokens: torch.Tensor) -> dict[str, Any]:
    return {
        "windows": tokens.shape[0],
        "length": tokens.shape[1],
        "sha256": hashlib.sha256(tokens.cpu().contiguous().numpy()).hexdigest(),
    }


def _machine_facts(model: _C.Model) -> dict[str, Any]:
    facts = {"system": platform.platform(), "processor": _processor(), "threads": torch.get_num_threads()}
    if model.device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(model.device)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version() -> str:
    return importlib.metadata.version("hemostat")


class _Bar:
    """A tqdm bar over trials; silent where there is no terminal, unless told."""

    def __init__(self, progress: Progress, trials: int):
        self._function = progress if callable(progress) else None
        self._bar = tqdm(total=trials, disable=disabled(progress), unit="trial", dynamic_ncols=True)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def on_trial(self, trial: _C.Trial) -> None:
        self._bar.update()

    def on_progress(self, stage: str, done: int, total: int) -> None:
        if self._function:
            self._function(stage, done, total)
        else:
            self._bar.set_description_str(stage if stage == "trials" else f"{stage} {done}/{total}")
