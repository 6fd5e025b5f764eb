"""The row Fisher beside a forward and a backward pass of the same windows.

python benchmarks/row_fisher.py [--model smollm2|reference] [--windows 4] [--runs 5] [--json FILE]

The limit is what transformers and autograd take for the same numbers and no more: the loss of the text, its gradient
with respect to hidden states alone, and hooks that add up the squared gradients of each linear's output. Beside it
stand the same without hooks, a training step's (gradients of the weights too), and ours, with labels of the text and
with labels drawn from the model. float32, windows of 512 tokens, one at a time.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from timing import medians, show
from transformers import AutoModelForCausalLM

import hemostat


class Peer:
    """transformers' model and autograd's pass."""

    def __init__(self, model: hemostat.Model) -> None:
        with tempfile.TemporaryDirectory() as directory:
            model.save(directory)
            self.module = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.sums: dict[str, torch.Tensor] = {}

    def backward(self, windows: torch.Tensor) -> None:
        embed = self.module.get_input_embeddings()
        for window in windows.split(1):
            states = embed(window).detach().requires_grad_()
            logits = self.module(inputs_embeds=states, use_cache=False).logits[0, :-1]
            torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").backward()
            self.module.zero_grad()

    def row_fisher(self, windows: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
        self.sums = {name: torch.zeros(self.module.get_submodule(name).out_features) for name in names}

        def watch(name: str):
            def add(gradient: torch.Tensor) -> None:
                self.sums[name] += gradient[0].square().sum(0)

            return lambda module, inputs, output: output.register_hook(add) and None

        hooks = [self.module.get_submodule(name).register_forward_hook(watch(name)) for name in names]
        self.backward(windows)
        for hook in hooks:
            hook.remove()
        return {name: total / (windows.numel() - len(windows)) for name, total in self.sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", "reference"], default="smollm2")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    subject = getattr(hemostat.data, arguments.model)()
    model, windows = subject.model, subject.calibration[: arguments.windows]
    names = list(model.linears().names)
    peer = Peer(model)

    def frozen(trains: bool, work):
        def run() -> None:
            peer.module.requires_grad_(trains)
            work()

        return run

    def ours(labels: str):
        return hemostat.collect(model, windows, ["row_fisher"], labels=labels, progress=False)

    collected, expected = ours("text"), peer.row_fisher(windows, names)
    worst = max(((collected.gradients[name].row_fisher - f).norm() / f.norm()).item() for name, f in expected.items())
    limit = "transformers: forward, backward to hidden states, hooks"
    seconds = medians(
        {
            limit: frozen(False, lambda: peer.row_fisher(windows, names)),
            "transformers: forward, backward to hidden states": frozen(False, lambda: peer.backward(windows)),
            "transformers: forward, backward to weights": frozen(True, lambda: peer.backward(windows)),
            "hemostat.collect: row_fisher, the text's labels": lambda: ours("text"),
            "hemostat.collect: row_fisher, labels drawn": lambda: ours("model"),
        },
        runs=arguments.runs,
    )
    rows = [{"what": name, "seconds": value, "ratio": value / seconds[limit]} for name, value in seconds.items()]
    show(rows, windows, arguments.json)
    print(f"largest relative difference of a linear's row Fisher from autograd's: {worst:.1e}")


if __name__ == "__main__":
    main()
