"""What the README shows works as it stands there."""

import re
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

import hemostat
from hemostat.cli import main

pytestmark = pytest.mark.integration

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return [body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if name == language]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory where the README's files are: a trained checkpoint and two texts."""
    text = topics["specialnames"]
    (tmp_path / "calibration.txt").write_text(text[:8_000], encoding="utf-8")
    for name in ("evaluation.txt", "eval.txt"):
        (tmp_path / name).write_text(text[8_000:16_000], encoding="utf-8")
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "checkpoint").symlink_to(hemostat.data.reference_directory())
    (tmp_path / "examples").symlink_to(Path(__file__).parents[2] / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(workplace, capsys):
    whole, operators, own = blocks("python")
    scope = {}
    exec(whole, scope)
    damage = scope["damage"]
    assert capsys.readouterr().out.split()[:2] == [str(damage.perplexity), str(damage.kl.mean)]
    assert damage.delta_nll > 0
    assert hemostat.Model.load("pruned").config.family == "llama"

    tensors = {"hemostat": hemostat, "weight": torch.randn(8, 256), "activation_norm": torch.rand(256)}
    exec(operators, tensors)
    assert tensors["mask"].float().mean() == 0.5

    exec(own, {"hemostat": hemostat})
    curve = hemostat.sweep(scope["model"], "zero_small", scope["evaluation"])
    assert curve.severities == [0.1, 0.3, 1]
    assert curve.damages[-1].delta_nll > curve.damages[0].delta_nll


def test_commands(workplace):
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("hemostat")]
    words = [command.split()[1] for command in commands]
    assert words == ["scan", "localize", "compare", "report", "apply", "treat", "methods", "scan"]
    scan, localize, compare, report, apply, treat, methods, plugin = (command.split()[1:] for command in commands)
    assert main([*scan, "--windows", "2", "--points", "2"]) == 0
    assert (workplace / "scan" / "report.html").exists()
    assert main([*scan[:-1], "other-scan", "--windows", "2", "--points", "1"]) == 0
    assert main(report) == 0
    assert (workplace / "scan" / "comparison.html").exists()
    assert main([*localize, "--windows", "2"]) == 0
    assert main([*apply, "--calibration-windows", "4"]) == 0
    assert main([*treat, "--windows", "2"]) == 0
    assert hemostat.Model.load("treated").config.family == "llama"
    (workplace / "path" / "to" / "changed").symlink_to(workplace / "pruned")
    assert main(compare) == 0
    assert main(methods) == 0
    # The last one sweeps a larger model.
    replaced = ["path/to/checkpoint" if word == "smollm2" else word for word in plugin]
    assert main([*replaced, "--text", "eval.txt", "--points", "2"]) == 0
