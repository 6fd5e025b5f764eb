"""SparseGPT, Wanda, GPTQ and AWQ on SmolLM2-135M-Instruct beside llm-compressor, with the same calibration tokens.

python benchmarks/llm_compressor.py EVALUATION CALIBRATION [--python PYTHON] [--methods wanda …] [--json FILE]

Each runs in a process of its own, whose peak memory and wall time (calibration included, loading not) are taken. The
perplexity of both is measured by hemostat, on windows of 512 tokens of wikitext2-test without BOS, in float32.
llm-compressor passes what the treated blocks give on to the next ones; hemostat's statistics are the dense model's.
PYTHON has llmcompressor installed (which pins its own torch); hemostat must be importable there too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import hemostat

METHODS = {
    "wanda": ("wanda", 0.5),
    "wanda 2:4": ("wanda:m=4", 2),
    "sparsegpt": ("sparsegpt", 0.5),
    "sparsegpt 2:4": ("sparsegpt:m=4", 2),
    "gptq": ("gptq:group_size=64", 4),
    "awq": ("awq:group_size=64", 4),
}
LENGTH = 512


def ours(name: str, model: hemostat.Model, calibration: torch.Tensor) -> hemostat.Model:
    spec, severity = METHODS[name]
    statistics = hemostat.collect(model, calibration, needs=spec)
    return hemostat.prepare(model, spec, statistics).at(severity)


def recipe(name: str):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    pattern = "2:4" if name.endswith("2:4") else "0:0"
    groups = QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(num_bits=4, type="int", symmetric=False, strategy="group", group_size=64),
    )
    if name.startswith("wanda"):
        return WandaPruningModifier(sparsity=0.5, mask_structure=pattern, ignore=["lm_head"])
    if name.startswith("sparsegpt"):
        return SparseGPTModifier(sparsity=0.5, mask_structure=pattern, ignore=["lm_head"])
    if name == "gptq":
        return GPTQModifier(config_groups={"all": groups}, ignore=["lm_head"])
    return [AWQModifier(), QuantizationModifier(config_groups={"all": groups}, ignore=["lm_head"])]


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def theirs(name: str, source: Path, calibration: torch.Tensor, out: Path) -> tuple[float, int]:
    """Writes their model as a plain checkpoint; the seconds and the memory that treating it took."""
    from compressed_tensors.quantization.lifecycle.forward import forward_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    rows = calibration.tolist()
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    begin = time.perf_counter()
    oneshot(
        model=model,
        dataset=data,
        recipe=recipe(name),
        max_seq_length=LENGTH,
        num_calibration_samples=len(rows),
    )
    with torch.no_grad():
        for module in model.modules():  # a quantized layer's weight is rounded when it runs
            if getattr(module, "quantization_scheme", None) is not None:
                arguments = module.quantization_scheme.weights
                module.weight.copy_(forward_quantize(module, module.weight, "weight", arguments))
    seconds, peak = time.perf_counter() - begin, peak_bytes()
    plain = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    treated = model.state_dict()
    plain.load_state_dict({name: treated[name] for name in plain.state_dict()})
    plain.save_pretrained(out)
    return seconds, peak


def work(side: str, name: str, evaluation: torch.Tensor, calibration: torch.Tensor) -> dict:
    model = hemostat.data.smollm2(dtype=torch.float32).model
    with tempfile.TemporaryDirectory() as directory:
        if side == "hemostat":
            begin = time.perf_counter()
            damaged = ours(name, model, calibration)
            seconds, peak = time.perf_counter() - begin, peak_bytes()
        else:
            seconds, peak = theirs(name, Path(model.source), calibration, Path(directory))
            damaged = hemostat.Model.load(directory, dtype=torch.float32)
        perplexity = hemostat.compare(model, damaged, evaluation).perplexity
    return {"side": side, "method": name, "perplexity": perplexity, "seconds": seconds, "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluation", type=Path, help="wikitext2-test")
    parser.add_argument("calibration", type=Path, help="wikitext2-valid")
    parser.add_argument("--python", default=sys.executable, help="has llmcompressor and hemostat")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--calibration-windows", type=int, default=64)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("SIDE", "METHOD"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        model = hemostat.data.smollm2(dtype=torch.float32).model
        tokens = [
            hemostat.data.tokens(model, path, bos=False) for path in (arguments.evaluation, arguments.calibration)
        ]
        result = work(*arguments.worker, tokens[0][: arguments.windows], tokens[1][: arguments.calibration_windows])
        print(json.dumps(result))
        return
    rows = []
    print(f"{'':16}{'':18}{'perplexity':>11}{'seconds':>9}{'peak, GiB':>11}")
    for name in arguments.methods:
        for side, python in (("hemostat", sys.executable), ("llm-compressor", arguments.python)):
            command = [python, __file__, arguments.evaluation, arguments.calibration, "--worker", side, name]
            command += ["--windows", str(arguments.windows)]
            command += ["--calibration-windows", str(arguments.calibration_windows)]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                print(f"{name:16}{side:18} failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            rows.append(row)
            print(
                f"{name:16}{side:18}{row['perplexity']:11.2f}{row['seconds']:9.1f}{row['peak_bytes'] / 2**30:11.2f}",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
