"""benchmarks/compared.py: rows are kept one by one, and the tables in Markdown have them."""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark(monkeypatch):
    """A module of benchmarks/, which are scripts beside each other."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def test_rows_of_before_are_not_measured_again(benchmark, tmp_path):
    file = tmp_path / "out" / "rows.json"
    rows_of = lambda windows: benchmark("kept_rows").KeptRows(  # noqa: E731
        argparse.Namespace(json=file, windows=windows, calibration_windows=64)
    )
    rows = rows_of(32)
    assert not rows.has(method="wanda")
    rows.add({"method": "wanda", "severity": 0.5, "perplexity": 60.65})
    assert rows_of(32).has(method="wanda", severity=0.5)
    assert not rows_of(32).has(method="wanda", severity=0.6)
    assert not rows_of(8).has(method="wanda", severity=0.5)
    assert [path.name for path in file.parent.iterdir()] == ["rows.json"]
    assert json.loads(file.read_text())[0]["perplexity"] == 60.65


def test_table_of_all_has_what_each_script_measured(benchmark):
    case = {"method": "sparsegpt", "severity": 0.5}
    table = benchmark("compared").together(
        [case | {"perplexity": 53.47, "their_perplexity": 53.54, "seconds": 2.13, "their_seconds": 26.2}],
        [case | {"dense": 53.48, "correct=0.0": 51.7, "papers": 52.2, "seconds": 20}]
        + [{"method": "wanda", "severity": 0.5, "dense": 60.65, "correct=0.0": 60.1, "papers": None, "seconds": 9}],
        [case | {"side": "llm-compressor", "perplexity": 54.49, "seconds": 70.4}]
        + [case | {"side": "hemostat", "perplexity": 51.71, "seconds": 22.5}]
        + [case | {"side": "hemostat, dense", "perplexity": 53.49, "seconds": 14.9}],
    )
    heads, rule, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert all(re.fullmatch(":?-+:?", cell) for cell in rule)
    sparsegpt, wanda = (dict(zip(heads, line, strict=True)) for line in lines)
    assert sparsegpt == {
        "": "sparsegpt",
        "severity": "0.5",
        "dense": "53.49",
        "authors'": "53.54",
        "block by block": "51.71",
        "authors', block by block": "52.20",
        "llm-compressor": "54.49",
        "solver, s": "2.1",
        "authors', s": "26.2",
        "dense, s": "14.9",
        "block by block, s": "22.5",
        "llm-compressor, s": "70.4",
    }
    assert wanda["block by block"] == "60.10" and wanda["authors'"] == wanda["llm-compressor"] == ""
