"""What the treatments are worth, on text that neither calibration nor settings saw.

    python benchmarks/treatments.py pruning                       # both models, an hour and a half on two cores
    python benchmarks/treatments.py pruning --model reference     # some minutes
    python benchmarks/treatments.py ablation --model reference
    python benchmarks/treatments.py windows --model smollm2       # damage against calibration windows

Every case runs in a process of its own, so its peak memory is its own. Text: of SmolLM2 64 calibration windows of
512 tokens of WikiText-2's validation part and the first 32 windows of its test part (the corpora's folder is an
argument); of the reference model its own calibration windows, and 24 evaluation windows, half of library modules and
half of topics. ΔNLL is in nats per token with its paired 95 % interval over windows. A second interval, at the end of a
line, is the paired one of the case's NLL minus the treated model's: above 0, the treatment is better.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

import hemostat

CORPORA = Path(__file__).parents[2] / "shared" / "corpora"
SEVERITIES = {"0.5": {"sparsity": 0.5}, "0.6": {"sparsity": 0.6}, "0.7": {"sparsity": 0.7}, "2:4": {"pattern": "2:4"}}
PEERS = ("magnitude", "wanda", "ria", "sparsegpt", "admm")
PROPAGATED = ("wanda", "sparsegpt", "admm")
SWITCHES = {
    "all": {},
    "allocation=False": {"allocation": False},
    "propagate=False": {"propagate": False},
    "allocation=False, propagate=False": {"allocation": False, "propagate": False},
    'gram="guided"': {"gram": "guided"},
    "refine=True": {"refine": True},
    "width=0.15": {"width": 0.15},
    "width=0.25": {"width": 0.25},
}


def subject(model: str, windows: int, corpora: Path) -> tuple[hemostat.Model, torch.Tensor, torch.Tensor]:
    """The model, its calibration windows and the windows that it is judged on."""
    if model == "reference":
        found = hemostat.data.reference()
        judged = torch.cat([found.evaluation[:12], found.evaluation[64:76]])
        return found.model, found.calibration[:windows], judged
    found = hemostat.data.smollm2(dtype=torch.float32).model
    texts = [corpora / "wikitext2-valid-tokenised.txt", corpora / "wikitext2-test.txt"]
    for text in texts:
        if not text.exists():
            raise SystemExit(f"{text} is missing: --corpora names its folder")
    fitted, judged = (hemostat.data.tokens(found, text, bos=False) for text in texts)
    return found, fitted[:windows], judged[:32]


def changed(model: hemostat.Model, calibration: torch.Tensor, case: dict) -> hemostat.Model:
    if case["method"] == "gradient_aware_pruning":
        severity = SEVERITIES[case["severity"]]
        return hemostat.mitigate.gradient_aware_pruning(
            model, calibration, progress=False, **severity, **case["options"]
        ).model
    method, severity = case["method"], case["severity"]
    if ":" in severity:
        kept, of = severity.split(":")
        method, severity = f"{method}:m={of}", kept
    if method.startswith("magnitude"):
        return hemostat.prepare(model, method).at(float(severity))
    prepared = hemostat.prepare(model, method, calibration=calibration, propagate=case["propagate"])
    return prepared.at(float(severity))


def run_case(case: dict, corpora: Path) -> dict:
    """Seconds, peak memory and damage of one case, with its windows' NLL."""
    model, calibration, judged = subject(case["model"], case["windows"], corpora)
    began = time.perf_counter()
    result = changed(model, calibration, case)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    damage = hemostat.compare(model, result, judged)
    return {
        "seconds": seconds,
        "peak_mb": peak,
        "perplexity": damage.perplexity,
        "baseline": damage.perplexity_baseline,
        "delta_nll": damage.delta_nll,
        "interval": damage.delta_nll_interval,
        "kl": damage.kl.mean,
        "windows": list(damage.window_nll),
    }


def measured(case: dict, corpora: Path) -> dict:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "case", "--corpora", str(corpora), "--case", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def paired(first: list[float], second: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of first − second, by a bootstrap over windows."""
    difference = torch.tensor(first, dtype=torch.float64) - torch.tensor(second, dtype=torch.float64)
    drawn = torch.randint(len(difference), (4000, len(difference)), generator=torch.Generator().manual_seed(0))
    means = difference[drawn].mean(1)
    return means.quantile(0.025).item(), means.quantile(0.975).item()


def row(name: str, found: dict, against: tuple[float, float] | None = None) -> None:
    low, high = found["interval"]
    better = f"{against[0]:+.3f} … {against[1]:+.3f}" if against else ""
    print(
        f"{name:<46} ppl {found['perplexity']:8.2f}  ΔNLL {found['delta_nll']:.4f} [{low:.4f}, {high:.4f}]  "
        f"KL {found['kl']:.4f}  {found['seconds']:6.1f} s  {found['peak_mb']:6.0f} MB  {better}",
        flush=True,
    )


def treated_case(model: str, severity: str, windows: int, **options: object) -> dict:
    return {
        "model": model,
        "windows": windows,
        "method": "gradient_aware_pruning",
        "severity": severity,
        "options": options,
    }


def pruning(models: list[str], severities: list[str], windows: int, corpora: Path) -> None:
    for model in models:
        for severity in severities:
            treated = measured(treated_case(model, severity, windows), corpora)
            print(f"\n{model} at {severity}; unchanged: perplexity {treated['baseline']:.2f}")
            row("gradient_aware_pruning", treated)
            refined = measured(treated_case(model, severity, windows, refine=True), corpora)
            row("gradient_aware_pruning, refine", refined, paired(refined["windows"], treated["windows"]))
            for method in PEERS:
                for propagate in (False, True) if method in PROPAGATED else (False,):
                    case = {"model": model, "windows": windows, "method": method, "severity": severity}
                    peer = measured(case | {"propagate": propagate}, corpora)
                    row(
                        method + (", block by block" if propagate else ""),
                        peer,
                        paired(peer["windows"], treated["windows"]),
                    )


def ablation(models: list[str], severities: list[str], windows: int, corpora: Path) -> None:
    for model in models:
        for severity in severities:
            print(f"\n{model} at {severity}")
            first = None
            for name, options in SWITCHES.items():
                found = measured(treated_case(model, severity, windows, **options), corpora)
                row(name, found, first and paired(found["windows"], first["windows"]))
                first = first or found


def window_counts(models: list[str], severities: list[str], corpora: Path) -> None:
    for model in models:
        for severity in severities:
            print(f"\n{model} at {severity}")
            for count in (8, 16, 32, 64) + ((128, 256) if model == "smollm2" else ()):
                row(f"{count} windows", measured(treated_case(model, severity, count), corpora))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pruning", "ablation", "windows", "case"))
    parser.add_argument("--model", choices=("reference", "smollm2"), action="append")
    parser.add_argument("--severity", choices=tuple(SEVERITIES), action="append")
    parser.add_argument("--windows", type=int, default=64, help="of calibration")
    parser.add_argument("--corpora", type=Path, default=CORPORA)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    models, severities = given.model or ["reference", "smollm2"], given.severity or list(SEVERITIES)
    if given.what == "case":
        print(json.dumps(run_case(json.loads(given.case), given.corpora)))
    elif given.what == "pruning":
        pruning(models, severities, given.windows, given.corpora)
    elif given.what == "ablation":
        ablation(models, severities, given.windows, given.corpora)
    else:
        window_counts(models, severities, given.corpora)


if __name__ == "__main__":
    main()
