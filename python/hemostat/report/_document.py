"""A report's document, typed: a scan makes it, ``report.json`` holds it, and everything that a report says reads it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hemostat import _C

Bounds = tuple[float | None, float | None]
Part = TypeVar("Part")


def _sparse(default: Any) -> Any:
    """A field that JSON leaves out where it is empty."""
    return dataclasses.field(default=default, metadata={"sparse": True})


def _more() -> Any:
    """What a file says beyond the fields, kept as it is."""
    return dataclasses.field(default_factory=dict, repr=False)


def curve_key(method: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """What tells two curves apart: method and options."""
    return method, json.dumps(options, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method with its options, as a run measured it."""

    method: str
    options: Mapping[str, Any]
    label: str
    kind: str | None  # what it changes; None: a report of an earlier version, of a method that is not registered here
    needs: tuple[str, ...] | None  # statistics; None likewise
    axis: _C.Axis
    source: str | None = _sparse(None)  # SHA-256 of the source of a method of one's own
    more: Mapping[str, Any] = _more()

    @property
    def key(self) -> tuple[str, str]:
        return curve_key(self.method, self.options)

    @staticmethod
    def older(given: dict[str, Any]) -> None:
        """Files of earlier versions say neither what the method changes nor what it needs: the registry does."""
        for name, of in (("kind", _registered_kind), ("needs", _registered_needs)):
            if name not in given:
                given[name] = of(given)


def _registered_kind(given: Mapping[str, Any]) -> str | None:
    try:
        return _C.find_method(given["method"]).kind
    except (KeyError, TypeError, ValueError):
        return None


def _registered_needs(given: Mapping[str, Any]) -> list[str] | None:
    try:
        return sorted(_C.needs_of([given["label"]]))
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Which model was measured."""

    name: str | None
    source: str | None
    dtype: str | None = None
    sha256: str | None = None
    blocks: int | None = None
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """On what: where the text came from, and how it was cut."""

    windows: int
    length: int
    sha256: str
    text: str | None = _sparse(None)
    source: str | None = _sparse(None)
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Of the programs that decide on the numbers."""

    hemostat: str
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a command line was given, so that the commands which follow from a report can be given it too."""

    checkpoint: str
    text: str | None = None
    calibration: str | None = None
    windows: int | None = None
    length: int | None = None
    dtype: str | None = None
    plugin: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Propagation:
    """Methods on linears were calibrated block by block."""

    correct: float
    correct_damp: float | None = _sparse(None)  # where correct is not 0


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What was measured, on what, by which protocol and versions."""

    warnings: tuple[str, ...]  # what to know before reading any number
    model: ModelFacts
    protocol: str
    evaluation: Tokens
    calibration: Tokens
    methods: tuple[MethodFacts, ...]
    versions: Versions
    date: str
    arguments: Arguments | None = _sparse(None)
    propagation: Propagation | None = _sparse(None)
    trials_missing: int = _sparse(0)
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The unchanged model."""

    windows: int
    perplexity: float | None
    index: float | None  # 0; None: it is itself no better than the unigram
    noise_floor: _C.NoiseFloor | None  # None: unknown
    window_nll: tuple[float | None, ...] = _sparse(())  # of each window, nats per token
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One method at one severity."""

    method: str
    options: Mapping[str, Any]
    severity: float
    damage: _C.Damage

    @property
    def key(self) -> tuple[str, str]:
        return curve_key(self.method, self.options)

    def to_json(self) -> dict[str, Any]:
        entry = {"method": self.method, "options": dict(self.options), "severity": self.severity}
        entry["damage"] = self.damage.to_dict()
        if self.damage.window_nll:
            fields = self.damage.to_dict(windows=True)
            entry["windows"] = {
                name.removeprefix("window_"): fields[name]
                for name in fields
                if name.startswith("window_") and name != "window_nll_baseline"
            }
        return entry


@dataclass(frozen=True, kw_only=True)
class ThresholdFacts:
    """How far one can go with a method, by tolerance."""

    method: str
    options: Mapping[str, Any]
    point: float | None
    interval: Bounds | None
    zone: Mapping[str, float | None]
    zone_censored: Mapping[str, bool]
    edge: Mapping[str, float | None]
    edge_interval: Mapping[str, Bounds | None]
    edge_censored: Mapping[str, bool]
    more: Mapping[str, Any] = _more()

    @property
    def key(self) -> tuple[str, str]:
        return curve_key(self.method, self.options)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A part of the model, damaged alone."""

    name: str
    block: int | None
    linear: str | None
    delta_nll: float | None
    delta_nll_interval: Bounds | None
    kl: float | None
    error: float | None
    cascade_gain: float | None
    noise_delta_nll: float | None
    noise_kl: float | None
    more: Mapping[str, Any] = _more()


@dataclass(frozen=True, kw_only=True)
class LocalizationFacts:
    """Where a method bleeds; without windows: as predicted."""

    method: str
    options: Mapping[str, Any]
    severity: float
    windows: int | None
    delta_nll: float | None
    kl: float | None
    additivity: float | None
    additivity_kl: float | None
    sites: tuple[Site, ...]
    layer_error: tuple[float | None, ...]
    cascade_gain: tuple[float | None, ...]
    more: Mapping[str, Any] = _more()

    @property
    def key(self) -> tuple[str, str]:
        return curve_key(self.method, self.options)


@dataclass(frozen=True, kw_only=True)
class SurfaceFacts:
    """Two methods in order and the grid of both severities."""

    methods: tuple[MethodFacts, MethodFacts]
    surface: _C.Surface

    def to_json(self, tolerances: Sequence[float]) -> dict[str, Any]:
        zones = {str(tolerance): self.surface.zone_details(tolerance) for tolerance in tolerances}
        methods = [to_json(method) for method in self.methods]
        return finite(
            {
                "axes": [method.pop("axis") for method in methods],
                "methods": methods,
                "severities": [list(severities) for severities in self.surface.severities],
                "damage": self.surface.to_dict()["damages"],
                "additivity": self.surface.additivity,
                "zone": {name: [zone.severity for zone in row] for name, row in zones.items()},
                "zone_censored": {name: [zone.censored for zone in row] for name, row in zones.items()},
            }
        )


# The ΔNLL tolerances at which zones are reported, nats per token.
TOLERANCES = (0.02, 0.05, 0.1)


@dataclass(frozen=True, kw_only=True)
class Document:
    """All that a report says."""

    provenance: Provenance
    baseline: Baseline
    trials: tuple[Trial, ...]
    thresholds: tuple[ThresholdFacts, ...]
    localizations: tuple[LocalizationFacts, ...] = ()
    surfaces: tuple[SurfaceFacts, ...] = ()

    @property
    def name(self) -> str:
        """The model's."""
        return self.provenance.model.name or "a model"

    def to_json(self, *, windows: bool = True) -> dict[str, Any]:
        """What ``report.json`` holds; None stands for what is not finite.

        Args:
            windows: Whether each window's numbers are among it.
        """
        result = {
            "provenance": to_json(self.provenance),
            "baseline": to_json(self.baseline),
            "trials": [trial.to_json() for trial in self.trials],
            "thresholds": [to_json(threshold) for threshold in self.thresholds],
        }
        if self.localizations:
            result["localizations"] = [to_json(localization) for localization in self.localizations]
        if self.surfaces:
            result["surfaces"] = [surface.to_json(TOLERANCES) for surface in self.surfaces]
        if not windows:
            result["baseline"].pop("window_nll", None)
            for trial in result["trials"]:
                trial.pop("windows", None)
        return result

    @classmethod
    def from_json(cls, given: Any) -> Document:
        """The inverse of :meth:`to_json`; reads the files of earlier versions too.

        Raises:
            ValueError: A field is missing or of another type; the sentence says which, of which entry.
        """
        given = _object(given, "the report")
        for name in ("provenance", "baseline", "trials", "thresholds"):
            if name not in given:
                raise ValueError(f"the report has no {name}")
        baseline = _baseline(given["baseline"], given["trials"])
        provenance = _provenance(given["provenance"], baseline)
        entries = _list(given["trials"], "trials")
        trials = tuple(_trial(entry, f"trials[{i}]", baseline) for i, entry in enumerate(entries))
        thresholds = tuple(
            _threshold(entry, f"thresholds[{i}]", provenance, trials, baseline)
            for i, entry in enumerate(_list(given["thresholds"], "thresholds"))
        )
        localizations = _list(given.get("localizations") or [], "localizations")
        surfaces = _list(given.get("surfaces") or [], "surfaces")
        return cls(
            provenance=provenance,
            baseline=baseline,
            trials=trials,
            thresholds=thresholds,
            localizations=tuple(
                read(LocalizationFacts, entry, f"localizations[{i}]") for i, entry in enumerate(localizations)
            ),
            surfaces=tuple(_surface(entry, f"surfaces[{i}]", baseline) for i, entry in enumerate(surfaces)),
        )


def baseline_warnings(index: float | None) -> list[str]:
    """What an unchanged model's own state takes from every number beside it."""
    if index is not None:
        return []
    return [
        "The unchanged model is no better on this text than one that only counts words: how much it bleeds says "
        "little, and no severity is called safe."
    ]


def threshold_facts(method: MethodFacts, threshold: _C.Threshold) -> ThresholdFacts:
    """What a document says of a curve's threshold."""
    zones = {str(tolerance): threshold.zone_details(tolerance) for tolerance in TOLERANCES}

    def of(part: Callable[[_C.Zone], Any]) -> dict[str, Any]:
        return {name: part(zone) for name, zone in zones.items()}

    return ThresholdFacts(
        method=method.method,
        options=method.options,
        point=threshold.point,
        interval=threshold.interval,
        zone=of(lambda zone: zone.severity),
        zone_censored=of(lambda zone: zone.censored),
        edge=of(lambda zone: zone.edge),
        edge_interval=of(lambda zone: zone.interval),
        edge_censored=of(lambda zone: zone.edge_censored),
    )


def sweep_curve(method: MethodFacts, trials: Sequence[Trial], baseline: Baseline) -> _C.SweepCurve:
    """A method's trials, from mild to severe."""
    ordered = sorted(trials, key=lambda trial: method.axis.distance(trial.severity))
    severities, damages = [trial.severity for trial in ordered], [trial.damage for trial in ordered]
    return _C.SweepCurve(method.label, method.axis, severities, damages, baseline.noise_floor)


# --- JSON


def finite(value: Any) -> Any:
    """The same value with None for every float that is not finite, since JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def to_json(part: Any) -> Any:
    """A part of the document as plain values."""
    if dataclasses.is_dataclass(part):
        result = {}
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if field.name != "more" and (value or not field.metadata.get("sparse")):
                result[field.name] = to_json(value)
        return result | finite(getattr(part, "more", {}))
    if isinstance(part, _C.Axis | _C.NoiseFloor):
        return finite(part.to_dict())
    if isinstance(part, Mapping):
        return {key: to_json(item) for key, item in part.items()}
    if isinstance(part, list | tuple):
        return [to_json(item) for item in part]
    return finite(part)


def read(kind: type[Part], given: Any, where: str) -> Part:
    """A part of the document from plain values.

    Raises:
        ValueError: A field is missing or of another type.
    """
    given = _object(given, where)
    if hasattr(kind, "older"):
        kind.older(given)
    values = {}
    for field in dataclasses.fields(kind):
        if field.name == "more":
            continue
        if field.name in given:
            values[field.name] = _value(_hints(kind)[field.name], given.pop(field.name), f"{where}.{field.name}")
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{where} has no {field.name}")
    if "more" in _hints(kind):
        values["more"] = given
    return kind(**values)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _object(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {_short(given)}, but must be an object")
    return dict(given)


def _list(given: Any, where: str) -> list[Any]:
    if not isinstance(given, list | tuple):
        raise ValueError(f"{where} is {_short(given)}, but must be a list")
    return list(given)


def _short(given: Any) -> str:
    text = json.dumps(given, ensure_ascii=False, default=str)
    return text if len(text) < 40 else f"{text[:39]}…"


NAMES = {float: "a number", int: "an integer", str: "a text", bool: "true or false"}


def _value(kind: Any, given: Any, where: str) -> Any:
    """A value of a field's type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return given
    if origin in (types.UnionType, typing.Union):
        return None if given is None else _value(next(part for part in parts if part is not type(None)), given, where)
    if origin is tuple:
        entries = _list(given, where)
        kinds = [parts[0]] * len(entries) if parts[-1] is Ellipsis else list(parts)
        if len(entries) != len(kinds):
            raise ValueError(f"{where} has {len(entries)} entries, but must have {len(kinds)}")
        return tuple(
            _value(part, entry, f"{where}[{i}]") for i, (part, entry) in enumerate(zip(kinds, entries, strict=True))
        )
    if origin in (dict, Mapping):
        return {name: _value(parts[1], item, f"{where}.{name}") for name, item in _object(given, where).items()}
    if dataclasses.is_dataclass(kind):
        return read(kind, given, where)
    if kind in (_C.Axis, _C.NoiseFloor):
        fields = _object(given, where)
        if kind is _C.NoiseFloor:
            fields = {name: math.nan if value is None else value for name, value in fields.items()}
        try:
            return kind(**fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {str(error).splitlines()[0]}") from None
    fits = isinstance(given, int | float) if kind is float else isinstance(given, kind)
    if not fits or (isinstance(given, bool) and kind is not bool):
        raise ValueError(f"{where} is {_short(given)}, but must be {NAMES[kind]}")
    return float(given) if kind is float else given


def _baseline(given: Any, trials: Any) -> Baseline:
    given = _object(given, "baseline")
    if "index" not in given:  # of an earlier version: every trial's says the same
        indices = [trial["damage"].get("index") for trial in trials if isinstance(trial, Mapping) and "damage" in trial]
        given["index"] = 0.0 if not indices or any(index is not None for index in indices) else None
    return read(Baseline, given, "baseline")


def _provenance(given: Any, baseline: Baseline) -> Provenance:
    return read(
        Provenance, {"warnings": baseline_warnings(baseline.index)} | _object(given, "provenance"), "provenance"
    )


def _trial(given: Any, where: str, baseline: Baseline) -> Trial:
    given = _object(given, where)
    for name in ("method", "options", "severity", "damage"):
        if name not in given:
            raise ValueError(f"{where} has no {name}")
    severity = _value(float, given["severity"], f"{where}.severity")
    windows = given.get("windows")
    return Trial(
        method=_value(str, given["method"], f"{where}.method"),
        options=_object(given["options"], f"{where}.options"),
        severity=severity,
        damage=_damage(given["damage"], f"{where}.damage", windows, baseline),
    )


def _damage(given: Any, where: str, windows: Any = None, baseline: Baseline | None = None) -> _C.Damage:
    fields = _object(given, where)
    if windows is not None and baseline is not None and baseline.window_nll:
        fields |= {f"window_{name}": values for name, values in _object(windows, f"{where}: windows").items()}
        fields["window_nll_baseline"] = list(baseline.window_nll)
    try:
        return _C.Damage.from_dict(fields)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0].removeprefix('hemostat.Damage.from_dict: ')}") from None


def _threshold(
    given: Any, where: str, provenance: Provenance, trials: Sequence[Trial], baseline: Baseline
) -> ThresholdFacts:
    given = _object(given, where)
    if "edge" not in given:  # of an earlier version, whose zone was the estimate
        for name, before in (("edge", "zone"), ("edge_interval", "zone_interval"), ("edge_censored", "zone_censored")):
            given[name] = given.pop(before, None)
        key = curve_key(str(given.get("method")), given.get("options") or {})
        method = next((method for method in provenance.methods if method.key == key), None)
        own = [trial for trial in trials if trial.key == key]
        if method is None or not own:
            names = _object(given["edge"], f"{where}.zone")
            given |= {"zone": dict.fromkeys(names), "zone_censored": dict.fromkeys(names, False)}
        else:
            found = threshold_facts(method, _C.find_threshold(sweep_curve(method, own, baseline)))
            given |= {"zone": found.zone, "zone_censored": found.zone_censored}
    return read(ThresholdFacts, given, where)


def _surface(given: Any, where: str, baseline: Baseline) -> SurfaceFacts:
    given = _object(given, where)
    for name in ("methods", "axes", "severities", "damage"):
        if name not in given:
            raise ValueError(f"{where} has no {name}")
    methods, axes = _list(given["methods"], f"{where}.methods"), _list(given["axes"], f"{where}.axes")
    if len(methods) != 2 or len(axes) != 2:
        raise ValueError(f"{where} has {len(methods)} methods and {len(axes)} axes, but must have two of each")
    facts = tuple(
        read(MethodFacts, _object(method, f"{where}.methods[{i}]") | {"axis": axis}, f"{where}.methods[{i}]")
        for i, (method, axis) in enumerate(zip(methods, axes, strict=True))
    )
    severities = _value(tuple[tuple[float, ...], ...], given["severities"], f"{where}.severities")
    damages = [
        [_damage(damage, f"{where}.damage[{i}][{j}]") for j, damage in enumerate(_list(row, f"{where}.damage[{i}]"))]
        for i, row in enumerate(_list(given["damage"], f"{where}.damage"))
    ]
    try:
        labels, axes = [method.label for method in facts], [method.axis for method in facts]
        surface = _C.Surface(labels, axes, severities, damages, baseline.noise_floor)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {str(error).splitlines()[0]}") from None
    return SurfaceFacts(methods=facts, surface=surface)
