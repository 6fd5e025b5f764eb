"""Low-rank decompositions side by side in one process: ours, the authors' own steps, and the bare factorization.

python benchmarks/lowrank.py [--runs 3] [--json FILE]

Sizes are those of SmolLM2's layers and a square one. The limit of svd_llm and asvd is the eigendecomposition that they
need, alone, of a matrix that is ready: float64, as wide as the smaller side.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from timing import medians

import hemostat

SHAPES = [(576, 576), (1536, 576), (576, 1536), (2048, 2048)]


def svd_llm_authors(weight: torch.Tensor, gram: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """SVD-LLM as its code goes: a Cholesky factor and its inverse in float64, a decomposition in float32."""
    scale = torch.linalg.cholesky(gram.double())
    inverse = torch.linalg.inv(scale).float()
    u, s, vh = torch.linalg.svd(weight @ scale.float(), full_matrices=False)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, root[:, None] * (vh[:rank] @ inverse)


def asvd_authors(weight: torch.Tensor, absmean: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """ASVD as its code goes: a randomized decomposition of that very rank, so one for each severity."""
    scale = absmean.sqrt() + 1e-6
    u, s, v = torch.svd_lowrank(weight * scale, q=rank)
    root = s.sqrt()
    return u * root, root[:, None] * (v / scale[:, None]).T


def rows_of(shape: tuple[int, int], runs: int) -> list[dict]:
    weight = torch.randn(shape)
    x = torch.randn(4 * shape[1], shape[1])
    gram, absmean = x.T @ x / len(x), x.abs().mean(0)
    rank = hemostat.lowrank.rank_for(0.5, *shape)
    small = torch.randn(min(shape), max(shape), dtype=torch.float64)
    energy = small @ small.T
    seconds = medians(
        {
            "limit": lambda: torch.linalg.eigh(energy),
            "svd_llm": lambda: hemostat.lowrank.decompose_svd_llm(weight, gram),
            "svd_llm, authors": lambda: svd_llm_authors(weight, gram, rank),
            "asvd": lambda: hemostat.lowrank.decompose_asvd(weight, absmean),
            "asvd, authors": lambda: asvd_authors(weight, absmean, rank),
            "svd": lambda: hemostat.lowrank.decompose(weight),
        },
        runs=runs,
    )
    limit = seconds["limit"]
    return [{"shape": shape, "what": what, "seconds": taken, "ratio": taken / limit} for what, taken in seconds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':16}{'':20}{'seconds':>10}{'ratio':>8}")
    rows = []
    for shape in SHAPES:
        for row in rows_of(shape, arguments.runs):
            rows.append(row)
            print(f"{shape!s:16}{row['what']:20}{row['seconds']:10.4f}{row['ratio']:8.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
