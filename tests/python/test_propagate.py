"""Calibration block by block from Python: prepare, compress, sweep, scan and the command line."""

import json
import re
import shlex

import pytest
import torch

import hemostat
from hemostat.cli import main

REFERENCE_LENGTH = 128


@pytest.fixture(scope="module")
def subject():
    reference = hemostat.data.reference()
    cut = lambda tokens, count: tokens[:count, :REFERENCE_LENGTH].contiguous()  # noqa: E731
    return reference.model, cut(reference.calibration, 16), cut(reference.evaluation, 8)


def weights(model):
    return torch.cat([weight.flatten() for _, weight in model.linears()])


class TestPrepare:
    def test_it_recovers_what_dense_statistics_lose(self, subject):
        model, calibration, evaluation = subject
        dense = hemostat.prepare(model, "sparsegpt", calibration=calibration).at(0.6)
        aimed = hemostat.prepare(model, "sparsegpt", calibration=calibration, propagate=True, correct=0.5).at(0.6)
        worse, better = (hemostat.compare(model, damaged, evaluation) for damaged in (dense, aimed))
        assert better.delta_nll < worse.delta_nll

    def test_calibration_stands_in_for_statistics(self, subject):
        model, calibration, _ = subject
        statistics = hemostat.collect(model, calibration, needs="wanda")
        given = hemostat.prepare(model, "wanda", statistics).at(0.5)
        assert torch.equal(weights(given), weights(hemostat.prepare(model, "wanda", calibration=calibration).at(0.5)))

    def test_a_propagated_method_takes_no_statistics(self, subject):
        model, calibration, _ = subject
        prepared = hemostat.prepare(model, "wanda", calibration=calibration, propagate=True)
        kept = (weights(prepared.at(0.5)) != 0).float().mean()
        assert kept == pytest.approx(0.5, abs=0.01)
        assert torch.equal(weights(prepared.at(0.0)), weights(model))

    @pytest.mark.parametrize("method", ["gradient:score=taylor", "owl"])
    def test_what_a_pass_cannot_give_is_collected_from_the_unchanged_model(self, subject, method):
        model, calibration, _ = subject
        pruned = hemostat.prepare(model, method, calibration=calibration[:4], propagate=True).at(0.5)
        assert (weights(pruned) != 0).float().mean() == pytest.approx(0.5, abs=0.02)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"propagate": True}, "propagate takes calibration tokens"),
            ({"correct": 0.5, "calibration": "tokens"}, "takes propagate"),
            ({"correct": 2.0, "calibration": "tokens", "propagate": True}, "correct is 2, but takes 0 to 1"),
            (
                {"correct_damp": 0.0, "calibration": "tokens", "propagate": True},
                "correct_damp is 0, but must be positive",
            ),
            ({"correct": float("nan"), "calibration": "tokens", "propagate": True}, "correct is nan"),
        ],
    )
    def test_refusals(self, subject, arguments, message):
        model, calibration, _ = subject
        if "calibration" in arguments:
            arguments = arguments | {"calibration": calibration}
        with pytest.raises(ValueError, match=re.escape(message)):
            hemostat.prepare(model, "wanda", **arguments)

    def test_methods_on_models_are_refused(self, subject):
        model, calibration, _ = subject
        with pytest.raises(ValueError, match="drop_layers changes the model as a whole"):
            hemostat.prepare(model, "drop_layers", calibration=calibration, propagate=True)

    def test_tokens_are_checked_before_any_work(self, subject):
        model, calibration, _ = subject
        with pytest.raises(ValueError, match="the vocabulary takes"):
            hemostat.prepare(model, "wanda", calibration=calibration + 10**6, propagate=True)


class TestCompress:
    def test_a_dict_and_pairs_say_the_same(self, subject):
        model, calibration, _ = subject
        specs = {"wanda": 0.5, "rtn:group_size=32": 4}
        small = hemostat.compress(model, specs, calibration)
        assert torch.equal(weights(small), weights(hemostat.compress(model, list(specs.items()), calibration)))
        assert (weights(small) == 0).float().mean() >= 0.49

    def test_without_propagation_it_is_compose(self, subject):
        model, calibration, _ = subject
        statistics = hemostat.collect(model, calibration, needs=["wanda"])
        composed = hemostat.compose(model, ["wanda", "rtn"], statistics).at(0.4, 4)
        assert torch.equal(
            weights(hemostat.compress(model, {"wanda": 0.4, "rtn": 4}, calibration, propagate=False)), weights(composed)
        )

    def test_the_model_stays_as_it_is(self, subject):
        model, calibration, _ = subject
        before = weights(model).clone()
        hemostat.compress(model, {"sparsegpt": 0.5}, calibration, correct=0.5)
        assert torch.equal(weights(model), before)

    def test_a_method_of_ones_own_stands_between_passes(self, subject):
        model, calibration, _ = subject
        axis = hemostat.Axis(name="factor", unit="", neutral=1.0, maximum=2.0, farthest=2.0, default_grid=[1.5])

        @hemostat.method("double_queries", axis=axis)
        def double_queries(model, statistics):
            def at(severity):
                return model.replace({name: severity * w for name, w in model.linears(include="*q_proj")})

            return at

        small = hemostat.compress(model, [("double_queries", 1.5), ("wanda", 0.5)], calibration)
        first, expected = ("model.layers.0.self_attn.q_proj", model.linears()["model.layers.0.self_attn.q_proj"])
        kept = small.linears()[first]
        torch.testing.assert_close(kept, torch.where(kept != 0, 1.5 * expected, 0.0))

    def test_progress_counts_blocks(self, subject):
        model, calibration, _ = subject
        seen = []
        hemostat.compress(
            model, {"wanda": 0.5}, calibration[:2], progress=lambda done, total: seen.append((done, total))
        )
        blocks = len(model.blocks)
        assert seen == [(block + 1, blocks) for block in range(blocks)]

    @pytest.mark.parametrize(
        ("specs", "message"),
        [
            ({}, "methods is empty"),
            ({"nonsense": 0.5}, "there is no method 'nonsense'"),
            ({"wanda": 1.5}, "1.5"),
            ([("wanda", 0.5, 3)], "pairs of a method and a severity"),
        ],
    )
    def test_refusals(self, subject, specs, message):
        model, calibration, _ = subject
        with pytest.raises(ValueError, match=re.escape(message)):
            hemostat.compress(model, specs, calibration)


def test_sweep(subject):
    model, calibration, evaluation = subject
    curve = hemostat.sweep(
        model, "wanda", evaluation, severities=[0.3, 0.6], calibration=calibration, propagate=True, progress=False
    )
    for severity, damage in zip(curve.severities, curve.damages, strict=True):
        changed = hemostat.prepare(model, "wanda", calibration=calibration, propagate=True).at(severity)
        assert damage.perplexity == pytest.approx(hemostat.compare(model, changed, evaluation).perplexity, rel=1e-5)
    with pytest.raises(ValueError, match="drop_layers changes the whole model"):
        hemostat.sweep(model, "drop_layers", evaluation, calibration=calibration, propagate=True)


class TestScan:
    def test_propagated_trials_are_other_trials(self, subject, tmp_path):
        model, calibration, evaluation = subject
        arguments = {"methods": ["wanda@0.5", "temperature@1.5"], "store": tmp_path / "scan.db", "progress": False}
        dense = hemostat.scan(model, evaluation, calibration, **arguments)
        propagated = hemostat.scan(model, evaluation, calibration, propagate=True, **arguments)
        again = hemostat.scan(model, evaluation, calibration, propagate=True, **arguments)
        by_method = lambda report: {t["method"]: t["damage"]["perplexity"] for t in report.trials}  # noqa: E731
        assert by_method(dense)["wanda"] != by_method(propagated)["wanda"]
        assert by_method(dense)["temperature"] == by_method(propagated)["temperature"]
        assert by_method(again) == by_method(propagated)
        changed = hemostat.prepare(model, "wanda", calibration=calibration, propagate=True).at(0.5)
        expected = hemostat.compare(model, changed, evaluation).perplexity
        assert by_method(propagated)["wanda"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.integration
    def test_the_command_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        words = (
            "scan reference --windows 4 --calibration-windows 4 --methods wanda@0.5 --localize 0 --out run --propagate"
        )
        assert main([*shlex.split(words), "--plan"]) == 0
        assert "memory: about" in capsys.readouterr().out
        assert main(shlex.split(words)) == 0
        report = json.loads((tmp_path / "run" / "report.json").read_text())
        assert report["provenance"]["propagation"] == {"correct": 0.0}
        assert "calibrated block by block" in (tmp_path / "run" / "report.html").read_text()
        capsys.readouterr()
        assert main(shlex.split(words.replace("--propagate", "--resume"))) == 0
        assert "propagate was True and is none" in capsys.readouterr().err

    @pytest.mark.integration
    def test_apply(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        words = "apply reference --method sparsegpt --severity 0.5 --calibration-windows 4 --out small --propagate"
        assert main(shlex.split(words)) == 0
        assert (weights(hemostat.Model.load("small")) == 0).float().mean() == pytest.approx(0.5, abs=0.01)
        assert main(shlex.split("apply reference --method drop_layers --severity 0.25 --out other --propagate")) == 2
        assert "changes the model as a whole" in capsys.readouterr().err


def test_operators_and_methods_share_their_default_group(subject):
    model, calibration, _ = subject
    methods = {method.name: method for method in hemostat.methods()}
    groups = [o.default for name in ("gptq", "awq", "rtn") for o in methods[name].options if o.name == "group_size"]
    assert groups == ["128", "128", "row"]
    narrow = [name for name, weight in model.linears() if weight.shape[1] % 128]
    if narrow:
        with pytest.raises(ValueError, match="group_size = 128 does not divide"):
            hemostat.prepare(model, "gptq", calibration=calibration)
