"""The training script recovers damage on text that it has not trained on, and what it saves is what it measured."""

import importlib.util
import json
from pathlib import Path

import pytest

from hemostat.cli import main

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[2] / "examples" / "training_script" / "recover.py"


@pytest.fixture(scope="module")
def recover():
    spec = importlib.util.spec_from_file_location("recover", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_recovers_most_of_the_damage(recover, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    damage = recover.main(["--windows", "16"])
    before, after = damage["before"], damage["after"]
    assert before.delta_nll_interval[0] > 0.1  # there is something to recover
    assert after.delta_nll_interval[1] < before.delta_nll_interval[0]
    assert 1 - after.delta_nll / before.delta_nll > 0.5
    assert after.kl.mean < 0.5 * before.kl.mean

    command = capsys.readouterr().out.strip().splitlines()[-1]
    assert main([*command.split()[1:], "--json"]) == 0
    confirmed = json.loads(capsys.readouterr().out)
    assert confirmed["delta_nll"] == pytest.approx(after.delta_nll, abs=1e-5)


def test_another_checkpoint_needs_text(recover, shared, tmp_path):
    with pytest.raises(SystemExit, match="--train is missing"):
        recover.main([str(shared / "weights" / "stories260K"), "--out", str(tmp_path)])
