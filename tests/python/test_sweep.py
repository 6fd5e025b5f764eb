"""hemostat.sweep: one preparation, then each severity as compare would have it."""

import math
import re

import pytest
import torch

import hemostat
from hemostat import _C


@pytest.fixture(scope="module")
def tokens(trained):
    return trained.tokens[:6]


def test_gives_what_compare_gives(trained, tokens):
    curve = hemostat.sweep(trained.model, "rtn", tokens, severities=[2, 8, 4], group_size=64)
    assert curve.severities == [8, 4, 2]
    assert curve.method == "rtn:group_size=64"
    prepared = hemostat.prepare(trained.model, "rtn", group_size=64)
    for severity, damage in zip(curve.severities, curve.damages, strict=True):
        alone = hemostat.compare(trained.model, prepared.at(severity), tokens)
        found, expected = damage.to_dict(windows=True), alone.to_dict(windows=True)
        del found["within_noise_floor"], expected["within_noise_floor"]
        assert found == expected


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("magnitude", {}),
        ("magnitude", {"scope": "row"}),
        ("wanda", {}),
        ("wanda", {"m": 4}),
        ("ria", {}),
        ("ria", {"m": 4, "permute": True}),
        ("gradient", {}),
        ("gradient", {"score": "taylor"}),
        ("gradient", {"score": "fisher", "m": 4}),
        ("admm", {}),
        ("dsnot", {}),
        ("owl", {}),
        ("awq", {"group_size": 64}),
        ("gptq", {"group_size": 64}),
        ("sparsegpt", {}),
        ("rtn", {"group_size": 64}),
        ("gguf", {}),
        ("gguf", {"family": "legacy"}),
        ("gaussian", {}),
        ("svd", {}),
        ("asvd", {}),
        ("svd_llm", {}),
        ("activation", {}),
        ("activation_noise", {}),
        ("bit_flip", {"bits": 4}),
        ("bit_flip", {"bit": 22}),
        ("stuck_at", {"bits": 4}),
        ("drop_layers", {}),
        ("duplicate_layers", {}),
        ("drop_norms", {}),
        ("token_noise", {}),
        ("token_noise", {"kind": "drop"}),
        ("token_noise", {"kind": "swap"}),
        ("temperature", {}),
        ("temperature", {"side": "down"}),
    ],
)
def test_damage_begins_at_nothing_and_grows(trained, tokens, method, options):
    statistics = hemostat.collect(trained.model, tokens, hemostat.MethodSpec(method, **options).text())
    axis = hemostat.prepare(trained.model, method, statistics, **options).axis
    severities = [axis.neutral, axis.default_grid[0], axis.default_grid[-1]]
    curve = hemostat.sweep(trained.model, method, tokens, statistics=statistics, severities=severities, **options)
    assert curve.severities == severities
    unchanged, mild, severe = curve.damages
    assert unchanged.delta_nll == unchanged.kl.mean == unchanged.kl.max == 0
    assert unchanged.top1_agreement == 1
    assert unchanged.within_noise_floor
    assert mild.kl.mean > 0
    assert severe.kl.mean > mild.kl.mean
    assert severe.delta_nll > 0


OURS = [method.name for method in hemostat.methods() if method.kind != "user"]


GROUPED = ("gptq", "awq")  # in groups of 128, as their authors have them


@pytest.mark.parametrize("name", OURS)
def test_every_method_fits_a_model_as_it_comes(trained, name):
    if name in GROUPED:
        refusal = "group_size = 128 does not divide the 192 input features of .*; 64 divides those of every layer"
        with pytest.raises(ValueError, match=refusal):
            _C.plan(trained.model, [name])
        name = f"{name}:group_size=64"
    (planned,) = _C.plan(trained.model, [name])
    assert planned.severities == planned.axis.default_grid


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rtn:group_size=100", "group_size = 100 does not divide the 192 input features"),
        ("gptq:group_size=100", "group_size = 100 does not divide"),
        ("gptq:group_size=tensor", "group_size must be row or a positive integer"),
        ("awq:group_size=100", "group_size = 100 does not divide"),
        ("nf4:block_size=100", "block_size = 100 does not divide"),
        ("ternary:group_size=100", "group_size = 100 does not divide"),
        ("wanda:m=5", "m = 5 does not divide"),
        ("wanda:permute=true", "permute regroups the columns of n:m pruning, so it needs m"),
        ("sparsegpt:bits=9", "bits is 9, but must be 0 or from 2 to 8"),
        ("sparsegpt:group_size=64", "bits is not given"),
        ("sparsegpt:bits=4,group_size=100", "group_size = 100 does not divide"),
        ("admm:iterations=-1", "iterations is -1"),
        ("dsnot:max_cycles=-1", "max_cycles is -1"),
        ("owl:inner=wanda:include=*", "include and exclude are owl's own options"),
        ("owl:inner=rtn", "must be one that removes single weights"),
    ],
)
def test_options_that_do_not_fit_are_seen_before_any_work(trained, tokens, spec, message):
    def fail(*_):
        raise AssertionError("work was done")

    for refused in (
        lambda: _C.plan(trained.model, ["magnitude", spec]),
        lambda: hemostat.scan(trained.model, tokens, tokens, methods=["magnitude", spec]),
        lambda: hemostat.surface(trained.model, ("magnitude", spec), tokens, on_trial=fail),
        lambda: hemostat.compose(trained.model, ["magnitude", spec]),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            refused()


def test_insert_identity_preserves_the_function(trained, tokens):
    curve = hemostat.sweep(trained.model, "insert_identity", tokens)
    for damage in curve.damages:
        assert damage.delta_nll == damage.kl.max == 0
        assert damage.within_noise_floor


def test_noise_floor_is_the_model_against_itself_in_bfloat16(trained, tokens):
    floor = hemostat.sweep(trained.model, "gaussian", tokens, severities=[0.1]).noise_floor
    damage = hemostat.compare(trained.model, trained.model.to(torch.bfloat16), tokens)
    assert floor.against == "bfloat16"
    assert floor.kl == damage.kl.mean
    assert floor.delta_nll == max(abs(x) for x in (damage.delta_nll, *damage.delta_nll_interval))
    assert floor.top1_agreement == damage.top1_agreement


def test_noise_floor_of_one_window_is_the_difference_itself(trained, tokens):
    curve = hemostat.sweep(trained.model, "gaussian", tokens[:1], severities=[0.1])
    damage = hemostat.compare(trained.model, trained.model.to(torch.bfloat16), tokens[:1])
    assert curve.noise_floor.delta_nll == abs(damage.delta_nll) > 0
    assert curve.damages[0].delta_nll_interval is None and curve.damages[0].silent is None


def test_marks_what_lies_within_the_noise_floor(trained, tokens):
    curve = hemostat.sweep(trained.model, "gaussian", tokens, severities=[1e-6, 0.5])
    assert [damage.within_noise_floor for damage in curve.damages] == [True, False]
    assert curve.damages[0].kl.mean > 0


def test_takes_the_default_grid(tiny_model, tiny_tokens):
    curve = hemostat.sweep(tiny_model, "gaussian", tiny_tokens)
    assert curve.severities == curve.axis.default_grid
    assert [axis_distance for axis_distance in curve.distances] == sorted(curve.distances)


def test_calls_back_after_each_trial_and_stops_where_that_raises(tiny_model, tiny_tokens):
    seen = []

    def stop_at_two(trial):
        seen.append((trial.method, trial.severity, trial.damage.kl.mean > 0))
        if len(seen) == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        hemostat.sweep(tiny_model, "gaussian", tiny_tokens, severities=[0.3, 0.1, 0.2], on_trial=stop_at_two)
    assert seen == [("gaussian", 0.1, True), ("gaussian", 0.2, True)]


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("no_such_method", {}, "no_such_method"),
        ("magnitude", {"severities": [0.1, 1.5]}, "sparsity"),
        ("magnitude", {"severities": [math.nan]}, "sparsity"),
        ("magnitude", {"severities": []}, "no severities"),
        ("magnitude", {"no_such_option": 1}, "no_such_option"),
        ("wanda", {}, "needs statistics"),
    ],
)
def test_refuses_before_any_work(tiny_model, tiny_tokens, method, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        hemostat.sweep(tiny_model, method, tiny_tokens, on_trial=lambda _: pytest.fail("worked"), **arguments)


def test_refuses_statistics_that_lack_what_is_needed(tiny_model, tiny_tokens):
    statistics = hemostat.collect(tiny_model, tiny_tokens, needs=["absmax"])
    with pytest.raises(ValueError, match="column_norm"):
        hemostat.sweep(tiny_model, "wanda", tiny_tokens, statistics=statistics)
