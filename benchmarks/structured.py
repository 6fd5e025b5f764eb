"""Smaller models of SmolLM2-135M-Instruct: parameters and multiply-adds removed, the time that saves, what it costs.

python benchmarks/structured.py [--corpora ../shared/corpora] [--severity 0.2] [--windows 32] [--methods flap wanda_sp]

Float32, windows of 512 tokens of WikiText-2 without BOS; calibrated on 64 windows of its validation text. Parameters
are those of linears inside blocks; multiply-adds those of a forward pass, attention and head included. The time is that
of a forward pass over four windows, medians of runs that take turns with the unchanged model's. The target is 0.8 in
the column of time saved over multiply-adds saved.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from timing import medians
from timing import with_result as timed

import hemostat

METHODS = [
    "wanda_sp",
    "wanda_sp:compensation=least_squares",
    "llm_pruner",
    "flap",
    "flap:compensation=least_squares",
    "gradient_units",
    "shortgpt",
    "sleb:windows=8",
    "slicegpt",
]


def corpora(folder: Path) -> tuple[Path, Path]:
    """WikiText-2's test text and its validation text."""
    files = folder / "wikitext2-test.txt", folder / "wikitext2-valid-tokenised.txt"
    for file in files:
        if not file.is_file():
            raise SystemExit(f"benchmarks/structured.py: {file} is missing; give the folder that has it by --corpora")
    return files


def parameters(model: hemostat.Model) -> int:
    return sum(weight.numel() for _, weight in model.linears())


def multiply_adds(model: hemostat.Model, length: int) -> float:
    """Of a token, in windows of so many: linears, shortcuts, attention over half of the window, the head."""
    count = parameters(model) + model.head.linear.weight.numel()
    for block in model.blocks:
        count += sum(
            shortcut.numel() for shortcut in (block.attention_shortcut, block.mlp_shortcut) if shortcut is not None
        )
        count += 2 * block.attention.heads * block.attention.head_dim * length / 2
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"), help="folder of the texts")
    parser.add_argument("--severity", type=float, default=0.2)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--calibration-windows", type=int, default=64)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    arguments = parser.parse_args()
    evaluated, calibrated = corpora(arguments.corpora)

    model = hemostat.data.smollm2(dtype=torch.float32).model
    tokens = hemostat.data.tokens(model, evaluated, bos=False)[: arguments.windows]
    calibration = hemostat.data.tokens(model, calibrated, bos=False)[: arguments.calibration_windows]
    statistics, seconds = timed(lambda: hemostat.collect(model, calibration, arguments.methods))
    baseline = hemostat.BaselineEvaluation(model, tokens)
    length = tokens.shape[1]
    before, work = parameters(model), multiply_adds(model, length)
    print(f"statistics of {len(calibration)} windows {seconds:.0f} s; {torch.get_num_threads()} threads")
    header = ("prepare s", "parameters", "mult-adds", "time", "time/mult-adds", "perplexity", "ΔNLL", "")
    print(f"{'':40}" + "".join(f"{title:>15}" for title in header))
    for spec in arguments.methods:
        prepared, preparing = timed(lambda spec=spec: hemostat.prepare(model, spec, statistics))
        cut, changing = timed(lambda prepared=prepared: prepared.at(arguments.severity))
        damage = baseline.compare(cut)
        seconds = medians({"dense": lambda: model(tokens[:4]), "cut": lambda cut=cut: cut(tokens[:4])}, runs=9)
        saved_work = 1 - multiply_adds(cut, length) / work
        saved = 1 - seconds["cut"] / seconds["dense"]
        low, high = damage.delta_nll_interval
        cells = (
            f"{preparing + changing:.1f}",
            f"{1 - parameters(cut) / before:.1%}",
            f"{saved_work:.1%}",
            f"{saved:.1%}",
            f"{saved / saved_work:.2f}",
            f"{damage.perplexity:.2f}",
            f"{damage.delta_nll:.3f}",
            f"{low:.3f} … {high:.3f}",
        )
        print(f"{spec:40}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
