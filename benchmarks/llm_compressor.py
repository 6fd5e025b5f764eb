"""SparseGPT, Wanda, GPTQ and AWQ on SmolLM2-135M-Instruct beside llm-compressor, with the same calibration tokens.

python benchmarks/llm_compressor.py EVALUATION CALIBRATION --python PYTHON [--methods wanda …] [--json FILE]

PYTHON is an interpreter of an environment with llmcompressor, the versions of torch and transformers that it pins, and
datasets; hemostat need not be there. Each side runs in a process of its own, whose peak memory and wall time
(calibration included, loading not) are taken. The perplexity of both is measured by hemostat, on windows of 512 tokens
of wikitext2-test without BOS, in float32. Both calibrate on what the blocks that are treated already give;
hemostat also on the unchanged model (dense).
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

METHODS = {
    "wanda": ("wanda", 0.5),
    "wanda 2:4": ("wanda:m=4", 2),
    "sparsegpt": ("sparsegpt", 0.5),
    "sparsegpt 2:4": ("sparsegpt:m=4", 2),
    "gptq": ("gptq:act_order=true,group_size=64,static_groups=true", 4),  # as llm-compressor unless told otherwise
    "awq": ("awq:group_size=64", 4),
}
LENGTH = 512


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ours(name: str, source: Path, calibration: torch.Tensor, out: Path, propagate: bool) -> tuple[float, int]:
    """Writes the treated model; the seconds and the memory that treating it took."""
    import hemostat

    model = hemostat.Model.load(source, dtype=torch.float32)
    spec, severity = METHODS[name]
    begin = time.perf_counter()
    damaged = hemostat.compress(model, {spec: severity}, calibration, propagate=propagate, progress=False)
    seconds, peak = time.perf_counter() - begin, peak_bytes()
    damaged.save(out)
    return seconds, peak


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
        return WandaPruningModifier(sparsity=0.5, mask_structure=pattern, ignore=["re:.*lm_head"])
    if name.startswith("sparsegpt"):
        return SparseGPTModifier(sparsity=0.5, mask_structure=pattern, ignore=["re:.*lm_head"])
    if name == "gptq":
        return GPTQModifier(config_groups={"all": groups}, ignore=["re:.*lm_head"])
    return [AWQModifier(), QuantizationModifier(config_groups={"all": groups}, ignore=["re:.*lm_head"])]


def theirs(name: str, source: Path, calibration: torch.Tensor, out: Path) -> tuple[float, int]:
    """The same by llm-compressor, its model as a plain checkpoint."""
    from compressed_tensors.quantization.lifecycle.forward import forward_quantize
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():  # its AWQ pins what it keeps, for copies to a GPU
        torch.Tensor.pin_memory = lambda self: self
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


def main() -> None:
    import smollm2_text
    from kept_rows import KeptRows

    import hemostat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    smollm2_text.add_arguments(parser)
    parser.add_argument("--python", required=True, help="has llmcompressor")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    rows = KeptRows(arguments)
    sides = {"hemostat": sys.executable, "hemostat, dense": sys.executable, "llm-compressor": arguments.python}
    cases = [(name, side) for name in arguments.methods for side in sides if not rows.has(case=name, side=side)]
    if not cases:
        return
    model, tokens, calibration = smollm2_text.subject(arguments)
    baseline = hemostat.BaselineEvaluation(model, tokens)
    print(f"{torch.get_num_threads()} threads, {len(tokens)} windows, {len(calibration)} for calibration")
    print(f"{'':16}{'':18}{'perplexity':>11}{'seconds':>9}{'peak, GiB':>11}")
    for name, side in cases:
        spec, severity = METHODS[name]
        with tempfile.TemporaryDirectory() as directory:
            given, out = Path(directory) / "calibration.pt", Path(directory) / "treated"
            torch.save(calibration, given)
            command = [sides[side], __file__, "worker", side, name, model.source, given, out]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
            if done.returncode:
                print(f"{name:16}{side:18} failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            row = {"case": name, "side": side, "method": spec, "severity": severity}
            row |= json.loads(done.stdout.strip().splitlines()[-1])
            row["perplexity"] = baseline.compare(hemostat.Model.load(out, dtype=torch.float32)).perplexity
        rows.add(row)
        print(
            f"{name:16}{side:18}{row['perplexity']:11.2f}{row['seconds']:9.1f}{row['peak_bytes'] / 2**30:11.2f}",
            flush=True,
        )


def worker(side: str, name: str, source: str, calibration: str, out: str) -> None:
    """One side and method, in a process of its own; prints what it took."""
    given = (name, Path(source), torch.load(calibration), Path(out))
    seconds, peak = theirs(*given) if side == "llm-compressor" else ours(*given, propagate=side == "hemostat")
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
