"""Every family beside transformers: how far logits, cached logits, gradients and saved models differ, and speed.

python benchmarks/families.py [FAMILY …] [--foreign] [--speed] [--runs 5] [--json FILE]

Random weights in float32, made by transformers. The differences are of tiny models, relative to the largest value, one
row for each case of tests/python/families.py of the families asked for (all). With --speed also forward passes over
2,048 tokens of larger models, transformers with its own choice of attention and experts' kernels, in alternation; more
than 1 means that hemostat is faster. Mixtures there have Mixtral's shape with 8 experts and Qwen3-MoE's with 64, at a
fourth of the width. --foreign has in the place of the families the modules of tests/python/foreign_modules.py, of
architectures that hemostat does not know, and a LLaMA, all through Model.from_module.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from timing import medians

import hemostat

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "python"))
from families import CASES, checkpoint  # noqa: E402
from foreign_modules import FOREIGN  # noqa: E402

SIZES = {
    "vocab_size": 8192,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
}
WIDE = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 2}
FAST: dict[str, dict[str, Any]] = {
    "llama": SIZES,
    "qwen3": SIZES,
    "gemma2": SIZES | {"sliding_window": 256},
    "phi3": SIZES,
    "gpt2": {"vocab_size": 8192, "n_embd": 768, "n_layer": 4, "n_head": 12},
    "gpt_neox": {name: size for name, size in SIZES.items() if name not in ("num_key_value_heads", "head_dim")},
    "opt": {
        "vocab_size": 8192,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "max_position_embeddings": 1024,
        "word_embed_proj_dim": 768,
    },
    "mixtral": SIZES | WIDE | {"intermediate_size": 3584, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": SIZES
    | WIDE
    | {"moe_intermediate_size": 384, "num_local_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": True},
    "gpt_oss": SIZES | {"intermediate_size": 768, "num_local_experts": 8, "num_experts_per_tok": 2},
}


TOKENS = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(1))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def gradients(module: Any, logits: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def fidelity(name: str, directory: Path) -> dict[str, Any]:
    module = checkpoint(CASES[name], directory / "theirs")
    model = hemostat.Model.load(directory / "theirs")
    tokens = TOKENS
    with torch.no_grad():
        expected = module(tokens).logits
        cache = hemostat.KvCache(model, 2)
        steps = [model(step, cache=cache) for step in tokens.split([10, *[1] * 6, 8], dim=1)]
        model.save(directory / "ours")
        again = transformers.AutoModelForCausalLM.from_pretrained(directory / "ours", attn_implementation="eager")
        saved = again.eval()(tokens).logits
    theirs = gradients(module, module(tokens).logits, tokens)
    ours = gradients(module, hemostat.Model.from_transformers(module)(tokens), tokens)
    largest = max(gradient.abs().max().item() for gradient in theirs.values())
    return {
        "case": name,
        "logits": difference(model(tokens), expected),
        "cache": difference(torch.cat(steps, 1), expected),
        "gradients": max((ours[key] - theirs[key]).abs().max().item() for key in theirs) / largest,
        "saved": difference(saved, expected),
    }


def foreign_fidelity(name: str, module: Any, directory: Path) -> dict[str, Any]:
    """There is no cache of ours: the column is of what is loaded by its own code again."""
    both = {"decoder_input_ids": TOKENS} if module.config.is_encoder_decoder else {}
    model = hemostat.Model.from_module(module)
    pruned = hemostat.prepare(model, "magnitude").at(0.5)
    with torch.no_grad():
        expected = module(TOKENS, **both).logits
        pruned.save(directory / "ours")
        again = type(module).from_pretrained(directory / "ours").eval()
        damaged = pruned.to_module()(TOKENS, **both).logits
        saved = again(TOKENS, **both).logits
        loaded = hemostat.Model.load(directory / "ours", foreign=True)(TOKENS)
    theirs = gradients(module, module(TOKENS, **both).logits, TOKENS)
    ours = gradients(module, model(TOKENS), TOKENS)
    largest = max(gradient.abs().max().item() for gradient in theirs.values())
    return {
        "case": name,
        "logits": difference(model(TOKENS), expected),
        "loaded": difference(loaded, damaged),
        "gradients": max((ours[key] - theirs[key]).abs().max().item() for key in theirs) / largest,
        "saved": difference(saved, damaged),
    }


def foreign_modules() -> dict[str, Any]:
    torch.manual_seed(0)
    modules = {name: make(transformers).eval() for name, make in FOREIGN.items()}
    config = transformers.LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    return modules | {"llama": transformers.LlamaForCausalLM(config).eval()}


def foreign_speed(runs: int) -> dict[str, Any]:
    """What the way through from_module costs."""
    torch.manual_seed(0)
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**FAST["llama"])).eval()
    model, tokens = hemostat.Model.from_module(module), torch.randint(0, 8192, (4, 512))
    with torch.no_grad():
        seconds = medians({"theirs": lambda: module(tokens).logits, "ours": lambda: model(tokens)}, runs=runs)
    return {"family": "llama, foreign", **seconds, "ratio": seconds["theirs"] / seconds["ours"]}


def speed(name: str, runs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(name, **FAST[name])
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    model = hemostat.Model.from_transformers(module)
    tokens = torch.randint(0, 8192, (4, 512))
    with torch.no_grad():
        seconds = medians({"theirs": lambda: module(tokens).logits, "ours": lambda: model(tokens)}, runs=runs)
    return {"family": name, **seconds, "ratio": seconds["theirs"] / seconds["ours"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="model_type; all unless given")
    parser.add_argument("--foreign", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    chosen = lambda family: not arguments.families or family in arguments.families  # noqa: E731
    rows: list[dict[str, Any]] = []
    heads = ("logits", "loaded" if arguments.foreign else "cache", "gradients", "saved")
    print(f"{'':28}" + "".join(f"{head:>12}" for head in heads))
    modules = foreign_modules() if arguments.foreign else {}
    cases = [] if arguments.foreign else [name for name, case in CASES.items() if chosen(case.model_type)]
    for name in [*filter(chosen, modules), *cases]:
        with tempfile.TemporaryDirectory() as made:
            directory = Path(made)
            row = foreign_fidelity(name, modules[name], directory) if modules else fidelity(name, directory)
        rows.append(row)
        print(f"{name:28}" + "".join(f"{value:12.1e}" for value in list(row.values())[1:]), flush=True)
    if arguments.speed:
        print(f"\n{torch.get_num_threads()} threads{'':19}{'transformers':>14}{'hemostat':>10}{'faster':>9}")
        for name in ["llama, foreign"] if arguments.foreign else filter(chosen, FAST):
            row = foreign_speed(arguments.runs) if arguments.foreign else speed(name, arguments.runs)
            rows.append(row)
            print(f"{name:28}{row['theirs']:13.3f}s{row['ours']:9.3f}s{row['ratio']:8.2f}×", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
