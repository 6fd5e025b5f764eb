"""What a scan found, and its forms: sentences, a terminal's table, JSON, data frames and one self-contained page."""

from hemostat.report._curve import PALETTE, TOLERANCES, distance, trial_key
from hemostat.report._report import Report, write_whole
from hemostat.report._text import aligned, interval, number, percent, signed

__all__ = [
    "PALETTE",
    "TOLERANCES",
    "Report",
    "aligned",
    "distance",
    "interval",
    "number",
    "percent",
    "signed",
    "trial_key",
    "write_whole",
]
