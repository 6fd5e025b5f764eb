"""The memory that a scan's plan states is what its run takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import save_llama

import hemostat

# What is stated beside the model's weights is at least and at most so many times what is measured.
LEAST, MOST = 0.8, 1.4

METHODS = [method.name for method in hemostat.methods() if method.kind != "user"]
FEWER_ITERATIONS = {"admm": "admm:iterations=4", "gradient_aware": "gradient_aware:iterations=4"}  # each holds the same

VARIANTS = {
    "factors of Gram matrices, block by block": {"method": "gptq", "propagate": True},
    "column norms, block by block": {"method": "wanda", "propagate": True},
    "low-rank factors, block by block": {"method": "svd_llm", "propagate": True},
    "corrected, block by block": {"method": "gptq", "propagate": True, "correct": 0.5},
    "many windows, block by block": {"method": "wanda", "propagate": True, "calibration_windows": 32},
    "many logits": {"method": "magnitude", "windows": 32},
    "logits beyond the budget": {"method": "magnitude", "windows": 32, "memory_budget": 8e6},
    "Gram matrices beyond the budget": {"method": "gptq", "memory_budget": 16e6},
    "gradients beyond the budget": {"method": "gradient", "memory_budget": 24e6},
}


def can_forget_peaks() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_forget_peaks(), reason="/proc/self/clear_refs can't be written")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """By method or variant: bytes stated, and those at the peak beside the model's weights."""
    directory = tmp_path_factory.mktemp("checkpoints")
    save_llama(directory, vocab=4096, hidden=384, intermediate=1024, blocks=6, heads=6, kv_heads=6, context=128)
    scans = {name: {"method": FEWER_ITERATIONS.get(name, name)} for name in METHODS} | VARIANTS
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("peak_memory.py")), str(directory)],
        input=json.dumps(list(scans.values())),
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(zip(scans, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("scan", [*METHODS, *VARIANTS])
def test_a_scan_takes_what_its_plan_states(measured, scan):
    stated, peak = measured[scan]["stated"], measured[scan]["peak"]
    # Pages of temporary files are resident as long as nothing else needs the memory: all of them, or none.
    least, most = (stated["beside_weights"] + files for files in (0, stated["mapped"]))
    assert LEAST <= most / peak and least / peak <= MOST, f"{least:.4g} … {most:.4g} of {peak:.4g} bytes: {stated}"


def test_the_budget_bounds(measured):
    within, beyond = measured["many logits"]["stated"], measured["logits beyond the budget"]["stated"]
    assert within["keeps_logits"] and not beyond["keeps_logits"]
    assert beyond["baseline"] < within["baseline"] / 4
    for name in ("Gram matrices beyond the budget", "gradients beyond the budget"):
        stated = measured[name]["stated"]
        assert stated["mapped"] > 0
        assert stated["baseline"] + sum(stated["statistics"].values()) <= VARIANTS[name]["memory_budget"]
