"""The authors' own code of SparseGPT and GPTQ beside ours: all of SmolLM2-135M-Instruct from the same Gram matrices.

python benchmarks/papers_code.py EVALUATION CALIBRATION --sparsegpt DIR --gptq DIR [--cases sparsegpt …] [--json FILE]

DIR are checkouts of github.com/IST-DASLab/sparsegpt and github.com/IST-DASLab/gptq. The statistics are the dense
model's on 64 windows of the second text; float32; windows of 512 tokens without BOS. A layer's error is
tr((W − Q) G (W − Q)ᵀ); "worst" is the layer where ours is largest beside theirs. Seconds are those of the solver on all
linears, from Gram matrices that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import smollm2_text
import torch
from kept_rows import KeptRows

import hemostat

Solver = Callable[[torch.nn.Linear, torch.Tensor], None]  # changes the layer's weight, given its Gram matrix


def imported(directory: Path, name: str):
    """A module of a checkout; both checkouts have a module `quant` of their own."""
    sys.modules.pop("quant", None)
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(directory))


def authors_sparsegpt(directory: Path, sparsity: float, n: int, m: int) -> Solver:
    code = imported(directory, "sparsegpt")

    def solve(layer: torch.nn.Linear, gram: torch.Tensor) -> None:
        solver = code.SparseGPT(layer)
        solver.H = gram.clone()
        solver.fasterprune(sparsity, prunen=n, prunem=m)

    return solve


def authors_gptq(
    directory: Path, bits: int, group_size: int, act_order: bool = False, static_groups: bool = False
) -> Solver:
    code = imported(directory, "gptq")

    def solve(layer: torch.nn.Linear, gram: torch.Tensor) -> None:
        solver = code.GPTQ(layer)
        solver.quantizer = code.Quantizer()
        solver.quantizer.configure(bits, perchannel=True, sym=False, mse=False)
        solver.H = gram.clone()
        solver.fasterquant(groupsize=group_size, actorder=act_order, static_groups=static_groups)

    return solve


@dataclass
class Case:
    checkout: str
    spec: str
    severity: float
    authors: Callable[[Path], Solver]


CASES = {
    "sparsegpt": Case("sparsegpt", "sparsegpt", 0.5, lambda path: authors_sparsegpt(path, 0.5, 0, 0)),
    "sparsegpt 2:4": Case("sparsegpt", "sparsegpt:m=4", 2, lambda path: authors_sparsegpt(path, 0, 2, 4)),
    "gptq 4 bits": Case("gptq", "gptq:group_size=64", 4, lambda path: authors_gptq(path, 4, 64)),
    "gptq 3 bits": Case("gptq", "gptq:group_size=64", 3, lambda path: authors_gptq(path, 3, 64)),
    "gptq 4 bits, act order": Case(
        "gptq", "gptq:act_order=true,group_size=64", 4, lambda path: authors_gptq(path, 4, 64, act_order=True)
    ),
    "gptq 4 bits, static groups": Case(
        "gptq",
        "gptq:act_order=true,group_size=64,static_groups=true",
        4,
        lambda path: authors_gptq(path, 4, 64, act_order=True, static_groups=True),
    ),
}


def treated_by(solve: Solver, model: hemostat.Model, statistics: hemostat.Statistics) -> tuple[hemostat.Model, float]:
    weights, seconds = {}, 0.0
    for name, weight in model.linears():
        layer = torch.nn.Linear(*reversed(weight.shape), bias=False)
        layer.weight.data = weight.clone()
        gram = statistics[name].gram
        # Their code waits for a GPU and prints.
        with mock.patch("torch.cuda.synchronize"), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            begin = time.perf_counter()
            solve(layer, gram)
            seconds += time.perf_counter() - begin
        weights[name] = layer.weight.data
    return model.replace(weights), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    smollm2_text.add_arguments(parser)
    parser.add_argument("--sparsegpt", type=Path, help="checkout; its cases are left out without it")
    parser.add_argument("--gptq", type=Path, help="checkout; its cases are left out without it")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    cases = {name: CASES[name] for name in arguments.cases if getattr(arguments, CASES[name].checkout)}
    if not cases:
        parser.error("give --sparsegpt or --gptq")
    rows = KeptRows(arguments)
    cases = {name: case for name, case in cases.items() if not rows.has(case=name)}
    if not cases:
        return

    model, tokens, calibration = smollm2_text.subject(arguments)
    statistics = hemostat.collect(model, calibration, needs=[case.spec for case in cases.values()])
    baseline = hemostat.BaselineEvaluation(model, tokens)
    dense = dict(model.linears())
    print(f"{len(tokens)} windows, {torch.get_num_threads()} threads, torch {torch.__version__}; ours, theirs, ratio")
    print(f"{'':28}{'seconds':>25}{'error: ratio':>15}{'worst':>8}{'equal':>9}{'perplexity':>19}")
    for name, case in cases.items():
        begin = time.perf_counter()
        ours = hemostat.prepare(model, case.spec, statistics).at(case.severity)
        seconds = time.perf_counter() - begin
        theirs, their_seconds = treated_by(case.authors(getattr(arguments, case.checkout)), model, statistics)

        errors, equal, entries = [], 0, 0
        for (linear, mine), (_, other) in zip(ours.linears(), theirs.linears(), strict=True):
            gram, weight = statistics[linear].gram, dense[linear]
            changes = (weight - mine, weight - other)
            errors.append([(change @ gram).mul(change).sum(dtype=torch.float64).item() for change in changes])
            masks = (mine == 0) == (other == 0)
            equal += int((masks if case.checkout == "sparsegpt" else torch.isclose(mine, other, atol=1e-6)).sum())
            entries += weight.numel()
        row = {
            "case": name,
            "method": case.spec,
            "severity": case.severity,
            "seconds": seconds,
            "their_seconds": their_seconds,
            "error_ratio": sum(mine for mine, _ in errors) / sum(other for _, other in errors),
            "worst_error_ratio": max(mine / other for mine, other in errors),
            "equal": equal / entries,  # of the masks, or of the values
            "perplexity": baseline.compare(ours).perplexity,
            "their_perplexity": baseline.compare(theirs).perplexity,
        }
        rows.add(row)
        print(
            f"{name:28}{row['seconds']:8.1f}{row['their_seconds']:8.1f}{their_seconds / seconds:8.1f}×"
            f"{row['error_ratio']:15.4f}{row['worst_error_ratio']:8.4f}{row['equal']:9.2%}"
            f"{row['perplexity']:10.2f}{row['their_perplexity']:9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
