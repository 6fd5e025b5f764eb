"""Watch a real language model bleed: five methods × six severities on SmolLM2-135M, about four minutes on two cores.

    python examples/demo.py               # or: make demo
    WINDOWS=32 python examples/demo.py    # more text, narrower intervals

The text is the documentation that comes with Python, so nothing is downloaded but the model's package. Writes
demo/report.html and demo/report.json into the clone.
"""

import os
import sys
import time
from pathlib import Path

import hemostat

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
BITS = [8, 6, 5, 4, 3, 2]
SEVERITIES = {
    "magnitude": SPARSITIES,
    "wanda": SPARSITIES,
    "rtn:group_size=64": BITS,
    "activation": BITS,
    "drop_layers": [1 / 30, 2 / 30, 3 / 30, 5 / 30, 8 / 30, 12 / 30],
}
BLEEDING = "rtn:group_size=64"


def main() -> None:
    started = time.monotonic()
    windows = int(os.environ.get("WINDOWS", "4"))
    folder = Path(__file__).parents[1] / "demo"

    subject = hemostat.data.smollm2()
    print(f"Evaluating {windows} windows of {subject.evaluation_text}, calibrating on {subject.calibration_text}.")
    report = hemostat.scan(
        subject.model,
        subject.evaluation[:windows],
        subject.calibration[:16],
        methods=list(SEVERITIES),
        severities=SEVERITIES,
        progress=None if sys.stderr.isatty() else "lines",
    )
    folder.mkdir(exist_ok=True)
    report.to_html(folder / "report.html")
    report.to_json(folder / "report.json")

    print(f"{report.table()}\n\n{report.summary()}\n")
    print("Where it bleeds, each block rounded alone:\n", flush=True)
    print(hemostat.localize(subject.model, BLEEDING, subject.evaluation[:1], severity=3, control=False))
    print(f"\n{time.monotonic() - started:.0f} s. Open {folder / 'report.html'}")


if __name__ == "__main__":
    main()
