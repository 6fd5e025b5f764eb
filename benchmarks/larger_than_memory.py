"""A model that is larger than memory: compare pages its weights in, and ends.

python benchmarks/larger_than_memory.py [--directory DIR] [--layers 32] [--length 64] [--share 0.25]

Writes a checkpoint of LLaMA 7B's shape (13.5 GB in bfloat16, one row in sixteen random and the others holes, so that it
takes a sixteenth of that on the disk). Compares it on two windows with itself without one layer, and with two of its
layers' linears rounded to 3 bits, in a process whose memory, pages of files included, a control group limits to a share
of the weights' size. Takes root, and Linux's memory controller.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
PERIOD = 16  # of the rows that are random


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    hidden, wide, vocabulary = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(layers):
        block = f"model.layers.{i}."
        found |= {f"{block}self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        found |= {f"{block}mlp.{name}_proj.weight": (wide, hidden) for name in ("gate", "up")}
        found |= {f"{block}mlp.down_proj.weight": (hidden, wide)}
        found |= {f"{block}{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    return found


def write(directory: Path, layers: int) -> int:
    """Gives the bytes of the weights."""
    (directory / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    header, offset = {}, 0
    for name, shape in shapes(layers).items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    generator = torch.Generator().manual_seed(0)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        begin = file.tell()
        file.truncate(begin + offset)
        for entry in header.values():
            rows, columns = (1, *entry["shape"])[-2:]
            for row in range(0, rows, PERIOD):
                values = torch.ones(columns) if rows == 1 else torch.randn(columns, generator=generator) * 0.02
                file.seek(begin + entry["data_offsets"][0] + 2 * row * columns)
                file.write(values.bfloat16().view(torch.int16).numpy().tobytes())
    return offset


@contextlib.contextmanager
def limited(size: int) -> Iterator[Path]:
    """A control group of so much memory: where a process joins, and the most that was used."""
    root = Path("/sys/fs/cgroup")
    older = root / "memory"
    group = (older if older.is_dir() else root) / f"hemostat-{os.getpid()}"
    group.mkdir()
    try:
        if older.is_dir():
            (group / "memory.limit_in_bytes").write_text(str(size))
            with contextlib.suppress(OSError):  # where swap is counted
                (group / "memory.memsw.limit_in_bytes").write_text(str(size))
        else:
            (group / "memory.max").write_text(str(size))
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        group.rmdir()


def most_used(group: Path) -> int:
    files = (group / "memory.max_usage_in_bytes", group / "memory.peak")
    return int(next(file for file in files if file.exists()).read_text())


def compare(directory: str, length: int) -> None:
    """In the process that is limited."""
    import hemostat

    def resident(field: str) -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

    start = time.perf_counter()
    model = hemostat.Model.load(directory)
    print(f"loaded {model.bytes / 1e9:.2f} GB in {time.perf_counter() - start:.2f} s", flush=True)
    tokens = torch.randint(0, CONFIG["vocab_size"], (2, length), generator=torch.Generator().manual_seed(0))
    rounded = ["model.layers.0.*", "model.layers.1.*"]
    for name, damaged in {
        "without one layer": hemostat.prepare(model, "drop_layers").at(1 / len(model.blocks)),
        "two layers in 3 bits": hemostat.prepare(model, "rtn", include=rounded).at(3),
    }.items():
        start = time.perf_counter()
        damage = hemostat.compare(model, damaged, tokens, progress=False)
        print(
            f"{name}: ΔNLL {damage.delta_nll:+.4f}, {time.perf_counter() - start:.0f} s; resident at its peak "
            f"{resident('VmHWM') / 1e9:.2f} GB, of it not of files {resident('RssAnon') / 1e9:.2f} GB",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--directory", type=Path, help="where the checkpoint goes, and stays [default: a temporary one]"
    )
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--compare", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.compare:
        compare(arguments.compare, arguments.length)
        return
    with tempfile.TemporaryDirectory() as made:
        directory = arguments.directory or Path(made)
        directory.mkdir(parents=True, exist_ok=True)
        size = write(directory, arguments.layers)
        limit = int(size * arguments.share)
        disk = os.stat(directory / "model.safetensors").st_blocks * 512
        print(
            f"{size / 1e9:.2f} GB of weights ({disk / 1e9:.2f} on the disk), {limit / 1e9:.2f} GB of memory", flush=True
        )
        with limited(limit) as group:
            command = [sys.executable, __file__, "--compare", str(directory), "--length", str(arguments.length)]
            process = subprocess.run(command, preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
            print(f"exit status {process.returncode}; the group used {most_used(group) / 1e9:.2f} GB at its peak")
            sys.exit(process.returncode)


if __name__ == "__main__":
    main()
