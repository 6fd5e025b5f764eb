"""A checkpoint of exact weights, and how data/former-scan.sql was made of it: a scan's store as it was before trials
were known by what each depends on.

    python tests/python/former_store.py DIRECTORY    # with the hemostat of then; prints the SQL
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import hemostat

SQL = Path(__file__).parent / "data" / "former-scan.sql"
SCAN = ["--calibration-windows", "2", "--windows", "4", "--points", "3", "--localize", "2"]
METHODS = ["--methods", "magnitude,wanda,mine", "--joint", "magnitude,rtn:group_size=16"]
PLUGIN = """\
import hemostat


@hemostat.method("mine", axis=hemostat.Axis(name="x", default_grid=[0.25, 0.5]))
def mine(model, statistics):
    return lambda severity: model.replace({name: weight * (1 - severity) for name, weight in model.linears()})
"""


def checkpoint(directory: Path) -> Path:
    """A LLaMA of 2 blocks whose weights come from integers, so that they are the same on every machine."""
    directory.mkdir()
    vocab, hidden, intermediate, blocks = 256, 16, 32, 2
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": blocks,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    (directory / "config.json").write_text(json.dumps(config))
    made = 0

    def weight(rows: int, columns: int) -> torch.Tensor:
        nonlocal made
        numbers = torch.arange(made, made + rows * columns) * 2654435761 % 2**32
        made += rows * columns
        return ((numbers.double() / 2**32 - 0.5) / 2).float().view(rows, columns)

    tensors = {"model.embed_tokens.weight": weight(vocab, hidden) * 8, "model.norm.weight": torch.ones(hidden)}
    for index in range(blocks):
        block = f"model.layers.{index}"
        tensors |= {f"{block}.{norm}_layernorm.weight": torch.ones(hidden) for norm in ("input", "post_attention")}
        tensors |= {f"{block}.self_attn.{name}_proj.weight": weight(hidden, hidden) for name in "qkvo"}
        tensors |= {f"{block}.mlp.{name}_proj.weight": weight(intermediate, hidden) for name in ("gate", "up")}
        tensors[f"{block}.mlp.down_proj.weight"] = weight(hidden, intermediate)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def text(path: Path) -> Path:
    path.write_text("".join(f"{i} times {i} is {i * i}. " for i in range(40)), encoding="utf-8")
    return path


def plugin(path: Path) -> Path:
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def arguments(directory: Path) -> list[str]:
    """The scan's, of files that lie in the directory."""
    files = ["scan", str(directory / "former"), "--text", str(directory / "former.txt")]
    return [*files, "--plugin", str(directory / "former.py"), *SCAN, *METHODS]


def files(directory: Path) -> Path:
    checkpoint(directory / "former"), text(directory / "former.txt"), plugin(directory / "former.py")
    return directory


def store(path: Path) -> Path:
    """The store as it was then."""
    connection = sqlite3.connect(path)
    connection.executescript(SQL.read_text(encoding="utf-8"))
    connection.close()
    return path


def main(directory: Path) -> None:
    from hemostat.cli import main as command_line

    directory.mkdir()
    out = directory / "run"
    assert command_line([*arguments(files(directory)), "--out", str(out)]) == 0
    connection = sqlite3.connect(out / "scan.db")
    for name in ("application_id", "user_version"):
        print(f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};", file=SQL.open("a"))
    print("\n".join(connection.iterdump()), file=SQL.open("a"))
    print(f"made by {hemostat.__file__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
