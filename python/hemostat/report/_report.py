"""What a scan found, and its forms: sentences, a terminal's table, JSON, data frames and one self-contained page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hemostat import _C
from hemostat._columns import aligned, flat
from hemostat._number_text import interval, number, percent, severity_text, signed, size_text, windows_text
from hemostat._whole_file import write_whole
from hemostat.report._comparison import Comparison
from hemostat.report._curve import TOLERANCES, Curve, curves_of
from hemostat.report._document import Document, to_json
from hemostat.report._page import report_page
from hemostat.report._reach import bounds_of
from hemostat.report._surfaces import surface_rows, surface_table, surfaces_of
from hemostat.report._verdict import summary, verdict

if TYPE_CHECKING:
    import pandas


class Report:
    """The result of ``hemostat.scan``.

    Attributes:
        document: all of the following, typed.
        curves: one ``SweepCurve`` a method, in the order asked for; empty where the report was read from a file.
        provenance: what was measured, on what, by which protocol and versions.
        baseline: the unchanged model's perplexity and the noise floor.
        trials: one mapping a trial: method, options, severity, damage, windows (each window's numbers).
        thresholds: one mapping a method: method, options, point, interval, zone (tolerance to the largest severity that
            is shown to be safe), zone_censored, edge (where damage is estimated to reach the tolerance), edge_interval
            and edge_censored.
        localizations: one mapping a method that was localized: what each block, changed alone, costs.
        surfaces: one mapping a pair of methods that was measured together: a grid of damage.
    """

    def __init__(self, document: Mapping[str, Any] | Document, curves: Sequence[_C.SweepCurve] = ()):
        self.document = document if isinstance(document, Document) else Document.from_json(document)
        self.curves = list(curves)
        self._json = self.document.to_json()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Reads what ``to_json`` wrote.

        Args:
            path: the file, or a scan's directory that holds it as report.json.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a report; the sentence says which field of which entry is missing, or is
                not what it has to be.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "report.json"
            if not path.is_file():
                raise FileNotFoundError(f"hemostat.Report.load: {path.parent} has no report.json")
        elif not path.is_file():
            raise FileNotFoundError(f"hemostat.Report.load: there is no {path}")
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ValueError(f"hemostat.Report.load: {path} is not a report.json: it is no JSON") from None
        except ValueError as error:
            raise ValueError(f"hemostat.Report.load: {path} is not a report.json: {error}") from None

    @property
    def provenance(self) -> dict[str, Any]:
        """What was measured, on what, by which protocol and versions."""
        return self._json["provenance"]

    @property
    def baseline(self) -> dict[str, Any]:
        """The unchanged model's perplexity and the noise floor."""
        return self._json["baseline"]

    @property
    def trials(self) -> list[dict[str, Any]]:
        """One mapping a trial: method, options, severity, damage."""
        return self._json["trials"]

    @property
    def thresholds(self) -> list[dict[str, Any]]:
        """One mapping a method: point, interval and zone."""
        return self._json["thresholds"]

    @property
    def localizations(self) -> list[dict[str, Any]]:
        """One mapping a method that was localized: severity, sites, layer_error, cascade_gain; empty where none was."""
        return self._json.get("localizations") or []

    @property
    def surfaces(self) -> list[dict[str, Any]]:
        """One mapping a pair of methods: methods, axes, severities, damage, additivity, zone; empty where none was."""
        return self._json.get("surfaces") or []

    @property
    def name(self) -> str:
        """The model's."""
        return self.document.name

    def __repr__(self) -> str:
        return f"<hemostat.Report of {self.name}: {len(self.trials)} trials>"

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values; what is not finite is None."""
        return json.loads(json.dumps(self._json))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as JSON: ``provenance``, ``baseline``, ``trials``, ``thresholds``, and ``localizations``
        and ``surfaces`` where they were asked for."""
        write_whole(path, json.dumps(self._json, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Writes one page that needs no network: what is safe, what is not, where it bleeds, what to do; then curves,
        layers, tables and provenance."""
        write_whole(path, report_page(self.document))

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
                "severity": trial.severity,
                "unit": curve.axis.unit,
                "distance": curve.distance(trial.severity),
            }
            | flat(trial.damage.to_dict())
            for curve in curves_of(self.document)
            for trial in curve.trials
        ]

    def _zone_rows(self) -> list[dict[str, Any]]:
        rows = []
        for curve in curves_of(self.document):
            for tolerance in TOLERANCES if curve.threshold else ():
                zone = curve.zone(tolerance)
                low, high = sorted(zone.interval) if zone.interval else (None, None)
                reached = {"severity": zone.severity, "censored": zone.censored}
                estimate = {"edge": zone.edge, "edge_low": low, "edge_high": high, "edge_censored": zone.edge_censored}
                rows.append(_identity(curve) | {"tolerance": tolerance} | reached | estimate)
        return rows

    def _layer_rows(self) -> list[dict[str, Any]]:
        return [
            _identity(curve) | {"severity": curve.localization.severity} | flat(to_json(site))
            for curve in curves_of(self.document)
            if curve.localization
            for site in curve.localization.sites
        ]

    def _surface_rows(self) -> list[dict[str, Any]]:
        return [row for view in surfaces_of(self.document) for row in surface_rows(view, flat)]

    def summary(self, tolerance: float = 0.05, *, by: str = "delta_nll") -> str:
        """What is safe, what is not, alone and together, where it bleeds and what to do, in sentences.

        Args:
            tolerance: the largest damage that counts as safe, above 0.
            by: what that is about: ``"delta_nll"`` or ``"kl"``, nats per token; ``"top1_agreement"``: the share of
                predictions that changed.

        Raises:
            ValueError: for a tolerance that is not above 0, or another word.
        """
        return summary(verdict(self.document, tolerance, by))

    def table(self, tolerances: Sequence[float] = TOLERANCES, *, by: str = "delta_nll") -> str:
        """Trials, zones and surfaces for a terminal.

        Args:
            tolerances: at which the zones are told.
            by: what they are about, as in :meth:`summary`.

        Raises:
            ValueError: for a tolerance that is not above 0, or another word.
        """
        rows, zones, edges = [], [], []
        for curve in curves_of(self.document):
            for trial in curve.trials:
                damage = trial.damage
                rows.append(
                    [
                        curve.label if trial is curve.trials[0] else "",
                        severity_text(curve.axis, trial.severity),
                        number(damage.perplexity),
                        signed(damage.delta_nll),
                        interval(bounds_of(damage), signed),
                        number(damage.kl.mean, 3),
                        percent(damage.top1_agreement),
                        number(damage.index, 3),
                        size_text(damage),
                        "within the noise floor" if damage.within_noise_floor else "",
                    ]
                )
            if curve.threshold:
                zones.append([curve.label, *(curve.zone_text(tolerance, by) for tolerance in tolerances)])
                edges.append([curve.label, *(curve.edge_text(tolerance, by) for tolerance in tolerances)])
        head = ["method", "severity", "perplexity", "ΔNLL", "95 % interval", "KL", "top-1", "index", "size", ""]
        limits, name = [str(tolerance) for tolerance in tolerances], {"delta_nll": "ΔNLL", "kl": "KL"}
        what = name.get(by, "share of changed predictions")
        lines = [f"Warning: {warning}" for warning in self.document.provenance.warnings]
        lines += [f"{self.name}: {self._baseline_sentence()}", "", *aligned(head, rows)]
        lines += ["", *aligned([f"largest safe severity at a {what} of", *limits], zones)]
        lines += ["", *aligned([f"estimated to reach a {what} of", *limits], edges)]
        for view in surfaces_of(self.document):
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
        return Comparison(self, other, names)

    def _baseline_sentence(self) -> str:
        evaluation, baseline = self.document.provenance.evaluation, self.document.baseline
        floor = baseline.noise_floor
        text = f"{windows_text(evaluation.windows)} of {evaluation.length} tokens"
        rounding = f"{number(floor.delta_nll, 3)} nats per token (in {floor.against})" if floor else "unknown"
        return f"perplexity {number(baseline.perplexity)} on {text}; noise floor {rounding}"


def _identity(curve: Curve) -> dict[str, Any]:
    options = curve.method.options
    return {"method": curve.method.method, "options": json.dumps(options) if options else ""}
