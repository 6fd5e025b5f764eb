"""Two runs side by side, and the forms of that: a terminal's table, a data frame and one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hemostat._columns import aligned
from hemostat._number_text import interval, severity_text, signed
from hemostat._whole_file import write_whole
from hemostat.report._comparison_page import comparison_page
from hemostat.report._curve import TOLERANCES
from hemostat.report._differences import Differences
from hemostat.report._document import Document, finite

if TYPE_CHECKING:
    import pandas


class Reported(Protocol):
    """What a comparison asks of a report."""

    document: Document


class Comparison(Differences):
    """Two reports side by side. Every difference is the first minus the second; negative: the first bleeds less.

    Attributes:
        report: the run in question.
        other: the run that it is compared with.
        names: what the two are called.
        warnings: sentences on what makes their numbers hard to compare; empty where nothing does.
        paired: whether differences are taken window by window.
    """

    def __init__(self, report: Reported, other: Reported, names: Sequence[str] = ("this run", "the other")):
        super().__init__((report.document, other.document), names)
        self.report, self.other = report, other

    def __repr__(self) -> str:
        return f"<hemostat.Comparison of {self.names[0]} with {self.names[1]}: {len(self._rows())} trials in both>"

    def __str__(self) -> str:
        return self.table()

    def to_dict(self) -> dict[str, Any]:
        """Warnings, trials and zones as plain values."""
        return {
            "names": list(self.names),
            "warnings": list(self.warnings),
            "paired": self.paired,
            "trials": self._rows(),
            "zones": self._zones(),
            "only": {name: [curve.label for curve in only] for name, only in zip(self.names, self.only, strict=True)},
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a severity that both runs measured: ΔNLL in both, the difference, and its 95 % interval."""
        import pandas

        return pandas.DataFrame(self._rows())

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Writes one page that needs no network: what changed, both runs' curves overlaid, and the tables."""
        write_whole(path, comparison_page(self))

    def table(self) -> str:
        """Warnings, trials and zones for a terminal."""
        rows, zones = [], []
        for curve, other, pairs in self.curves:
            for pair in pairs:
                rows.append(
                    [
                        curve.label if pair is pairs[0] else "",
                        severity_text(curve.axis, pair.severity),
                        signed(pair.damage.delta_nll),
                        signed(pair.other.delta_nll),
                        signed(pair.difference),
                        interval(pair.bounds, signed),
                        "less" if pair.apart and pair.difference < 0 else "more" if pair.apart else "",
                    ]
                )
            for tolerance in TOLERANCES:
                zones.append(
                    [
                        curve.label if tolerance == TOLERANCES[0] else "",
                        str(tolerance),
                        curve.zone_text(tolerance),
                        other.zone_text(tolerance),
                    ]
                )
        head = ["method", "severity", *(f"ΔNLL, {name}" for name in self.names), "difference", "95 % interval", ""]
        lines = [f"Warning: {warning}" for warning in self.warnings]
        lines += [self.headline(), self.how, "", *aligned(head, rows), ""]
        return "\n".join([*lines, *aligned(["robust zone", "ΔNLL", *self.names], zones)])

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "method": curve.method.method,
                "options": dict(curve.method.options),
                "label": curve.label,
                "severity": pair.severity,
                "delta_nll": finite(pair.damage.delta_nll),
                "delta_nll_other": finite(pair.other.delta_nll),
                "difference": pair.difference,
                "difference_low": pair.bounds[0] if pair.bounds else None,
                "difference_high": pair.bounds[1] if pair.bounds else None,
                "kl_mean": finite(pair.damage.kl.mean),
                "kl_mean_other": finite(pair.other.kl.mean),
                "top1_agreement": finite(pair.damage.top1_agreement),
                "top1_agreement_other": finite(pair.other.top1_agreement),
            }
            for curve, _, pairs in self.curves
            for pair in pairs
        ]

    def _zones(self) -> list[dict[str, Any]]:
        rows = []
        for curve, other, _ in self.curves:
            for tolerance in TOLERANCES:
                mine, its = curve.zone(tolerance), other.zone(tolerance)
                row = {"method": curve.method.method, "options": dict(curve.method.options), "label": curve.label}
                row |= {"tolerance": tolerance, "severity": mine.severity, "severity_other": its.severity}
                rows.append(row | {"censored": mine.censored, "censored_other": its.censored})
        return rows
