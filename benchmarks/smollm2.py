"""Methods on SmolLM2-135M-Instruct: perplexity at each severity, and the time to prepare and to apply each.

python benchmarks/smollm2.py WIKITEXT2_TEST WIKITEXT2_VALID [--windows 32] [--methods wanda,sparsegpt …] [--json FILE]

Float32, windows of 512 tokens without BOS; statistics of the dense model on 64 windows of the second text.
"""

from __future__ import annotations

import argparse

import smollm2_text
import torch
from kept_rows import KeptRows
from timing import with_result as timed

import hemostat

# Spec and severities; None: every operating point that the method has.
CASES = {
    "magnitude": [0.5],
    "wanda": [0.3, 0.5],
    "ria": [0.5],
    "gradient": [0.5],
    "dsnot": [0.5],
    "owl": [0.5],
    "sparsegpt": [0.3, 0.5, 0.6],
    "admm": [0.5],
    "wanda:m=4": [2],
    "ria:m=4": [2],
    "sparsegpt:m=4": [2],
    "admm:m=4": [2],
    "rtn:group_size=64": [8, 4, 3],
    "awq:group_size=64": [4, 3],
    "gptq:group_size=64": [8, 4, 3],
    "gptq:act_order=true,group_size=64": [4, 3],
    "gptq:act_order=true,group_size=64,static_groups=true": [4, 3],
    "nf4": None,
    "fp4": None,
    "mxfp4": None,
    "nvfp4": None,
    "fp8": None,
    "ternary": None,
    "gguf": None,
    "svd": [0.2],
    "asvd": [0.2],
    "svd_llm": [0.2, 0.4],
}
# What the papers' code gives on the same windows, with the statistics of the dense model.
PAPERS = {
    ("magnitude", 0.5): 585,  # removes every weight equal to the threshold: 50.11 %
    ("wanda", 0.5): 60.6,
    ("sparsegpt", 0.5): 53.5,
    ("rtn:group_size=64", 8): 28.5,
    ("rtn:group_size=64", 4): 37.9,
}


def is_kept(rows: KeptRows, spec: str, severities: list[float] | None) -> bool:
    severities = severities or next(method for method in hemostat.methods() if method.name == spec).axis.default_grid
    return all(rows.has(method=spec, severity=severity) for severity in severities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    smollm2_text.add_arguments(parser)
    parser.add_argument("--methods", nargs="*", help="specs; all of the table unless given")
    arguments = parser.parse_args()
    rows = KeptRows(arguments)
    chosen = {spec: CASES[spec] for spec in arguments.methods or CASES}
    chosen = {spec: severities for spec, severities in chosen.items() if not is_kept(rows, spec, severities)}
    if not chosen:
        return
    model, tokens, calibration = smollm2_text.subject(arguments)
    statistics, collecting = timed(lambda: hemostat.collect(model, calibration, needs=list(chosen)))
    baseline = hemostat.BaselineEvaluation(model, tokens)
    print(
        f"{len(tokens)} windows of {tokens.shape[1]} tokens, {torch.get_num_threads()} threads; statistics of ", end=""
    )
    print(f"{len(calibration)} windows took {collecting:.0f} s; dense: perplexity {perplexity(baseline, model):.2f}")
    print(f"{'':36}{'severity':>9}{'perplexity':>11}{'papers':>8}{'prepare, s':>11}{'apply, s':>9}")
    for spec, severities in chosen.items():
        prepared, preparing = timed(lambda spec=spec: hemostat.prepare(model, spec, statistics))
        for severity in severities or prepared.axis.default_grid:
            if rows.has(method=spec, severity=severity):
                continue
            damaged, applying = timed(lambda severity=severity, prepared=prepared: prepared.at(severity))
            row = {
                "method": spec,
                "severity": severity,
                "perplexity": perplexity(baseline, damaged),
                "papers": PAPERS.get((spec, severity)),
                "prepare_seconds": preparing,
                "apply_seconds": applying,
            }
            rows.add(row)
            papers = f"{row['papers']:8.1f}" if row["papers"] else " " * 8
            print(
                f"{spec:36}{severity:9g}{row['perplexity']:11.2f}{papers}{preparing:11.2f}{applying:9.2f}", flush=True
            )


def perplexity(baseline: hemostat.BaselineEvaluation, model: hemostat.Model) -> float:
    return baseline.compare(model).perplexity


if __name__ == "__main__":
    main()
