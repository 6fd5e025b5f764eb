"""What a scan found, and its forms: sentences, a terminal's table, JSON, data frames and one self-contained page."""

from hemostat._columns import aligned
from hemostat._number_text import interval, number, percent, signed, windows_text
from hemostat._whole_file import write_whole
from hemostat.report._curve import PALETTE, TOLERANCES, distance, trial_key
from hemostat.report._report import Report

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
    "windows_text",
    "write_whole",
]
