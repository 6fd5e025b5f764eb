"""Kernels side by side in one process: measured time, the machine's limit measured in the same run, and the peers.

python benchmarks/kernels.py [--device cpu] [--runs 7] [--only mask] [--json FILE]

A read is x.sum(), a copy y.copy_(x) into memory already touched; operators are timed with out=. Peers are the papers'
own formulations, the plain PyTorch expression (eager), and torch.compile of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from timing import medians

import hemostat

Function = Callable[[], object]


class Case(NamedTuple):
    name: str
    ours: Function
    limit: str  # what `limit_function` is
    limit_function: Function
    limit_factor: float  # the limit is so many times its time
    target: float | None  # of ours / limit
    peers: dict[str, Function]


def weight_cases(device: torch.device) -> list[Case]:
    weight = torch.randn(4096, 4096, device=device)
    norm = torch.rand(4096, device=device) + 0.5
    mask = torch.zeros(4096, 4096, dtype=torch.bool, device=device)
    out = torch.zeros_like(weight)
    read, copy = ("read", weight.sum), ("copy", lambda: out.copy_(weight))

    def wanda_paper():
        metric = weight.abs() * norm.reshape(1, -1)
        fall = torch.zeros_like(metric, dtype=torch.bool)
        order = torch.sort(metric, dim=-1, stable=True)[1]
        return fall.scatter_(1, order[:, :2048], True)

    def wanda_pattern_paper():
        metric = weight.abs() * norm.reshape(1, -1)
        fall = torch.zeros_like(metric, dtype=torch.bool)
        for column in range(0, 4096, 4):
            group = metric[:, column : column + 4]
            fall.scatter_(1, column + torch.topk(group, 2, dim=1, largest=False)[1], True)
        return fall

    def ria_paper():
        magnitude = weight.abs()
        share = magnitude / magnitude.sum(dim=0) + magnitude / magnitude.sum(dim=1).reshape(-1, 1)
        metric = share * norm.reshape(1, -1) ** 0.5
        threshold = torch.sort(metric.flatten())[0][weight.numel() // 2]
        return metric <= threshold

    def magnitude_paper():
        threshold = torch.sort(weight.abs().flatten())[0][weight.numel() // 2]
        return weight.abs() <= threshold

    def magnitude_kthvalue():
        return weight.abs() > weight.abs().flatten().kthvalue(weight.numel() // 2)[0]

    def rtn_eager():
        groups = weight.view(4096, 32, 128)
        low = groups.amin(-1, keepdim=True).clamp(max=0)
        high = groups.amax(-1, keepdim=True).clamp(min=0)
        scale = (high - low) / 15
        zero = torch.round(-low / scale)
        return ((torch.clamp(torch.round(groups / scale) + zero, 0, 15) - zero) * scale).view(4096, 4096)

    words = weight.view(torch.int32)

    def flips_eager():
        faults = torch.zeros_like(words)
        for bit in range(32):
            faults |= (torch.rand(weight.shape, device=device) < 1e-4).int() << bit
        return (words ^ faults).view(torch.float32)

    def flips_at_positions():
        count = int(torch.distributions.Binomial(32 * weight.numel(), torch.tensor(1e-4)).sample())
        places = torch.randint(weight.numel(), (count,), device=device)
        damaged = words.flatten().clone()
        damaged[places] ^= 1 << torch.randint(31, (count,), device=device, dtype=torch.int32)
        return damaged.view(torch.float32)

    def gptq_search():
        groups = weight.view(-1, 128)
        low, high = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
        best = torch.full_like(low, torch.inf)
        scale, zero = torch.empty_like(low), torch.empty_like(low)
        for step in range(80):
            shrink = 1 - step / 100
            tried = shrink * (high - low) / 15
            tried_zero = torch.round(-shrink * low / tried)
            codes = torch.clamp(torch.round(groups / tried[:, None]) + tried_zero[:, None], 0, 15)
            error = (tried[:, None] * (codes - tried_zero[:, None]) - groups).abs_().pow_(2.4).sum(1)
            better = error < best
            best[better], scale[better], zero[better] = error[better], tried[better], tried_zero[better]
        codes = torch.clamp(torch.round(groups / scale[:, None]) + zero[:, None], 0, 15)
        return scale[:, None] * (codes - zero[:, None])

    compiled_rtn = torch.compile(rtn_eager)
    half, half_out = weight.bfloat16(), out.bfloat16()
    return [
        Case(
            "mask, rows (wanda 50 %)",
            lambda: hemostat.prune.wanda(weight, norm, sparsity=0.5, out=mask),
            *read,
            1,
            6,
            {"Wanda's row sort": wanda_paper},
        ),
        Case(
            "mask, tensor (magnitude 50 %)",
            lambda: hemostat.prune.magnitude(weight, sparsity=0.5, out=mask),
            *read,
            1,
            6,
            {"magnitude's flat sort": magnitude_paper, "kthvalue": magnitude_kthvalue},
        ),
        Case(
            "mask, rows (ria 50 %)",
            lambda: hemostat.prune.ria(weight, norm, sparsity=0.5, out=mask),
            *read,
            1,
            None,
            {},
        ),
        Case(
            "mask, tensor (ria 50 %)",
            lambda: hemostat.prune.ria(weight, norm, sparsity=0.5, scope="tensor", out=mask),
            *read,
            1,
            None,
            {"RIA's flat sort": ria_paper},
        ),
        Case(
            "mask, 2:4 (wanda)",
            lambda: hemostat.prune.wanda(weight, norm, pattern="2:4", out=mask),
            *read,
            1,
            6,
            {"Wanda's column groups": wanda_pattern_paper},
        ),
        Case(
            "kept_until, rows",
            lambda: hemostat.prune.kept_until(weight, out=out),
            *copy,
            1,
            None,
            {"row sort": lambda: torch.sort(weight, dim=-1, stable=True)},
        ),
        Case(
            "fake quantize, groups of 128",
            lambda: hemostat.quantize.rtn(weight, bits=4, group_size=128, out=out),
            *copy,
            1,
            2,
            {"eager": rtn_eager, "torch.compile": compiled_rtn},
        ),
        Case(
            "bit flips, rate 1e-4",
            lambda: hemostat.noise.bit_flip(weight, rate=1e-4, out=out),
            *copy,
            1,
            4,
            {"a draw a bit": flips_eager, "drawn positions": flips_at_positions},
        ),
        Case(
            "fake quantize, groups of 128, clip search",
            lambda: hemostat.quantize.rtn(weight, bits=4, group_size=128, search_clip=True, out=out),
            *copy,
            80,  # one for each range that is tried
            None,
            {"GPTQ's search": gptq_search},
        ),
        Case(
            "fake quantize, groups of 128, bfloat16",
            lambda: hemostat.quantize.rtn(half, bits=4, group_size=128, out=half_out),
            "copy",
            lambda: half_out.copy_(half),
            1,
            None,
            {},
        ),
    ]


def format_cases(device: torch.device) -> list[Case]:
    """Formats whose blocks share a scale; without bitsandbytes (of the `test` extra) its two have no peer."""
    weight = torch.randn(4096, 4096, device=device)
    out = torch.zeros_like(weight)
    copy = ("copy", lambda: out.copy_(weight))
    try:
        from bitsandbytes import functional as bitsandbytes
    except ImportError:
        bitsandbytes = None

    def bitsandbytes_4bit(name):
        codes, state = bitsandbytes.quantize_4bit(weight, blocksize=64, quant_type=name)
        return bitsandbytes.dequantize_4bit(codes, state)

    def torch_fp8():
        scale = weight.abs().amax(1, keepdim=True) / 448
        return (weight / scale).to(torch.float8_e4m3fn).float() * scale

    cases = []
    for name in ("nf4", "fp4"):
        peers = {"bitsandbytes": lambda name=name: bitsandbytes_4bit(name)} if bitsandbytes else {}
        operator = getattr(hemostat.quantize, name)
        cases.append(Case(f"{name}, blocks of 64", lambda f=operator: f(weight, out=out), *copy, 1, 3, peers))
    cases.append(Case("fp8", lambda: hemostat.quantize.fp8(weight, out=out), *copy, 1, 3, {"torch's casts": torch_fp8}))
    for name in ("mxfp4", "nvfp4", "ternary"):
        operator = getattr(hemostat.quantize, name)
        cases.append(Case(name, lambda f=operator: f(weight, out=out), *copy, 1, None, {}))
    cases.append(Case("nf4, packed", lambda: hemostat.quantize.nf4(weight, packed=True), *copy, 1, None, {}))
    return cases


def divergence_cases(device: torch.device) -> list[Case]:
    tokens, vocab = 2048, 32000
    targets = torch.randint(vocab, (tokens,), device=device)
    cases = []
    for dtype in (torch.float32, torch.bfloat16):
        baseline = (torch.randn(tokens, vocab, device=device) * 3).to(dtype)
        damaged = (baseline + torch.randn(tokens, vocab, device=device) * 0.3).to(dtype)

        def eager(baseline=baseline, damaged=damaged):
            p, q = baseline.float().log_softmax(-1), damaged.float().log_softmax(-1)
            top, other = baseline.topk(5)[1], damaged.topk(5)[1]
            return (
                -p.gather(1, targets[:, None]),
                -q.gather(1, targets[:, None]),
                (p.exp() * (p - q)).sum(-1),
                (q.exp() * (q - p)).sum(-1),
                -(p.exp() * p).sum(-1),
                -(q.exp() * q).sum(-1),
                p.amax(-1).exp(),
                q.amax(-1).exp(),
                p.argmax(-1),
                q.argmax(-1),
                (top[:, :, None] == other[:, None]).any(-1).float().mean(-1),
            )

        def read_both(baseline=baseline, damaged=damaged):
            return baseline.sum(), damaged.sum()

        # One vectorised exponential of each logit: torch.exp where both of its operands stay in cache. On the CPU by
        # one thread, shared among all of them: waking them for so small a block would be most of the time.
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        block = torch.randn(16384 if device.type == "cpu" else 1 << 22, device=device)
        result = torch.empty_like(block)
        repeats = 64

        def exponentials(block=block, result=result, repeats=repeats):
            before = torch.get_num_threads()
            torch.set_num_threads(1)
            for _ in range(repeats):
                torch.exp(block, out=result)
            torch.set_num_threads(before)

        timed = medians({"read": read_both, "exp": exponentials}, runs=5)
        scaled = 2 * baseline.numel() / (repeats * block.numel() * threads)
        bound = ("reading both", read_both, 1.0)
        if timed["exp"] * scaled > timed["read"]:
            bound = ("exponentials", exponentials, scaled)
        cases.append(
            Case(
                f"divergence, {str(dtype).removeprefix('torch.')}",
                lambda b=baseline, d=damaged: torch.ops.hemostat.divergence(b, d, targets),
                *bound,
                1.5 if dtype == torch.float32 else None,
                {"eager": eager, "torch.compile": torch.compile(eager)},
            )
        )
    return cases


def measure(case: Case, runs: int) -> dict:
    fast = medians({"ours": case.ours, "limit": case.limit_function}, runs=4 * runs, warmup=2)
    peers = medians(case.peers, runs=min(runs, 3)) if case.peers else {}
    limit = fast["limit"] * case.limit_factor
    return {
        "name": case.name,
        "milliseconds": fast["ours"] * 1e3,
        "limit": case.limit,
        "limit_milliseconds": limit * 1e3,
        "ratio_to_limit": fast["ours"] / limit,
        "target": case.target,
        "peers": {name: seconds / fast["ours"] for name, seconds in peers.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(f"{arguments.device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':40}{'ms':>9}{'limit':>9}  {'of':14}{'ratio':>6}{'target':>8}  peers (times slower)")
    rows = []
    for case in weight_cases(arguments.device) + format_cases(arguments.device) + divergence_cases(arguments.device):
        if arguments.only not in case.name:
            continue
        row = measure(case, arguments.runs)
        rows.append(row)
        target = f"≤ {row['target']:g}" if row["target"] else ""
        peers = ", ".join(f"{name} {ratio:.1f}×" for name, ratio in row["peers"].items())
        print(
            f"{row['name']:40}{row['milliseconds']:9.2f}{row['limit_milliseconds']:9.2f}  {row['limit']:14}"
            f"{row['ratio_to_limit']:6.2f}{target:>8}  {peers}",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
