"""Writing text side by side with transformers, and beside the time that reading the weights once a token takes.

python benchmarks/generate.py [--new-tokens 32] [--batches 1,16] [--runs 3] [--json FILE]

The model is SmolLM2-135M-Instruct in float32, on prompts of 32 tokens; nothing stops at an end of text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from timing import medians
from transformers import AutoModelForCausalLM

import hemostat

PROMPT_LENGTH = 32


def read_weights(model: hemostat.Model) -> Callable[[], None]:
    """Reads what one step reads: every linear's weight and the head's, once."""
    weights = [weight for _, weight in model.linears()] + [model.head.linear.weight]

    def read() -> None:
        for weight in weights:
            weight.sum()

    return read


def rows_of(model: hemostat.Model, theirs: torch.nn.Module, prompts: torch.Tensor, new_tokens: int, runs: int) -> list:
    batch = len(prompts)
    listed = prompts.tolist()
    mask = torch.ones_like(prompts)

    def ours(decoder: hemostat.Decoder) -> Callable[[], object]:
        return lambda: hemostat.generate(
            model, listed, decoder, max_new_tokens=new_tokens, eos_token_id=None, batch=batch
        )

    @torch.no_grad()
    def of_transformers(**options) -> None:
        theirs.generate(
            prompts, attention_mask=mask, max_new_tokens=new_tokens, eos_token_id=None, pad_token_id=0, **options
        )

    @torch.no_grad()
    def prefill() -> None:
        model.forward(prompts)

    seconds = medians(
        {
            "limit: the prompt's pass, then every weight read once a token": prefill,
            "read": read_weights(model),
            "transformers greedy": lambda: of_transformers(do_sample=False),
            "hemostat greedy": ours(hemostat.Decoder(do_sample=False)),
            "transformers sampled": lambda: of_transformers(do_sample=True, top_k=0),
            "hemostat sampled": ours(hemostat.Decoder()),
        },
        runs=runs,
    )
    read = seconds.pop("read")
    limit = next(iter(seconds))
    seconds[limit] += read * (new_tokens - 1)
    return [
        {
            "what": name,
            "batch": batch,
            "seconds": value,
            "tokens_per_second": batch * new_tokens / value,
            "ratio_to_limit": value / seconds[limit],
            "ratio_to_transformers": value / seconds["transformers " + name.split()[-1]]
            if "hemostat" in name
            else None,
        }
        for name, value in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    text = hemostat.data.smollm2()
    theirs = AutoModelForCausalLM.from_pretrained(text.model.source, dtype=torch.float32).eval()
    rows = []
    for batch in map(int, arguments.batches.split(",")):
        prompts = text.evaluation[:batch, :PROMPT_LENGTH]
        rows += rows_of(text.model, theirs, prompts, arguments.new_tokens, arguments.runs)
    print(
        f"{torch.get_num_threads()} threads, prompts of {PROMPT_LENGTH} tokens, {arguments.new_tokens} new ones, "
        f"torch {torch.__version__}"
    )
    print(f"{'':64}{'batch':>6}{'seconds':>10}{'tokens/s':>10}{'limit':>8}{'theirs':>8}")
    for row in rows:
        theirs_ratio = f"{row['ratio_to_transformers']:8.2f}" if row["ratio_to_transformers"] else ""
        print(
            f"{row['what']:64}{row['batch']:6}{row['seconds']:10.3f}{row['tokens_per_second']:10.1f}"
            f"{row['ratio_to_limit']:8.2f}{theirs_ratio}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
