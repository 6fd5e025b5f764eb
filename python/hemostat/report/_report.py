"""What a scan found, and its forms: sentences, a terminal's table, JSON, data frames and one self-contained page."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hemostat.report._curve import TOLERANCES, Curve, curves_of
from hemostat.report._surfaces import surface_rows, surface_table, surfaces_of
from hemostat.report._text import aligned, interval, number, percent, severity_text, signed
from hemostat.report._verdict import summary, verdict

if TYPE_CHECKING:
    import pandas

    from hemostat.report._comparison import Comparison


class Report:
    """The result of ``hemostat.scan``.

    Attributes:
        curves: one ``SweepCurve`` a method, in the order asked for; empty where the report was read from a file.
        provenance: what was measured, on what, by which protocol and versions.
        baseline: the unchanged model's perplexity and the noise floor.
        trials: one mapping a trial: method, options, severity, damage.
        thresholds: one mapping a method: method, options, point, interval, zone (tolerance to the largest safe
            severity), zone_interval and zone_censored.
        localizations: one mapping a method that was localized: what each block, changed alone, costs.
        surfaces: one mapping a pair of methods that was measured together: a grid of damage.
    """

    def __init__(self, document: Mapping[str, Any], curves: Sequence[Any] = ()):
        self._document = finite(dict(document))
        self.curves = list(curves)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Reads what ``to_json`` wrote.

        Args:
            path: the file, or a scan's directory that holds it as report.json.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a report.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "report.json"
            if not path.is_file():
                raise FileNotFoundError(f"hemostat.Report.load: {path.parent} has no report.json")
        elif not path.is_file():
            raise FileNotFoundError(f"hemostat.Report.load: there is no {path}")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if not {"provenance", "baseline", "trials", "thresholds"} <= document.keys():
                raise KeyError
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError):
            raise ValueError(f"hemostat.Report.load: {path} is not a report.json") from None
        return cls(document)

    @property
    def provenance(self) -> dict[str, Any]:
        """What was measured, on what, by which protocol and versions."""
        return self._document["provenance"]

    @property
    def baseline(self) -> dict[str, Any]:
        """The unchanged model's perplexity and the noise floor."""
        return self._document["baseline"]

    @property
    def trials(self) -> list[dict[str, Any]]:
        """One mapping a trial: method, options, severity, damage."""
        return self._document["trials"]

    @property
    def thresholds(self) -> list[dict[str, Any]]:
        """One mapping a method: point, interval and zone."""
        return self._document["thresholds"]

    @property
    def localizations(self) -> list[dict[str, Any]]:
        """One mapping a method that was localized: severity, sites, layer_error, cascade_gain; empty where none was."""
        return self._document.get("localizations") or []

    @property
    def surfaces(self) -> list[dict[str, Any]]:
        """One mapping a pair of methods: methods, axes, severities, damage, additivity, zone; empty where none was."""
        return self._document.get("surfaces") or []

    @property
    def name(self) -> str:
        """The model's."""
        return self.provenance["model"].get("name") or "a model"

    def __repr__(self) -> str:
        return f"<hemostat.Report of {self.name}: {len(self.trials)} trials>"

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values; what is not finite is None."""
        return json.loads(json.dumps(self._document))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as JSON: ``provenance``, ``baseline``, ``trials``, ``thresholds``, and ``localizations``
        and ``surfaces`` where they were asked for."""
        write_whole(path, json.dumps(self._document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Writes one page that needs no network: what is safe, what is not, where it bleeds, what to do; then curves,
        layers, tables and provenance."""
        from hemostat.report._page import report_page

        write_whole(path, report_page(self._document, self.name))

    def to_dataframe(self, part: Literal["trials", "zones", "layers", "surfaces"] = "trials") -> pandas.DataFrame:
        """One part of the report as a table.

        Args:
            part: ``"trials"``: one row a trial, with method, options, severity, distance, then every number of its
                damage (``kl_mean`` …, ``generation_first_divergence`` …). ``"zones"``: one row a method and tolerance.
                ``"layers"``: one row a place that was changed alone. ``"surfaces"``: one row a point of two methods
                together.

        Raises:
            ValueError: for another part.
        """
        import pandas

        rows_of = {
            "trials": self._trial_rows,
            "zones": self._zone_rows,
            "layers": self._layer_rows,
            "surfaces": self._surface_rows,
        }
        if part not in rows_of:
            raise ValueError(f"hemostat.Report.to_dataframe: part is {part!r}, but takes {', '.join(rows_of)}")
        return pandas.DataFrame(rows_of[part]())

    def _trial_rows(self) -> list[dict[str, Any]]:
        return [
            _identity(curve)
            | {
                "severity": trial["severity"],
                "unit": curve.axis["unit"],
                "distance": curve.distance(trial["severity"]),
            }
            | _flat(trial["damage"])
            for curve in curves_of(self._document)
            for trial in curve.trials
        ]

    def _zone_rows(self) -> list[dict[str, Any]]:
        rows = []
        for curve in curves_of(self._document):
            for tolerance in TOLERANCES if curve.threshold else ():
                edge = curve.edge(tolerance)
                low, high = sorted(edge.interval) if edge.interval else (None, None)
                zone = {"severity": edge.severity, "severity_low": low, "severity_high": high}
                rows.append(_identity(curve) | {"tolerance": tolerance} | zone | {"censored": edge.censored})
        return rows

    def _layer_rows(self) -> list[dict[str, Any]]:
        return [
            _identity(curve) | {"severity": curve.localization["severity"]} | _flat(site)
            for curve in curves_of(self._document)
            if curve.localization
            for site in curve.localization["sites"]
        ]

    def _surface_rows(self) -> list[dict[str, Any]]:
        return [row for view in surfaces_of(self._document) for row in surface_rows(view, _flat)]

    def summary(self, tolerance: float = 0.05) -> str:
        """What is safe, what is not, alone and together, where it bleeds and what to do, in sentences.

        Args:
            tolerance: the largest loss that counts as safe, nats per token: 0.02, 0.05 or 0.1.

        Raises:
            ValueError: for another tolerance.
        """
        if tolerance not in TOLERANCES:
            raise ValueError(
                f"hemostat.Report.summary: tolerance is {tolerance}, but takes {', '.join(map(str, TOLERANCES))}"
            )
        return summary(verdict(self._document, tolerance))

    def table(self) -> str:
        """Trials, zones and surfaces for a terminal."""
        rows, zones = [], []
        for curve in curves_of(self._document):
            for trial in curve.trials:
                damage = trial["damage"]
                rows.append(
                    [
                        curve.label if trial is curve.trials[0] else "",
                        severity_text(curve.axis, trial["severity"]),
                        number(damage["perplexity"]),
                        signed(damage["delta_nll"]),
                        interval(damage.get("delta_nll_interval"), signed),
                        number(damage["kl"]["mean"], 3),
                        percent(damage["top1_agreement"]),
                        number(damage.get("index"), 3),
                        "within the noise floor" if damage.get("within_noise_floor") else "",
                    ]
                )
            if curve.threshold:
                zones.append([curve.label, *(curve.zone_text(tolerance) for tolerance in TOLERANCES)])
        head = ["method", "severity", "perplexity", "ΔNLL", "95 % interval", "KL", "top-1", "index", ""]
        zone_head = ["largest safe severity at a ΔNLL of", *(str(tolerance) for tolerance in TOLERANCES)]
        lines = [f"{self.name}: {self._baseline_sentence()}", "", *aligned(head, rows)]
        lines += ["", *aligned(zone_head, zones)]
        for view in surfaces_of(self._document):
            lines += ["", surface_table(view)]
        return "\n".join(lines)

    def compare(self, other: Report, names: Sequence[str] = ("this run", "the other")) -> Comparison:
        """This run beside another one: the same methods at the same severities, and where the zones moved.

        Args:
            other: the run to compare with, which differences are taken from.
            names: what to call the two.

        Returns:
            Comparison: ``.warnings``, ``.table()``, ``.to_dataframe()``, ``.to_html(path)``.
        """
        from hemostat.report._comparison import Comparison

        return Comparison(self, other, names)

    def _baseline_sentence(self) -> str:
        evaluation, floor = self.provenance["evaluation"], self.baseline.get("noise_floor")
        sentence = (
            f"perplexity {number(self.baseline['perplexity'])} on {evaluation['windows']} windows of "
            f"{evaluation['length']} tokens"
        )
        if floor:
            sentence += f"; noise floor {number(floor['delta_nll'], 3)} nats per token (in {floor['against']})"
        return sentence


def finite(value: Any) -> Any:
    """The same value with None for every float that is not finite, since JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file that appears whole or not at all.

    Raises:
        FileNotFoundError: its directory does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"hemostat: there is no directory {path.parent} for {path.name}")
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(unfinished, 0o666 & ~umask)
        os.replace(unfinished, path)
    except BaseException:
        os.unlink(unfinished)
        raise


def _identity(curve: Curve) -> dict[str, Any]:
    options = curve.method["options"]
    return {"method": curve.method["method"], "options": json.dumps(options) if options else ""}


def _flat(damage: Mapping[str, Any]) -> dict[str, Any]:
    """kl.mean becomes kl_mean, an interval two columns; lists by window are left out."""
    row: dict[str, Any] = {}
    for name, value in damage.items():
        if isinstance(value, Mapping):
            row |= {f"{name}_{inner}": item for inner, item in _flat(value).items()}
        elif name.endswith("_interval"):
            row[f"{name[: -len('_interval')]}_low"], row[f"{name[: -len('_interval')]}_high"] = value or (None, None)
        elif not isinstance(value, list):
            row[name] = value
    return row
