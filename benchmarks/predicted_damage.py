"""Predicted damage against what is measured: single linears, single blocks, one role everywhere, the whole model.

python benchmarks/predicted_damage.py [--model reference|smollm2] [--windows 4] [--coarse 1] [--json FILE]

Of each method and severity the damaged model is made once; its changes are put into the unchanged model part by part
and evaluated. Three texts take no part in each other: statistics for the methods, statistics to predict by, and the
windows on which damage is measured. `in sample` predicts by the methods' own statistics instead. `--coarse n` takes
every n-th linear and block.
With --json the points are written there as they come.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import hemostat

SEVERITIES = {
    "magnitude": (0.3, 0.5, 0.7),
    "wanda": (0.3, 0.5, 0.7),
    "sparsegpt": (0.5, 0.7),
    "admm:iterations=12": (0.5, 0.7),
    "rtn:group_size=64": (5, 4, 3),
    "gptq:group_size=64": (4, 3),
    "svd": (0.3, 0.6),
    "gaussian": (0.05, 0.1, 0.2),
}
SCOPES = ("linear", "block", "role", "model")


def parts(names: Sequence[str], coarse: int) -> Iterator[tuple[str, str, list[str]]]:
    """Scope, label and linears of each part that is changed alone."""
    roles = sorted({name.split(".", 3)[-1] for name in names})
    blocks = sorted({name.split(".", 3)[2] for name in names}, key=int)
    for name in names[:: 1 if coarse == 1 else coarse * len(roles) + 1]:  # comes by every role in turn
        yield "linear", name, [name]
    for block in blocks[::coarse]:
        yield "block", block, [name for name in names if name.split(".", 3)[2] == block]
    for role in roles:
        yield "role", role, [name for name in names if name.split(".", 3)[-1] == role]
    yield "model", "", list(names)


def points_of(model: hemostat.Model, subject: hemostat.data.Subject, windows: int, coarse: int) -> Iterator[dict]:
    half = min(16, len(subject.calibration) // 2)
    own = hemostat.collect(model, subject.calibration[:half], [*SEVERITIES, "predict"], progress=False)
    judge = hemostat.collect(model, subject.calibration[half : 2 * half], ["predict"], progress=False)
    baseline = hemostat.BaselineEvaluation(model, subject.evaluation[:windows])
    for method, severities in SEVERITIES.items():
        prepared = hemostat.prepare(model, method, own)
        for severity in severities:
            damaged = prepared.at(severity)
            weights = dict(damaged.linears())
            predicted = hemostat.predicted_damage(model, damaged, judge)
            in_sample = hemostat.predicted_damage(model, damaged, own)
            for scope, part, names in parts(list(weights), coarse):
                damage = baseline.compare(model.replace({name: weights[name] for name in names}))
                yield {
                    "method": method,
                    "severity": severity,
                    "scope": scope,
                    "part": part,
                    "predicted": sum(predicted[name] for name in names),
                    "in_sample": sum(in_sample[name] for name in names),
                    "kl": damage.kl.mean,
                    "delta_nll": damage.delta_nll,
                }


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    ranks = [torch.tensor(values, dtype=torch.float64).argsort().argsort().double() for values in (x, y)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].item()


def typical(ratios: Sequence[float]) -> float:
    return torch.tensor(ratios).median().item()


def row(label: str, points: Sequence[dict]) -> str:
    predicted = [point["predicted"] for point in points]
    measured = {name: [point[name] for point in points] for name in ("kl", "delta_nll", "in_sample")}
    below = [point for point in points if point["predicted"] < 1]
    cells = [spearman(predicted, measured["kl"]), spearman(predicted, measured["delta_nll"])]
    cells += [
        typical([point[name] / point["predicted"] for point in below] or [float("nan")])
        for name in ("kl", "delta_nll", "in_sample")
    ]
    return f"{label:36}{len(points):6}" + "".join(f"{cell:10.3f}" for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["reference", "smollm2"], default="reference")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--coarse", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    subject = getattr(hemostat.data, arguments.model)()
    points: list[dict] = []
    for point in points_of(subject.model, subject, arguments.windows, arguments.coarse):
        points.append(point)
        if arguments.json:
            arguments.json.write_text(json.dumps({"model": arguments.model, "points": points}))

    print(f"{arguments.model}, {arguments.windows} windows of {subject.evaluation.shape[1]} tokens")
    print(f"{'':36}{'points':>6}{'rank KL':>10}{'rank NLL':>10}{'KL/pred':>10}{'NLL/pred':>10}{'in/out':>10}")
    print(row("all", points))
    for scope in SCOPES:
        print(row(scope, [point for point in points if point["scope"] == scope]))
    for method in SEVERITIES:
        print(row(method, [point for point in points if point["method"] == method]))
    for low, high in ((0, 0.01), (0.01, 0.1), (0.1, 1), (1, float("inf"))):
        between = [point for point in points if low <= point["predicted"] < high]
        if len(between) > 1:
            print(row(f"predicted {low:g} to {high:g} nats", between))


if __name__ == "__main__":
    main()
