"""Calibration block by block on SmolLM2-135M-Instruct: perplexity beside dense statistics and the papers' own code, and
the time of a pass beside its limit.

python benchmarks/blockwise.py WIKITEXT2_TEST WIKITEXT2_VALID [--windows 32] [--json FILE]

Float32, windows of 512 tokens without BOS; calibrated on 64 windows of the second text. The limit is two forward passes
over the calibration tokens, with the head, and the seconds that the same solvers take on dense statistics. The papers'
code calibrates block by block too, all linears of a block at once.
"""

from __future__ import annotations

import argparse
from typing import Any

import smollm2_text
import torch
from kept_rows import KeptRows
from timing import with_result as timed

import hemostat

# Spec, severity, and the perplexity that the papers' own code reaches on these windows.
CASES = [
    ("sparsegpt", 0.5, 52.2),
    ("sparsegpt", 0.6, 93.4),
    ("sparsegpt:m=4", 2, None),
    ("wanda", 0.5, None),
    ("gptq:group_size=64", 4, 35.4),
    ("gptq:group_size=64", 3, 78.2),
    ("gptq:act_order=true,group_size=64,static_groups=true", 4, None),
    ("awq:group_size=64", 4, None),
    ("svd_llm", 0.2, None),
]
CORRECTIONS = [(0.5, 0.1), (1.0, 0.1)]  # correct, correct_damp: beside none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    smollm2_text.add_arguments(parser)
    parser.add_argument("--methods", nargs="*", help="specs; all of the table unless given")
    parser.add_argument("--no-corrections", action="store_true", help="without the columns of correct=")
    arguments = parser.parse_args()
    rows = KeptRows(arguments)
    cases = [case for case in CASES if not arguments.methods or case[0] in arguments.methods]
    cases = [case for case in cases if not rows.has(method=case[0], severity=case[1])]
    if not cases:
        return
    model, tokens, calibration = smollm2_text.subject(arguments)
    baseline = hemostat.BaselineEvaluation(model, tokens)
    perplexity = lambda damaged: baseline.compare(damaged).perplexity  # noqa: E731

    def forward() -> None:
        for batch in calibration.split(8):
            model(batch)

    forward()
    _, one_pass = timed(forward)
    corrections = [] if arguments.no_corrections else CORRECTIONS
    print(f"{len(calibration)} calibration windows, {torch.get_num_threads()} threads; a forward pass {one_pass:.1f} s")
    heads = ["dense", "papers", "blockwise", *(f"α {alpha} λ {damp}" for alpha, damp in corrections)]
    print(f"{'':54}{'':>6}" + "".join(f"{head:>12}" for head in heads) + f"{'pass, s':>9}{'/ limit':>9}")
    for spec, severity, papers in cases:
        statistics = hemostat.collect(model, calibration, needs=spec, progress=False)
        dense, solving = timed(
            lambda spec=spec, severity=severity, statistics=statistics: hemostat.prepare(model, spec, statistics).at(
                severity
            )
        )
        del statistics
        row: dict[str, Any] = {"method": spec, "severity": severity, "dense": perplexity(dense), "papers": papers}
        for alpha, damp in [(0.0, 0.1), *corrections]:
            changed, seconds = timed(
                lambda spec=spec, severity=severity, alpha=alpha, damp=damp: hemostat.prepare(
                    model, spec, calibration=calibration, propagate=True, correct=alpha, correct_damp=damp
                ).at(severity)
            )
            row[f"correct={alpha}"] = perplexity(changed)
            if alpha == 0:
                row |= {"seconds": seconds, "ratio": seconds / (2 * one_pass + solving)}
        rows.add(row)
        values = [row["dense"], papers, *(row[f"correct={alpha}"] for alpha in (0.0, *(a for a, _ in corrections)))]
        cells = "".join(f"{value:12.2f}" if value else " " * 12 for value in values)
        print(f"{spec:54}{severity:6g}{cells}{row['seconds']:9.1f}{row['ratio']:9.2f}", flush=True)


if __name__ == "__main__":
    main()
