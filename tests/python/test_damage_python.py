"""Damage, sweeps, scans and thresholds in Python: values, JSON, callbacks."""

from __future__ import annotations

import inspect
import json
import math
import pickle

import numpy as np
import pytest
import torch

import hemostat
from hemostat import _C


@pytest.fixture(scope="module")
def damage(tiny_model, damaged, tiny_tokens) -> hemostat.Damage:
    return hemostat.compare(tiny_model, damaged, tiny_tokens, byte_count=310)


@pytest.fixture(scope="module")
def curve(tiny_model, tiny_tokens) -> hemostat.SweepCurve:
    return hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[0.2, 0.5, 0.8])


# --- damage ---


def test_damage_dict_has_every_field(damage):
    fields = damage.to_dict()
    listed = {name for name, value in inspect.getmembers(hemostat.Damage) if isinstance(value, property)}
    asked_for = {"generation"}  # where it was measured
    assert fields.keys() == {name for name in listed - asked_for if not name.startswith("window_")}
    assert damage.to_dict(windows=True).keys() == listed - asked_for
    assert fields["kl"].keys() == {
        name for name, value in inspect.getmembers(hemostat.KlSummary) if isinstance(value, property)
    }
    assert fields["delta_nll_interval"] == list(damage.delta_nll_interval)
    json.dumps(damage.to_dict(windows=True), allow_nan=False)


def test_damage_says_what_happened(damage, tiny_tokens):
    assert (damage.windows, damage.tokens) == (10, 310)
    assert damage.perplexity == pytest.approx(math.exp(damage.nll))
    assert damage.delta_nll == pytest.approx(damage.nll - damage.nll_baseline)
    low, high = damage.delta_nll_interval
    assert low <= damage.delta_nll <= high
    assert damage.bits_per_byte == pytest.approx(damage.nll / math.log(2))
    assert damage.kl.mean > 0
    assert 0 <= damage.top1_agreement <= 1
    assert len(damage.kl.by_confidence) == 4
    assert "\n" not in repr(damage)


def test_damage_survives_pickle_and_json(damage):
    assert pickle.loads(pickle.dumps(damage)).to_dict(windows=True) == damage.to_dict(windows=True)
    text = json.dumps(damage.to_dict(windows=True))
    assert hemostat.Damage.from_dict(json.loads(text)).to_dict(windows=True) == damage.to_dict(windows=True)
    with pytest.raises(ValueError, match="nll"):
        hemostat.Damage.from_dict({"windows": 1, "tokens": 2})


LATER = {"acceptance", "acceptance_interval", "top1_agreement_interval", "volume", "direction", "direction_interval"}
LATER |= {"delta_nll_unchanged", "silent", "window_kl", "window_top1_agreement", "window_acceptance"}


@pytest.mark.parametrize("windows", [1, 10])
def test_damage_of_earlier_versions_is_read(damage, tiny_model, damaged, tiny_tokens, windows):
    now = hemostat.compare(tiny_model, damaged, tiny_tokens[:windows])
    stored = {name: value for name, value in now.to_dict(windows=True, finite=False).items() if name not in LATER}
    del stored["kl"]["mean_interval"]
    if windows == 1:
        stored["delta_nll_interval"] = [stored["delta_nll"]] * 2  # one window had an interval without width
    old = hemostat.Damage.from_dict(stored)
    assert old.delta_nll_interval == now.delta_nll_interval and old.silent is now.silent
    assert (old.delta_nll_interval is None) is (windows == 1)
    assert old.volume == now.volume and old.window_nll == now.window_nll
    assert math.isnan(old.acceptance) and old.window_kl == old.window_top1_agreement == old.window_acceptance == []
    for name in LATER - {"volume", "silent", "acceptance"}:
        assert not getattr(old, name), name
    assert old.kl.mean_interval is None
    assert old.to_dict()["acceptance"] is None
    again = pickle.loads(pickle.dumps(old))
    assert again.to_dict(windows=True) == old.to_dict(windows=True)


def test_collapse_is_null_in_json(tiny_model, tiny_tokens):
    name = "model.layers.0.mlp.down_proj"
    collapsed = tiny_model.replace({name: torch.full_like(tiny_model.linears()[name], math.nan)})
    damage = hemostat.compare(tiny_model, collapsed, tiny_tokens)
    assert math.isnan(damage.nll)
    fields = damage.to_dict(windows=True)
    assert fields["nll"] is None
    json.dumps(fields, allow_nan=False)
    assert math.isnan(hemostat.Damage.from_dict(fields).nll)


def test_no_change_is_no_damage(tiny_model, tiny_tokens):
    damage = hemostat.compare(tiny_model, tiny_model, tiny_tokens)
    assert damage.delta_nll == 0 and damage.kl.mean == 0 and damage.top1_agreement == 1
    assert damage.index in (0, None)


def test_baseline_is_evaluated_once_for_many(tiny_model, damaged, damage, tiny_tokens):
    evaluation = hemostat.BaselineEvaluation(tiny_model, tiny_tokens, byte_count=310)
    again = evaluation.compare(damaged)
    assert (again.nll, again.kl.mean) == pytest.approx((damage.nll, damage.kl.mean), rel=1e-6)
    assert again.delta_nll_interval == pytest.approx(damage.delta_nll_interval, rel=1e-5)
    assert evaluation.unchanged().perplexity == pytest.approx(damage.perplexity_baseline)
    assert evaluation.model.config.family == "llama"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"byte_count": 0}, ValueError),
        ({"batch": 0}, ValueError),
        ({"unigram": torch.zeros(3, dtype=torch.int64)}, ValueError),
        ({"absent": 1}, TypeError),
    ],
)
def test_compare_refuses(tiny_model, tiny_tokens, options, error):
    with pytest.raises(error):
        hemostat.compare(tiny_model, tiny_model, tiny_tokens, **options)


def test_divergence_matches_its_formula():
    generator = torch.Generator().manual_seed(0)
    baseline, changed = (torch.randn(7, 11, generator=generator) for _ in range(2))
    targets = torch.randint(0, 11, (7,), generator=generator)
    found = hemostat.metrics.divergence(baseline, changed, targets)
    p, q = baseline.double().log_softmax(-1), changed.double().log_softmax(-1)
    rows = torch.arange(7)
    torch.testing.assert_close(found.nll_baseline.double(), -p[rows, targets], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.nll_damaged.double(), -q[rows, targets], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.kl.double(), (p.exp() * (p - q)).sum(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.kl_reverse.double(), (q.exp() * (q - p)).sum(-1), rtol=1e-5, atol=1e-6)
    assert torch.equal(found.agree, p.argmax(-1) == q.argmax(-1))
    assert torch.equal(found.top1_baseline, p.argmax(-1))


def test_calibration_error_of_a_model_that_is_as_often_right_as_it_says():
    confidence, right = torch.full((10,), 0.7), torch.arange(10) < 7
    assert hemostat.metrics.expected_calibration_error(confidence, right) == pytest.approx(0, abs=1e-6)
    assert hemostat.metrics.expected_calibration_error(confidence, ~right) == pytest.approx(0.4, abs=1e-6)


# --- sweeps and thresholds ---


def test_sweep_goes_from_mild_to_severe(tiny_model, tiny_tokens, curve, damage):
    assert curve.severities == curve.distances == [0.2, 0.5, 0.8]
    assert curve.method == "magnitude" and curve.axis.name == "sparsity"
    assert [found.kl.mean for found in curve.damages] == sorted(found.kl.mean for found in curve.damages)
    assert curve.damages[1].delta_nll == pytest.approx(damage.delta_nll, rel=1e-6)
    assert curve.noise_floor.against == "bfloat16"
    assert len(curve.seconds) == len(curve) == 3
    json.dumps(curve.to_dict(windows=True), allow_nan=False)


def test_sweep_takes_options_statistics_and_the_default_grid(tiny_model, tiny_tokens, statistics):
    rtn = hemostat.sweep(tiny_model, "rtn", tiny_tokens, severities=(4, 2), group_size=8)
    assert rtn.method == "rtn:group_size=8"
    assert rtn.severities == [4, 2] and rtn.distances == [0.75, 0.875]
    wanda = hemostat.sweep(tiny_model, "wanda", tiny_tokens, statistics=statistics)
    assert wanda.severities == hemostat.prepare(tiny_model, "wanda", statistics).axis.default_grid


def test_seed_of_a_sweep_is_the_methods_too(tiny_model, tiny_tokens):
    def nll(method, **options):
        return hemostat.sweep(tiny_model, method, tiny_tokens, severities=[0.5], **options).damages[0].nll

    assert nll("gaussian", seed=3) == nll("gaussian:seed=3") != nll("gaussian")
    assert nll("gaussian:seed=4", seed=3) == nll("gaussian:seed=4")


def test_sweep_calls_back(tiny_model, tiny_tokens):
    trials, progress = [], []
    hemostat.sweep(
        tiny_model,
        "magnitude",
        tiny_tokens,
        severities=[0.2, 0.4],
        on_trial=trials.append,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert [trial.severity for trial in trials] == [0.2, 0.4]
    assert all(trial.method == "magnitude" and trial.seconds > 0 for trial in trials)
    assert progress == [(1, 2), (2, 2)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError("stop")])
def test_what_a_callback_raises_ends_the_work(tiny_model, tiny_tokens, error):
    def stop(*arguments):
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[0.2, 0.4], on_trial=stop)
    for function in (
        lambda: hemostat.compare(tiny_model, tiny_model, tiny_tokens, progress=stop),
        lambda: hemostat.collect(tiny_model, tiny_tokens, progress=stop),
        lambda: hemostat.BaselineEvaluation(tiny_model, tiny_tokens, progress=stop),
    ):
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            function()


def test_progress_is_of_windows(tiny_model, tiny_tokens):
    seen = []
    hemostat.collect(tiny_model, tiny_tokens, batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_bars_are_silent_without_a_terminal(tiny_model, tiny_tokens, capfd):
    hemostat.collect(tiny_model, tiny_tokens)
    assert capfd.readouterr() == ("", "")
    hemostat.collect(tiny_model, tiny_tokens, progress=True)
    assert "collect" in capfd.readouterr().err
    hemostat.collect(tiny_model, tiny_tokens, progress=False)
    assert capfd.readouterr() == ("", "")


def test_raw_scan_resumes(tiny_model, tiny_tokens):
    methods, grids = ["magnitude", "rtn:group_size=8"], {"rtn:group_size=8": [4, 3]}
    trials, stages = [], set()

    def scan(**options):
        return _C.scan(
            tiny_model, tiny_tokens[4:], tiny_tokens[:4], methods, severities=grids, points=2, seed=0, **options
        )

    first = scan(on_trial=trials.append, progress=lambda stage, done, total: stages.add(stage))
    planned = _C.plan(tiny_model, methods, severities=grids, points=2)
    assert [entry.method for entry in planned] == methods
    assert [curve.severities for curve in first.curves] == [entry.severities for entry in planned]
    assert len(trials) == 4
    assert stages
    assert first.baseline.perplexity == first.curves[0].damages[0].perplexity_baseline
    assert first.noise_floor.against == "bfloat16"

    stored = [pickle.loads(pickle.dumps(trial.damage)) for trial in trials]
    known = [
        hemostat.Trial(trial.method, trial.severity, damage, trial.seconds)
        for trial, damage in zip(trials, stored, strict=True)
    ]
    again = []

    def finished(method, severity):
        return next((trial for trial in known[:3] if (trial.method, trial.severity) == (method, severity)), None)

    repeated = scan(known=finished, on_trial=again.append)
    assert [(trial.method, trial.severity) for trial in again] == [(trials[3].method, trials[3].severity)]
    assert [curve.to_dict()["damages"] for curve in repeated.curves] == [
        curve.to_dict()["damages"] for curve in first.curves
    ]


def test_curve_made_from_stored_trials(curve):
    stored = json.loads(json.dumps(curve.to_dict(windows=True)))
    again = hemostat.SweepCurve(
        stored["method"],
        hemostat.Axis(**stored["axis"]),
        stored["severities"],
        [hemostat.Damage.from_dict(fields) for fields in stored["damages"]],
        hemostat.NoiseFloor(**stored["noise_floor"]),
    )
    first, second = hemostat.find_threshold(curve), hemostat.find_threshold(again)
    assert first.to_dict() == second.to_dict()
    assert first.zone_details(0.05).interval == second.zone_details(0.05).interval
    with pytest.raises(ValueError, match="damages"):
        hemostat.SweepCurve("magnitude", curve.axis, [0.1], [], curve.noise_floor)


def test_edge_is_a_number(curve):
    threshold = hemostat.find_threshold(curve)
    tolerance = curve.damages[1].delta_nll
    if tolerance <= 0:
        tolerance = 0.05
    edge = threshold.edge(tolerance)
    assert isinstance(edge, float) and edge + 1 > edge
    details = threshold.zone_details(tolerance)
    assert details.edge == edge and details.tolerance == tolerance
    assert details.edge_censored in (True, False)
    with pytest.raises(ValueError):
        threshold.zone(0)


@pytest.mark.parametrize("convert", [list, tuple, np.array, torch.tensor], ids=["list", "tuple", "numpy", "torch"])
def test_threshold_of_plain_arrays(convert):
    threshold = hemostat.find_threshold(convert([0.1, 0.2, 0.3]), convert([10.0, 11.0, 20.0]), baseline=10.0)
    # ΔNLL: 0, log 1.1, log 2; linear between the points.
    expected = 0.1 + 0.1 * 0.05 / math.log(1.1)
    assert threshold.zone(0.05) == pytest.approx(expected)
    assert threshold.interval is None
    assert threshold.zone_details(0.05).interval is None
    assert threshold.zone_details(10).censored and threshold.zone(10) == pytest.approx(0.3)
    json.dumps(threshold.to_dict(), allow_nan=False)
    assert threshold.to_dict()["zone"].keys() == {"0.02", "0.05", "0.1"}


def test_threshold_of_a_collapse():
    for collapse in (math.nan, math.inf, None):
        threshold = hemostat.find_threshold([8, 4, 2], [10.0, 10.1, collapse], baseline=10.0, neutral=16)
        assert 2 <= threshold.zone(0.05) <= 4


@pytest.mark.parametrize(
    ("severities", "perplexities"), [([0.1], [1.0, 2.0]), ([-0.1, 0.1], [2.0, 3.0]), ([0.1, 0.2], [1.0, -1.0])]
)
def test_threshold_refuses(severities, perplexities):
    with pytest.raises(ValueError):
        hemostat.find_threshold(severities, perplexities, baseline=1.0)
