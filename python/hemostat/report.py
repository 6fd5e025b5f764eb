"""What a scan found, and its forms: a terminal's table, JSON, a data frame and one self-contained HTML page."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

__all__ = ["TOLERANCES", "Report"]

# The ΔNLL tolerances at which zones are reported, nats per token.
TOLERANCES = (0.02, 0.05, 0.1)

# Colours told apart by most people with colour blindness, on white and on black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5519c", "#c98a00", "#3a9bd9", "#7a5cc7", "#8a8a8a")


class Report:
    """The result of ``hemostat.scan``.

    Attributes:
        curves: one ``SweepCurve`` a method, in the order asked for; empty where the report was read from a file.
        provenance: what was measured, on what, by which protocol and versions.
        baseline: the unchanged model's perplexity and the noise floor.
        trials: one mapping a trial: method, options, severity, damage.
        thresholds: one mapping a method: method, options, point, interval, zone (tolerance to the largest safe
            severity), zone_interval and zone_censored.
    """

    def __init__(self, document: Mapping[str, Any], curves: Sequence[Any] = ()):
        self._document = finite(dict(document))
        self.curves = list(curves)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Reads what ``to_json`` wrote.

        Raises:
            ValueError: the file is not a report.
        """
        try:
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if not {"provenance", "baseline", "trials", "thresholds"} <= document.keys():
                raise KeyError
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError):
            raise ValueError(f"hemostat.Report.load: {os.fspath(path)} is not a report.json") from None
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

    def __repr__(self) -> str:
        return f"<hemostat.Report of {self._model_name()}: {len(self.trials)} trials>"

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """The whole report as plain values; what is not finite is None."""
        return json.loads(json.dumps(self._document))

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as JSON: ``provenance``, ``baseline``, ``trials``, ``thresholds``."""
        write_whole(path, json.dumps(self._document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Writes one page that needs no network: curves, zones, trials, provenance."""
        write_whole(path, self._page())

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a trial: method, options, severity, distance, then every number of its damage (``kl_mean`` …)."""
        import pandas

        rows = []
        for trial in self.trials:
            axis = self._method_of(trial)["axis"]
            row = {
                "method": trial["method"],
                "options": json.dumps(trial["options"]) if trial["options"] else "",
                "severity": trial["severity"],
                "unit": axis["unit"],
                "distance": distance(axis, trial["severity"]),
            }
            rows.append(row | _flat(trial["damage"]))
        return pandas.DataFrame(rows)

    def table(self) -> str:
        """Trials and zones for a terminal."""
        rows, last = [], None
        for trial in self.trials:
            damage, method = trial["damage"], self._method_of(trial)
            rows.append(
                [
                    method["label"] if trial_key(trial) != last else "",
                    severity_text(method["axis"], trial["severity"]),
                    number(damage["perplexity"]),
                    signed(damage["delta_nll"]),
                    interval(damage.get("delta_nll_interval"), signed),
                    number(damage["kl"]["mean"], 3),
                    percent(damage["top1_agreement"]),
                    number(damage.get("index"), 3),
                    "within the noise floor" if damage.get("within_noise_floor") else "",
                ]
            )
            last = trial_key(trial)
        head = ["method", "severity", "perplexity", "ΔNLL", "95 % interval", "KL", "top-1", "index", ""]
        zones = [
            [self._method_of(entry)["label"], *(self._zone(entry, tolerance) for tolerance in TOLERANCES)]
            for entry in self.thresholds
        ]
        zone_head = ["largest safe severity at a ΔNLL of", *(str(tolerance) for tolerance in TOLERANCES)]
        lines = [f"{self._model_name()}: {self._baseline_sentence()}", "", *aligned(head, rows)]
        return "\n".join([*lines, "", *aligned(zone_head, zones)])

    def _model_name(self) -> str:
        return self.provenance["model"].get("name") or "a model"

    def _baseline_sentence(self) -> str:
        evaluation, floor = self.provenance["evaluation"], self.baseline.get("noise_floor")
        sentence = (
            f"perplexity {number(self.baseline['perplexity'])} on {evaluation['windows']} windows of "
            f"{evaluation['length']} tokens"
        )
        if floor:
            sentence += f"; noise floor {number(floor['delta_nll'], 3)} nats per token (in {floor['against']})"
        return sentence

    def _method_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return next(method for method in self.provenance["methods"] if trial_key(method) == trial_key(entry))

    def _zone(self, entry: Mapping[str, Any], tolerance: float) -> str:
        severity = entry["zone"][str(tolerance)]
        if severity is None:
            return "–"
        axis = self._method_of(entry)["axis"]
        sign = ""
        if entry.get("zone_censored", {}).get(str(tolerance)):
            sign = "≤ " if axis["farthest"] < axis["neutral"] else "≥ "
        return sign + severity_text(axis, severity)

    def _page(self) -> str:
        from plotly.offline import get_plotlyjs

        provenance, evaluation = self.provenance, self.provenance["evaluation"]
        floor = self.baseline.get("noise_floor")
        facts = [
            ("perplexity, unchanged", number(self.baseline["perplexity"])),
            ("targets evaluated", f"{evaluation['windows'] * (evaluation['length'] - 1):,}"),
            ("methods", str(len(provenance["methods"]))),
            ("trials", str(len(self.trials))),
        ]
        if floor:
            facts.insert(1, (f"noise floor, nats ({floor['against']})", number(floor["delta_nll"], 3)))
        fields = {
            "title": f"hemostat: {escape(self._model_name())}",
            "heading": f"How {escape(self._model_name())} bleeds",
            "subtitle": f"{escape(provenance['protocol'])} Measured on {escape(provenance['date'][:10])}.",
            "facts": "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts),
            "zones": self._zones_html(),
            "trials": self._trials_html(),
            "provenance": "".join(
                f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in self._provenance_lines()
            ),
            "version": escape(provenance["versions"]["hemostat"]),
            "palette": json.dumps(PALETTE),
            # "</" would end the script element
            "document": json.dumps(self._document, ensure_ascii=False, allow_nan=False).replace("</", "<\\/"),
            "plotly": get_plotlyjs(),
        }
        page = files("hemostat").joinpath("report_page.html").read_text(encoding="utf-8")
        parts = page.split("{{")
        rest = (part.split("}}", 1) for part in parts[1:])
        return parts[0] + "".join(fields[name] + after for name, after in rest)

    def _zones_html(self) -> str:
        head = ["method", "axis", "measured", *(f"ΔNLL ≤ {tolerance}" for tolerance in TOLERANCES), "transition point"]
        rows = []
        for entry in self.thresholds:
            method = self._method_of(entry)
            measured = [trial["severity"] for trial in self.trials if trial_key(trial) == trial_key(entry)]
            cells = [
                f'<td>{self._swatch(method)}</td><td class="text">{escape(axis_name(method["axis"]))}</td>',
                f"<td>{_range(measured)}</td>",
            ]
            for tolerance in TOLERANCES:
                bounds = entry.get("zone_interval", {}).get(str(tolerance))
                small = f"<small>{interval(bounds, lambda value: number(value, 3))}</small>" if bounds else ""
                cells.append(f"<td>{escape(self._zone(entry, tolerance))}{small}</td>")
            point = number(entry["point"], 3) if entry["point"] is not None else "not fitted"
            rows.append(f"<tr>{''.join(cells)}<td>{point}</td></tr>")
        return _html_table(head, rows, text_columns=2)

    def _trials_html(self) -> str:
        head = ["method", "severity", "perplexity", "ΔNLL", "95 % interval", "KL mean", "KL p99", "top-1", "index"]
        rows, last = [], None
        for trial in self.trials:
            damage, method = trial["damage"], self._method_of(trial)
            classes = ["first"] if trial_key(trial) != last else []
            if damage.get("within_noise_floor"):
                classes.append("quiet")
            values = [
                severity_text(method["axis"], trial["severity"]),
                number(damage["perplexity"]),
                signed(damage["delta_nll"]),
                interval(damage.get("delta_nll_interval"), signed),
                number(damage["kl"]["mean"], 3),
                number(damage["kl"].get("p99"), 3),
                percent(damage["top1_agreement"]),
                number(damage.get("index"), 3),
            ]
            cells = "".join(f"<td>{escape(value)}</td>" for value in values)
            name = self._swatch(method) if "first" in classes else ""
            rows.append(f'<tr class="{" ".join(classes)}"><td>{name}</td>{cells}</tr>')
            last = trial_key(trial)
        return _html_table(head, rows)

    def _swatch(self, method: Mapping[str, Any]) -> str:
        color = PALETTE[self.provenance["methods"].index(method) % len(PALETTE)]
        return f'<span class="swatch" style="background:{color}"></span>{escape(method["label"])}'

    def _provenance_lines(self) -> list[tuple[str, str]]:
        lines = []
        for name, value in self.provenance.items():
            if name == "methods":
                value = ", ".join(method["label"] for method in value)
            elif isinstance(value, Mapping):
                value = ", ".join(
                    f"{key.replace('_', ' ')} {_plain(item)}" for key, item in value.items() if item is not None
                )
            lines.append((name.replace("_", " "), _plain(value)))
        return lines


def distance(axis: Mapping[str, Any], severity: float) -> float:
    """0 at the axis's neutral severity, 1 at its farthest."""
    return abs(severity - axis["neutral"]) / abs(axis["farthest"] - axis["neutral"])


def trial_key(entry: Mapping[str, Any]) -> tuple[str, str]:
    """What tells two curves apart: method and options."""
    return entry["method"], json.dumps(entry["options"], sort_keys=True)


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


def number(value: float | None, digits: int = 4) -> str:
    """Significant digits, without exponent up to a million; a dash for None."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not 1e-5 <= abs(value) < 1e6:
        return f"{value:.{digits - 2}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}" if abs(value) < 10 else f"{value:+.2f}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(bounds: Sequence[float | None] | Mapping[str, float | None] | None, form: Any) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f"{form(low)} … {form(high)}"


def severity_text(axis: Mapping[str, Any], severity: float) -> str:
    """Three digits, and the unit where it is short: fractions have none, and long ones stand beside the axis's name."""
    unit = axis["unit"]
    return number(severity, 3) + (f" {unit}" if unit and " " not in unit and unit != "fraction" else "")


def axis_name(axis: Mapping[str, Any]) -> str:
    unit = f", {axis['unit']}" if axis["unit"] and axis["unit"] != axis["name"] else ""
    return f"{axis['name'].replace('_', ' ')}{unit}"


def _range(values: Sequence[float]) -> str:
    return f"{number(values[0], 3)} … {number(values[-1], 3)}" if values else "–"


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


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


def _html_table(head: Sequence[str], rows: Sequence[str], text_columns: int = 1) -> str:
    cells = (f"<th{' class=text' if i < text_columns else ''}>{escape(name)}</th>" for i, name in enumerate(head))
    return f"<table><thead><tr>{''.join(cells)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of equal columns under a rule: the first ``left`` of them to the left, the others to the right."""
    everything = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(f"{cell:<{w}}" if i < left else f"{cell:>{w}}" for i, (cell, w) in enumerate(cells)).rstrip()

    return [line(head), "─" * (sum(widths) + 2 * (len(widths) - 1)), *map(line, rows)]
