"""A whole model side by side with transformers: loading, the forward pass, evaluation, and what a sweep adds.

python benchmarks/model.py [--windows 4] [--runs 5] [--json FILE]

The model is SmolLM2-135M-Instruct in float32, on windows of 512 tokens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from timing import medians, show, timed
from transformers import AutoModelForCausalLM

import hemostat


def evaluation_times(model: hemostat.Model, directory: Path, tokens: torch.Tensor, runs: int) -> list[dict]:
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    damaged = hemostat.prepare(model, "rtn").at(4)
    baseline = hemostat.BaselineEvaluation(model, tokens)

    @torch.no_grad()
    def forward_theirs():
        for window in tokens.split(4):
            theirs(window)

    @torch.no_grad()
    def forward_ours():
        for window in tokens.split(4):
            model.forward(window)

    seconds = medians(
        {
            "transformers forward": forward_theirs,
            "hemostat forward": forward_ours,
            "hemostat evaluation (forward and damage)": lambda: baseline.compare(damaged),
        },
        runs=runs,
    )
    limit = seconds["transformers forward"]
    return [{"what": name, "seconds": value, "ratio": value / limit} for name, value in seconds.items()]


def loading_times(directory: Path, runs: int) -> list[dict]:
    seconds = medians(
        {
            "transformers load": lambda: AutoModelForCausalLM.from_pretrained(directory),
            "hemostat load": lambda: hemostat.Model.load(directory),
        },
        runs=runs,
    )
    limit = seconds["transformers load"]
    return [{"what": name, "seconds": value, "ratio": value / limit} for name, value in seconds.items()]


def sweep_time(model: hemostat.Model, tokens: torch.Tensor) -> list[dict]:
    """A sweep against the sum of its parts: baseline, noise floor, one evaluation a severity, one preparation."""
    severities = [8, 4, 3]
    begin = time.perf_counter()
    hemostat.sweep(model, "rtn", tokens, severities=severities)
    whole = time.perf_counter() - begin
    prepared = hemostat.prepare(model, "rtn")
    preparation = timed(lambda: hemostat.prepare(model, "rtn"))
    application = sum(timed(lambda s=s: prepared.at(s)) for s in severities)
    damaged = prepared.at(4)
    begin = time.perf_counter()
    baseline = hemostat.BaselineEvaluation(model, tokens)
    baseline_seconds = time.perf_counter() - begin
    half = model.to(torch.bfloat16)
    floor = timed(lambda: baseline.compare(half))
    evaluations = sum(timed(lambda: baseline.compare(damaged)) for _ in severities)
    parts = baseline_seconds + floor + evaluations + preparation
    return [
        {"what": "sweep's parts: baseline, noise floor, evaluations, preparation", "seconds": parts, "ratio": 1.0},
        {"what": "sweep", "seconds": whole, "ratio": whole / parts},
        {"what": "at(severity), all of them", "seconds": application, "ratio": application / parts},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = hemostat.data.smollm2()
    directory = Path(text.model.source)
    tokens = text.evaluation[: arguments.windows]
    rows = loading_times(directory, arguments.runs)
    rows += evaluation_times(text.model, directory, tokens, arguments.runs)
    rows += sweep_time(text.model, tokens)
    show(rows, tokens, arguments.json)


if __name__ == "__main__":
    main()
