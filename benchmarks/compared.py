"""The tables of docs/compared.md, in Markdown: measures what is not measured yet, and writes them to OUT/compared.md.

python benchmarks/compared.py EVALUATION CALIBRATION [--sparsegpt DIR] [--gptq DIR] [--llm-compressor PYTHON]
  [--tables together …] [--out build/compared]

EVALUATION and CALIBRATION are wikitext2-test and wikitext2-valid; DIR are checkouts as benchmarks/papers_code.py takes
them, PYTHON as benchmarks/llm_compressor.py takes it; what is not given is left out. All of it takes hours. Each row is
kept in OUT as soon as it is measured, and a run that was stopped goes on there; remove OUT to measure anew. The first
table, `together`, has other people's code beside ours on the same windows, dense and block by block.
What the authors' code gives block by block, and `papers`, are not measured here: recorded for the windows by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]
# Each table, and the scripts whose rows it shows.
TABLES = {
    "together": ("papers_code", "blockwise", "llm_compressor"),
    "papers_code": ("papers_code",),
    "smollm2": ("smollm2",),
    "blockwise": ("blockwise",),
    "llm_compressor": ("llm_compressor",),
}


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are words and the others numbers."""
    rule = [":--"] * texts + ["--:"] * (len(heads) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, rule, *rows)) + "\n"


def shown(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def together(papers_code: Rows, blockwise: Rows, llm_compressor: Rows) -> str:
    """One line a method and severity, with what any of the scripts measured of it."""
    lines: dict[tuple[str, float], dict[str, float | None]] = defaultdict(dict)
    for row in papers_code:
        line = lines[row["method"], row["severity"]]
        line |= {"dense": row["perplexity"], "authors": row["their_perplexity"]}
        line |= {"seconds": row["seconds"], "authors_seconds": row["their_seconds"]}
    for row in blockwise:
        line = lines[row["method"], row["severity"]]
        line |= {"dense": row["dense"], "blockwise": row["correct=0.0"], "authors_blockwise": row["papers"]}
        line["pass"] = row["seconds"]
    for row in llm_compressor:
        perplexity, seconds = {
            "hemostat, dense": ("dense", "dense_pass"),
            "hemostat": ("blockwise", "pass"),
            "llm-compressor": ("llm_compressor", "llm_compressor_pass"),
        }[row["side"]]
        lines[row["method"], row["severity"]] |= {perplexity: row["perplexity"], seconds: row["seconds"]}
    columns = {
        "dense": "dense",
        "authors'": "authors",
        "block by block": "blockwise",
        "authors', block by block": "authors_blockwise",
        "llm-compressor": "llm_compressor",
    }
    times = {
        "solver, s": "seconds",
        "authors', s": "authors_seconds",
        "dense, s": "dense_pass",
        "block by block, s": "pass",
        "llm-compressor, s": "llm_compressor_pass",
    }
    rows = [
        [spec, f"{severity:g}"]
        + [shown(line.get(name)) for name in columns.values()]
        + [shown(line.get(name), 1) for name in times.values()]
        for (spec, severity), line in sorted(lines.items())
    ]
    return markdown(["", "severity", *columns, *times], rows)


def papers_code_table(rows: Rows) -> str:
    return markdown(
        ["", "seconds", "authors'", "faster", "error, ratio", "equal", "perplexity", "authors'"],
        [
            [row["case"], shown(row["seconds"], 1), shown(row["their_seconds"], 1)]
            + [f"{row['their_seconds'] / row['seconds']:.1f}×", shown(row["error_ratio"], 4), f"{row['equal']:.2%}"]
            + [shown(row["perplexity"]), shown(row["their_perplexity"])]
            for row in rows
        ],
    )


def smollm2_table(rows: Rows) -> str:
    """One line a method, its severities beside each other."""
    of_method: dict[str, Rows] = {}
    for row in rows:
        of_method.setdefault(row["method"], []).append(row)
    lines = []
    for spec, points in of_method.items():
        joined = [", ".join(f"{point['severity']:g}" for point in points)]
        joined += [", ".join(shown(point["perplexity"]) for point in points)]
        joined += [", ".join(shown(point["papers"], 1) for point in points if point["papers"])]
        slowest = [max(point[name] for point in points) for name in ("prepare_seconds", "apply_seconds")]
        lines.append([spec, *joined, *(shown(seconds, 1) for seconds in slowest)])
    return markdown(["", "severity", "perplexity", "papers", "prepare", "apply"], lines)


def blockwise_table(rows: Rows) -> str:
    return markdown(
        ["", "severity", "dense", "block by block", "papers", "time"],
        [
            [row["method"], f"{row['severity']:g}", shown(row["dense"]), shown(row["correct=0.0"])]
            + [shown(row["papers"], 1), shown(row["ratio"])]
            for row in rows
        ],
    )


def llm_compressor_table(rows: Rows) -> str:
    sides = ("hemostat, dense", "hemostat", "llm-compressor")
    names = ("dense", "block by block", "llm-compressor")
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        of_side = {row["side"]: row for row in rows if row["case"] == case}
        cells = [shown(of_side[side]["perplexity"]) if side in of_side else "" for side in sides]
        cells += [shown(of_side[side]["seconds"], 1) if side in of_side else "" for side in sides]
        cells += [shown(of_side[side]["peak_bytes"] / 2**30) if side in of_side else "" for side in sides]
        lines.append([case, *cells])
    heads = [f"{what}, {name}" for what in ("perplexity", "seconds", "peak, GiB") for name in names]
    return markdown(["", *heads], lines)


WRITERS = {
    "together": together,
    "papers_code": papers_code_table,
    "smollm2": smollm2_table,
    "blockwise": blockwise_table,
    "llm_compressor": llm_compressor_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", help="wikitext2-test")
    parser.add_argument("calibration", help="wikitext2-valid")
    parser.add_argument("--sparsegpt", help="checkout of github.com/IST-DASLab/sparsegpt")
    parser.add_argument("--gptq", help="checkout of github.com/IST-DASLab/gptq")
    parser.add_argument("--llm-compressor", metavar="PYTHON", help="interpreter that has llmcompressor")
    parser.add_argument("--windows", default="32")
    parser.add_argument("--calibration-windows", default="64")
    parser.add_argument("--tables", nargs="*", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--out", type=Path, default=Path("build/compared"))
    arguments = parser.parse_args()

    checkouts = [f"--{name}={path}" for name in ("sparsegpt", "gptq") if (path := getattr(arguments, name))]
    options = {"papers_code": checkouts, "smollm2": [], "blockwise": ["--no-corrections"]}
    if arguments.llm_compressor:
        options["llm_compressor"] = [f"--python={arguments.llm_compressor}"]
    if not checkouts:
        del options["papers_code"]
    windows = [f"--windows={arguments.windows}", f"--calibration-windows={arguments.calibration_windows}"]
    files = {script: arguments.out / f"{script}.json" for table in arguments.tables for script in TABLES[table]}
    for script, file in files.items():
        if script in options:
            print(f"== benchmarks/{script}.py, kept in {file}", flush=True)
            texts = [arguments.evaluation, arguments.calibration]
            command = [sys.executable, str(HERE / f"{script}.py"), *texts, *windows, f"--json={file}"]
            subprocess.run(command + options[script], check=True)

    kept = {script: json.loads(file.read_text()) if file.exists() else [] for script, file in files.items()}
    written = "\n".join(
        f"## {table}\n\n{WRITERS[table](*(kept[script] for script in TABLES[table]))}" for table in arguments.tables
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "compared.md").write_text(written)
    print(f"\n{written}\nwritten to {arguments.out / 'compared.md'}")


if __name__ == "__main__":
    main()
