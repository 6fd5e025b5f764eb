"""The documentation lists what loads: all of it, and nothing else."""

import re
import struct
from pathlib import Path

import pytest

import hemostat

ROOT = Path(__file__).parents[2]


def documented() -> list[tuple[str, str]]:
    """Names of families, each with its model_type, as docs/checkpoints.md has them; a row may have several names."""
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = page.split("\n## Families\n")[1].split("\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [re.fullmatch(r"\| ([^|]+) \| `(\w+)` \| [^|]+ \|", row).groups() for row in table.splitlines()]
    return [(name, model_type) for names, model_type in rows for name in names.split(", ")]


def test_the_table_has_every_family():
    types = [model_type for _, model_type in documented()]
    assert set(types) == set(hemostat.families())
    names = [name for name, _ in documented()]
    assert len(names) == len(set(names))


def test_the_page_has_every_architecture_of_gguf_files(tmp_path):
    page = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = page.split("\n| `general.architecture` | `model_type` |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [re.fullmatch(r"\| `([\w-]+)` \| (.+) \|", row).groups() for row in table.splitlines()]
    key, value = b"general.architecture", b"none of them"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry)
    with pytest.raises(ValueError, match="supported are (.+)") as error:
        hemostat.Model.load(tmp_path / "model.gguf")
    supported = re.search("supported are (.+)", str(error.value))[1].split(", ")
    assert [architecture for architecture, _ in rows] == supported
    types = [name.strip("`") for _, names in rows for name in names.split(", ")]
    assert len(types) == len(set(types))
    assert set(types) | {"ministral", "opt"} == set(hemostat.families())


def test_the_readme_has_every_family():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    listed = re.search(r"It loads \*\*(.+?)\*\* from", readme)
    assert listed, "the README's list of families is not where it was"
    names, types = re.split(r", | and ", listed[1]), dict(documented())
    assert len(names) == len(set(names))
    assert set(names) <= set(types), "docs/checkpoints.md has the names"
    assert {types[name] for name in names} == set(hemostat.families())
