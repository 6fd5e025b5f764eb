"""The column solver side by side with the papers' formulation, and with the limit measured in the same run.

python benchmarks/solve.py [--rows 4096] [--columns 4096] [--device cpu] [--runs 5] [--only gptq] [--json FILE]

The limit is one Cholesky factorization and half a matrix product of weight and Gram matrix; of a further severity on
the same matrix half a matrix product. The papers factor the inverse of the Gram matrix and update all later columns
block by block (SparseGPT, arXiv 2301.00774; GPTQ, arXiv 2210.17323).

What iterates (ADMM, AWQ's search) is held against the products of weight and Gram matrix that its iterations take,
DSnoT's swaps against copies of the weight.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from timing import medians

from hemostat import prune, quantize
from hemostat.solve import GramFactor


def papers_factor(gram: torch.Tensor, damp: float = 0.01) -> torch.Tensor:
    damped = gram.clone()
    damped.diagonal().add_(damp * gram.diagonal().mean())
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)


def papers_columns(weight, gram, decide, prepare_block, block_size=128):
    """Column by column inside a block, then one product for all columns after it."""
    weight, inverse = weight.clone(), papers_factor(gram)
    columns = weight.shape[1]
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        block, errors = weight[:, start:stop].clone(), torch.zeros_like(weight[:, start:stop])
        own, diagonal = inverse[start:stop, start:stop], inverse.diagonal()[start:stop]
        state = prepare_block(block, diagonal)
        for j in range(stop - start):
            w = block[:, j]
            q = decide(state, weight, block, start, j, diagonal)
            error = (w - q) / diagonal[j]
            block[:, j:] -= error.unsqueeze(1).matmul(own[j, j:].unsqueeze(0))
            block[:, j] = q
            errors[:, j] = error
        weight[:, start:stop] = block
        weight[:, stop:] -= errors.matmul(inverse[start:stop, stop:])
    return weight


def papers_sparsegpt(weight, gram, sparsity=0.5):
    def choose(block, diagonal):
        importance = block.square() / diagonal.square()
        return importance <= importance.flatten().sort()[0][int(importance.numel() * sparsity)]

    def decide(fallen, weight, block, start, j, diagonal):
        return block[:, j].masked_fill(fallen[:, j], 0)

    return papers_columns(weight, gram, decide, choose)


def papers_pattern(weight, gram):
    def decide(fallen, weight, block, start, j, diagonal):
        if j % 4 == 0:
            importance = block[:, j : j + 4].square() / diagonal[j : j + 4].square()
            fallen.scatter_(1, j + importance.topk(2, dim=1, largest=False)[1], True)
        return block[:, j].masked_fill(fallen[:, j], 0)

    return papers_columns(weight, gram, decide, lambda block, _: torch.zeros_like(block, dtype=torch.bool))


def papers_gptq(weight, gram, group_size=128, levels=16):
    def decide(grid, weight, block, start, j, diagonal):
        if (start + j) % group_size == 0:
            group = weight[:, start + j : start + j + group_size]
            low, high = group.amin(1).clamp(max=0), group.amax(1).clamp(min=0)
            grid["scale"] = (high - low) / (levels - 1)
            grid["zero"] = torch.round(-low / grid["scale"])
        scale, zero = grid["scale"], grid["zero"]
        return (torch.clamp(torch.round(block[:, j] / scale) + zero, 0, levels - 1) - zero) * scale

    return papers_columns(weight, gram, decide, lambda *_: {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows, columns = arguments.rows, arguments.columns
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator).to(arguments.device)
    inputs = torch.randn(2 * columns, columns, generator=generator)
    inputs += 0.5 * torch.randn(2 * columns, 1, generator=generator)
    gram = (inputs.T @ inputs / len(inputs)).to(arguments.device)
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(columns, device=arguments.device)
    factor, product = GramFactor(gram), torch.empty_like(weight)

    # name: (ours whole, ours from the factor, the papers')
    cases = {
        "sparsegpt 50 %": (
            lambda: prune.sparsegpt(weight, gram, sparsity=0.5),
            lambda: prune.sparsegpt(weight, factor, sparsity=0.5),
            lambda: papers_sparsegpt(weight, gram),
        ),
        "sparsegpt 2:4": (
            lambda: prune.sparsegpt(weight, gram, pattern="2:4"),
            lambda: prune.sparsegpt(weight, factor, pattern="2:4"),
            lambda: papers_pattern(weight, gram),
        ),
        "gptq 4 bits, groups of 128": (
            lambda: quantize.gptq(weight, gram, bits=4, group_size=128),
            lambda: quantize.gptq(weight, factor, bits=4, group_size=128),
            lambda: papers_gptq(weight, gram),
        ),
    }
    print(f"{rows} x {columns}, {arguments.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':30}{'ms':>8}{'limit':>8}{'ratio':>7}{'further':>9}{'limit':>8}{'ratio':>7}{'papers':>9}{'slower':>8}")
    table = []
    for name, (whole, further, papers) in cases.items():
        if arguments.only not in name:
            continue
        functions = {
            "whole": whole,
            "further": further,
            "cholesky": lambda: torch.linalg.cholesky(damped),
            "product": lambda: torch.mm(weight, gram, out=product),
        }
        seconds = medians(functions, runs=arguments.runs)
        half = seconds["product"] / 2
        limit = seconds["cholesky"] + half
        row = {"case": name, **seconds, "ratio": seconds["whole"] / limit, "further_ratio": seconds["further"] / half}
        if not arguments.no_peers:
            row["papers"] = medians({"papers": papers}, runs=1, warmup=0)["papers"]
        table.append(row)
        peer = f"{row['papers'] * 1e3:9.0f}{row['papers'] / row['whole']:7.1f}×" if "papers" in row else ""
        print(
            f"{name:30}{row['whole'] * 1e3:8.0f}{limit * 1e3:8.0f}{row['ratio']:7.2f}"
            f"{row['further'] * 1e3:9.0f}{half * 1e3:8.0f}{row['further_ratio']:7.2f}{peer}",
            flush=True,
        )

    mask = prune.magnitude(weight, sparsity=0.5, scope="row")
    mean, absmean = (means.to(arguments.device) for means in (inputs.mean(0), inputs.abs().mean(0)))
    norm = gram.diagonal().sqrt()
    copied = torch.empty_like(weight)
    steps = {
        "cholesky": lambda: torch.linalg.cholesky(damped),
        "inverse": lambda: torch.cholesky_inverse(triangle),
        "product": lambda: torch.mm(weight, gram, out=product),
        "copy": lambda: copied.copy_(weight),
    }
    triangle = torch.linalg.cholesky(damped)
    iterating = {
        "admm 50 %": (lambda: prune.admm(weight, gram, sparsity=0.5), {"cholesky": 1, "inverse": 1, "product": 20}),
        "awq 4 bits, groups of 128": (lambda: quantize.awq(weight, absmean, gram, bits=4), {"product": 20}),
        "dsnot 50 %": (lambda: prune.dsnot(weight, mask, mean, norm), {"copy": 1}),
    }
    print(f"{'':30}{'ms':>8}{'limit':>8}{'ratio':>7}")
    for name, (whole, parts) in iterating.items():
        if arguments.only not in name:
            continue
        seconds = medians({"whole": whole} | {step: steps[step] for step in parts}, runs=max(1, arguments.runs // 2))
        limit = sum(times * seconds[step] for step, times in parts.items())
        table.append({"case": name, **seconds, "limit": limit, "ratio": seconds["whole"] / limit})
        print(f"{name:30}{seconds['whole'] * 1e3:8.0f}{limit * 1e3:8.0f}{seconds['whole'] / limit:7.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
