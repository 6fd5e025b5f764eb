"""A table's rows in a JSON file, kept one by one: a run that was stopped goes on where it stopped."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


class KeptRows:
    """Rows measured with the same windows; what the file of --json has from before counts as measured."""

    def __init__(self, arguments: argparse.Namespace):
        self.file: Path | None = arguments.json
        self.setting = {"windows": arguments.windows, "calibration_windows": arguments.calibration_windows}
        before = json.loads(self.file.read_text()) if self.file and self.file.exists() else []
        self.rows = [row for row in before if self.setting.items() <= row.items()]

    def has(self, **names: Any) -> bool:
        return any(names.items() <= row.items() for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row | self.setting)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside = self.file.with_suffix(".new")
            beside.write_text(json.dumps(self.rows, indent=1))
            os.replace(beside, self.file)
