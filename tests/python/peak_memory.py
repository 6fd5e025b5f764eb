"""What scans take at their peak beside the model's weights, and what their plans state, as JSON.

python peak_memory.py CHECKPOINT < scans.json
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

import hemostat
from hemostat._checked_scan import CheckedScan
from hemostat._plan import plan_memory
from hemostat._scan import run_scan
from hemostat._store import Store

PR_SET_THP_DISABLE = 41
LENGTH = 64

libc = ctypes.CDLL(None)


def bytes_of(field: str) -> int:
    """Of this process, as /proc/self/status says it."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(f"{field}:"))


def forget_peak() -> None:
    """Gives back what is free, and lets the peak begin at what is left."""
    libc.malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")


class LargestAnonymous(threading.Thread):
    """The most anonymous memory that was seen: without pages of files, of which there is no record."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self._stopped = 0, threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.002):
            self.bytes = max(self.bytes, bytes_of("RssAnon"))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def measured(checkpoint: str, scan: Mapping[str, Any]) -> dict[str, Any]:
    """A scan at one severity."""
    forget_peak()
    before, anonymous_before = bytes_of("VmRSS"), bytes_of("RssAnon")
    anonymous = LargestAnonymous()
    anonymous.start()
    model = hemostat.Model.load(checkpoint)
    generator = torch.Generator().manual_seed(0)
    evaluation, calibration = (
        torch.randint(0, model.embedding.shape[0], (scan.get(windows, 4), LENGTH), generator=generator)
        for windows in ("windows", "calibration_windows")
    )
    budget = scan.get("memory_budget", 2**30)
    checked = CheckedScan(
        model,
        evaluation,
        calibration,
        methods=[scan["method"]],
        points=1,
        propagate=scan.get("propagate", False),
        correct=scan.get("correct", 0.0),
    )
    stated = plan_memory(checked, memory_budget=budget)
    with Store(None) as store:
        run_scan(checked, checked.in_store(store), memory_budget=budget, progress=False)
    resident = bytes_of("VmHWM") - before
    anonymous.stop()
    seen = anonymous.bytes - anonymous_before
    # Two views of one peak. Samples may miss it; pages of files count in the other, but may have been taken back.
    peak = seen if stated.mapped else max(seen, resident - model.bytes)
    return {"stated": asdict(stated) | {"beside_weights": stated.total - stated.weights}, "peak": peak}


def main() -> None:
    libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # pages of 2 MiB would count what nothing has touched
    checkpoint, scans = sys.argv[1], json.load(sys.stdin)
    for method in ("wanda", "temperature"):  # what libraries make once and keep
        measured(checkpoint, {"method": method})
    print(json.dumps([measured(checkpoint, scan) for scan in scans]))


if __name__ == "__main__":
    main()
