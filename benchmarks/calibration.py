"""Calibration statistics side by side in one process: ours, the machine's limits, and the peers' own accumulation.

python benchmarks/calibration.py [--tokens 2048] [--features 4096] [--runs 7] [--json FILE]

The limit of column statistics is a read of x (x.sum()), that of the Gram matrix half of the product XᵀX (x.T @ x into
memory already touched): it is symmetric.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from timing import medians

import hemostat


def wanda_add_batch(x: torch.Tensor) -> Callable[[], object]:
    """Wanda's accumulation: a running mean of squared column norms."""
    scaler, state = torch.zeros(x.shape[1]), {"samples": 0}

    def add_batch():
        inputs = x.reshape(-1, x.shape[-1]).t()
        scaler.mul_(state["samples"] / (state["samples"] + 1))
        state["samples"] += 1
        scaler.add_(torch.norm(inputs.float(), p=2, dim=1) ** 2 / state["samples"])

    return add_batch


def sparsegpt_add_batch(x: torch.Tensor) -> Callable[[], object]:
    """SparseGPT's accumulation: a running mean of the whole Gram matrix."""
    hessian, state = torch.zeros(x.shape[1], x.shape[1]), {"samples": 0}

    def add_batch():
        hessian.mul_(state["samples"] / (state["samples"] + 1))
        state["samples"] += 1
        inputs = (2 / state["samples"]) ** 0.5 * x.t().float()
        hessian.add_(inputs.matmul(inputs.t()))

    return add_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x = torch.randn(arguments.tokens, arguments.features)
    product = torch.zeros(arguments.features, arguments.features)

    def ours(*needs: str) -> Callable[[], object]:
        statistics = hemostat.InputStatistics(arguments.features, needs=needs)
        return lambda: statistics.add(x)

    vectors = {
        "limit": x.sum,
        "column_norm": ours("column_norm"),
        "absmean": ours("absmean"),
        "absmax": ours("absmax"),
        "all three": ours("column_norm", "absmean", "absmax"),
        "Wanda's add_batch": wanda_add_batch(x),
    }
    grams = {
        "limit": lambda: torch.mm(x.T, x, out=product),
        "gram": ours("gram"),
        "SparseGPT's add_batch": sparsegpt_add_batch(x),
    }
    print(f"{torch.get_num_threads()} threads, {list(x.shape)}, torch {torch.__version__}")
    print(f"{'':28}{'ms':>10}{'ratio':>8}")
    rows = []
    for functions, factor in ((vectors, 1.0), (grams, 0.5)):
        seconds = medians(functions, runs=arguments.runs)
        limit = seconds.pop("limit") * factor
        for what, taken in {"limit": limit, **seconds}.items():
            rows.append({"what": what, "seconds": taken, "ratio": taken / limit})
            print(f"{what:28}{taken * 1e3:10.2f}{taken / limit:8.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
