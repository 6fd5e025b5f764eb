"""Heal a language model that was rounded to a few bits, by training it through the rounding.

    python examples/training_script/recover.py                       # the reference model at 3 bits, a minute on a CPU
    python examples/training_script/recover.py path/to/checkpoint --train train.txt --text held_out.txt

Each step rounds the weights in the forward pass and lets the gradient pass straight through the rounding to the weights
behind it. The loss is the divergence from the unrounded model, so no labels are needed. The text that judges is never
trained on.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch

import hemostat
from hemostat.quantize import fake_quantize


def main(arguments: list[str] | None = None) -> dict[str, hemostat.Damage]:
    options = parsed(arguments)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    model, train, held_out = subject(options)
    rounding = {"bits": options.bits, "group_size": options.group_size}

    def rounded(weights: dict[str, torch.Tensor]) -> hemostat.Model:
        return model.replace({name: fake_quantize(weight, **rounding) for name, weight in weights.items()})

    weights = {name: weight.clone().requires_grad_() for name, weight in model.linears()}
    with torch.no_grad():
        before = hemostat.compare(model, rounded(weights), held_out)
    print(f"rounded to {options.bits:g} bits in groups of {options.group_size}: {words(before)}", flush=True)

    optimizer = torch.optim.Adam(weights.values(), lr=options.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, options.steps))
    started = time.monotonic()
    for step in range(options.steps):
        batch = train[torch.randint(len(train), (options.batch,))]
        with torch.no_grad():
            wanted = model(batch).log_softmax(-1)
        given = rounded(weights)(batch).log_softmax(-1)
        loss = torch.nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 10 == 9 or step == options.steps - 1:
            print(f"step {step + 1:3}: KL on the training text {loss.item():.4f} nats", flush=True)

    with torch.no_grad():
        recovered = rounded(weights)
        after = hemostat.compare(model, recovered, held_out)
    print(f"trained {options.steps} steps in {time.monotonic() - started:.0f} s: {words(after)}")
    print(f"recovered {1 - after.delta_nll / before.delta_nll:.0%} of the damage (ΔNLL)")

    recovered.save(options.out / "model")
    print(
        f"\nhemostat compare {options.checkpoint} {options.out / 'model'} --text {options.text} --dtype float32"
        + (f" --windows {options.windows}" if options.windows else "")
    )
    return {"before": before, "after": after}


def subject(options: argparse.Namespace) -> tuple[hemostat.Model, torch.Tensor, torch.Tensor]:
    """The unrounded model, the windows to train on, and those to judge by."""
    if options.checkpoint == "reference":
        reference = hemostat.data.reference()
        model, train = reference.model, reference.calibration
    else:
        model, train = hemostat.Model.load(options.checkpoint, dtype=torch.float32), None
    if options.train is not None:
        train = hemostat.data.tokens(model, options.train)
    if train is None:
        raise SystemExit("recover.py: --train is missing: the text to train on")
    if options.text is None:  # Python's own documentation, which the reference model has never seen
        options.text = options.out / "held_out.txt"
        options.text.write_text("\n\n".join(topics[name] for name in sorted(topics)), encoding="utf-8")
    return model, train, hemostat.data.tokens(model, options.text, windows=options.windows)


def warm_cosine(step: int, steps: int) -> float:
    """The share of the learning rate: up in a tenth of the steps, then down to a tenth along a cosine."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.55 + 0.45 * math.cos(math.pi * (step - warm) / max(1, steps - warm))


def words(damage: hemostat.Damage) -> str:
    bounds = damage.delta_nll_interval  # None of one window
    within = f" ({bounds[0]:+.4f} … {bounds[1]:+.4f})" if bounds else ""
    return (
        f"perplexity {damage.perplexity_baseline:.2f} → {damage.perplexity:.2f}, "
        f"ΔNLL {damage.delta_nll:+.4f}{within}, KL {damage.kl.mean:.4f}"
    )


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkpoint", nargs="?", default="reference", help="a Hugging Face directory, or reference")
    parser.add_argument("--train", type=Path, help="text to train on [default: the reference model's calibration]")
    parser.add_argument("--text", type=Path, help="text to judge by [default: Python's documentation]")
    parser.add_argument("--windows", type=int, default=64, help="of that text at most [default: 64]")
    parser.add_argument("--bits", type=float, default=3)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4, help="windows a step")
    parser.add_argument("--rate", type=float, default=6e-4, help="learning rate at its highest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("recovered"), help="where the model goes [default: recovered]")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
