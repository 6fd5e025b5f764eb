"""What localizing a model costs, beside one full evaluation for each layer.

python benchmarks/localize.py [--windows 4] [--method rtn] [--severity 3] [--json FILE]

The model is SmolLM2-135M-Instruct in float32, on windows of 512 tokens. A site at block l of L runs L − l blocks and
the head, so that without its control all sites together cost little more than half of L evaluations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timing import show, timed

import hemostat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--method", default="rtn")
    parser.add_argument("--severity", type=float, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = hemostat.data.smollm2()
    model, tokens = text.model, text.evaluation[: arguments.windows]
    layers = len(model.blocks)
    damaged = hemostat.prepare(model, arguments.method).at(arguments.severity)
    baseline = hemostat.BaselineEvaluation(model, tokens)

    # An evaluation before and after each, since machines drift.
    evaluations = [timed(lambda: baseline.compare(damaged))]
    found = {}
    for name, control in (("localize without control", False), ("localize", True)):
        found[name] = timed(lambda control=control: hemostat.localize(model, damaged, tokens, control=control))
        evaluations.append(timed(lambda: baseline.compare(damaged)))
    limit = layers * sum(evaluations) / len(evaluations)
    rows = [{"what": f"one full evaluation for each of {layers} layers", "seconds": limit, "ratio": 1.0}]
    rows += [{"what": name, "seconds": seconds, "ratio": seconds / limit} for name, seconds in found.items()]
    show(rows, tokens, arguments.json)


if __name__ == "__main__":
    main()
