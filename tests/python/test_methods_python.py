"""A method of one's own: registered from Python, then treated as one of ours."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import Annotated, Literal

import pytest
import torch

import hemostat
from hemostat import _C

SHRINK = hemostat.Axis(name="shrink", unit="fraction", default_grid=[0.1, 0.2, 0.4])


def shrink(
    model,
    statistics,
    *,
    power: Annotated[float, "exponent, above 0"] = 1,
    layers: str = "*.mlp.*",
    how: Literal["scale", "zero"] = "scale",
    flag: bool = False,
    times: int = 1,
    blocks: list[int] = [0, 1],  # noqa: B006  it is never changed
):
    """Weights come closer to zero.

    More words.
    """
    assert statistics is None or isinstance(statistics, hemostat.Statistics)

    def at(severity):
        assert isinstance(severity, float)
        factor = (1 - severity) ** (power * times) if how == "scale" else 0.0
        return model.replace({name: weight * factor for name, weight in model.linears(include=layers)})

    return at


@pytest.fixture(autouse=True, scope="module")
def registered():
    hemostat.method("shrink", axis=SHRINK)(shrink)


def find(name: str) -> hemostat.Method:
    return next(method for method in hemostat.methods() if method.name == name)


def test_options_come_from_the_signature():
    method = find("shrink")
    assert method.kind == "user"
    assert method.description == "Weights come closer to zero."
    assert method.axis == SHRINK
    assert method.needs == set()
    options = {option.name: option for option in method.options}
    assert {name: option.default for name, option in options.items()} == {
        "power": 1.0,
        "layers": "*.mlp.*",
        "how": "scale",
        "flag": False,
        "times": 1,
        "blocks": [0, 1],
    }
    assert isinstance(options["power"].default, float)
    assert options["power"].description == "exponent, above 0"
    assert options["how"].choices == ["scale", "zero"]


def test_decorator_gives_the_function_back():
    assert hemostat.method("shrink", axis=SHRINK)(shrink) is shrink


def test_it_works_like_ours(tiny_model, tiny_tokens):
    prepared = hemostat.prepare(tiny_model, "shrink", power=2.0)
    name = "model.layers.0.mlp.up_proj"
    changed = prepared.at(0.5)
    torch.testing.assert_close(changed.linears()[name], tiny_model.linears()[name] * 0.25)
    assert changed.blocks[0].attention.q.weight.data_ptr() == tiny_model.blocks[0].attention.q.weight.data_ptr()
    assert torch.equal(prepared.at(0).forward(tiny_tokens), tiny_model.forward(tiny_tokens))
    with pytest.raises(ValueError, match="shrink"):
        prepared.at(1.5)
    same = hemostat.prepare(tiny_model, "shrink:power=2,how=scale").at(0.5)
    assert torch.equal(same.linears()[name], changed.linears()[name])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"absent": 1}, ValueError),
        ({"how": "other"}, ValueError),
        ({"flag": "yes"}, TypeError),
        ({"times": 1.5}, TypeError),
    ],
)
def test_its_options_are_checked(tiny_model, options, error):
    with pytest.raises(error, match=next(iter(options))):
        hemostat.prepare(tiny_model, "shrink", **options)


def test_sweep_and_scan(tiny_model, tiny_tokens):
    curve = hemostat.sweep(tiny_model, "shrink", tiny_tokens, power=2.0)
    assert curve.method == "shrink:power=2"
    assert curve.severities == [0.1, 0.2, 0.4]
    alone = hemostat.compare(tiny_model, hemostat.prepare(tiny_model, "shrink", power=2.0).at(0.4), tiny_tokens)
    assert curve.damages[2].nll == pytest.approx(alone.nll, rel=1e-6)
    result = _C.scan(tiny_model, tiny_tokens[4:], tiny_tokens[:4], ["shrink", "magnitude"], points=2)
    assert [curve.method for curve in result.curves] == ["shrink", "magnitude"]


def test_statistics_it_needs(tiny_model, tiny_tokens):
    seen = []

    @hemostat.method("needy", axis=SHRINK, needs=("column_norm", "absmax"), kind="weights", description="Needs.")
    def needy(model, statistics):
        seen.append(statistics)
        return lambda severity: model

    assert find("needy").needs == {"column_norm", "absmax"}
    assert (find("needy").kind, find("needy").description) == ("weights", "Needs.")
    with pytest.raises(ValueError, match="statistics"):
        hemostat.prepare(tiny_model, "needy")
    statistics = hemostat.collect(tiny_model, tiny_tokens, "needy")
    assert statistics.needs == {"column_norm", "absmax"}
    hemostat.prepare(tiny_model, "needy", statistics).at(0.5)
    del statistics
    assert len(seen[0]) == 28  # what the function keeps stays valid
    assert seen[0]["model.layers.0.mlp.up_proj"].norm.shape == (32,)


def test_integer_axis_gives_int(tiny_model):
    seen = []

    @hemostat.method("steps", axis=hemostat.Axis(name="steps", kind="integer", maximum=4, default_grid=[1, 2]))
    def steps(model, statistics):
        return lambda severity: seen.append(severity) or model

    hemostat.prepare(tiny_model, "steps").at(2.0)
    assert seen == [2] and isinstance(seen[0], int)
    with pytest.raises(ValueError):
        hemostat.prepare(tiny_model, "steps").at(2.5)


def test_axis_that_depends_on_the_model(tiny_model):
    def axis_for(model, *, share=1.0):
        return hemostat.Axis(name="layers", kind="integer", maximum=int(len(model.blocks) * share), default_grid=[1])

    @hemostat.method("cut", axis=hemostat.Axis(name="layers", kind="integer", maximum=100), axis_for=axis_for)
    def cut(model, statistics, *, share: float = 1.0):
        return lambda severity: hemostat.ablate.drop_layers(model, count=severity)

    assert hemostat.prepare(tiny_model, "cut").axis.maximum == 4
    assert hemostat.prepare(tiny_model, "cut", share=0.5).axis.maximum == 2
    assert _C.plan(tiny_model, ["cut"])[0].severities == [1]


def test_exceptions_keep_their_type(tiny_model, tiny_tokens):
    class Mine(Exception):
        pass

    @hemostat.method("fails", axis=SHRINK)
    def fails(model, statistics, *, early: bool = False):
        if early:
            raise Mine("early")

        def at(severity):
            raise Mine("late")

        return at

    with pytest.raises(Mine, match="early"):
        hemostat.prepare(tiny_model, "fails", early=True)
    with pytest.raises(Mine, match="late"):
        hemostat.prepare(tiny_model, "fails").at(0.5)
    with pytest.raises(Mine, match="late"):
        hemostat.sweep(tiny_model, "fails", tiny_tokens)


def test_what_it_returns_is_checked(tiny_model):
    @hemostat.method("wrong", axis=SHRINK)
    def wrong(model, statistics, *, callable_: bool = True):
        return (lambda severity: 3) if callable_ else 3

    with pytest.raises(TypeError, match="'wrong'.*int.*function of severity"):
        hemostat.prepare(tiny_model, "wrong", callable_=False)
    with pytest.raises(TypeError, match="'wrong'.*int.*hemostat.Model"):
        hemostat.prepare(tiny_model, "wrong").at(0.5)


def test_a_users_method_is_replaced_and_ours_is_not(tiny_model):
    hemostat.method("twice", axis=SHRINK)(lambda model, statistics: lambda severity: model)
    earlier = hemostat.prepare(tiny_model, "twice")
    hemostat.method("twice", axis=SHRINK, description="second")(lambda model, statistics: lambda severity: model)
    assert [method.description for method in hemostat.methods() if method.name == "twice"] == ["second"]
    assert len(earlier.at(0.5).blocks) == 4
    with pytest.raises(ValueError, match="wanda"):
        hemostat.method("wanda", axis=SHRINK)(lambda model, statistics: lambda severity: model)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "model, statistics"),
        (lambda model: None, "model, statistics"),
        (lambda *everything: None, "model, statistics"),
        (lambda model, statistics, power: None, "power needs a default"),
        (lambda model, statistics, *, power: None, "power needs a default"),
        (lambda model, statistics, **options: None, "options hides"),
        (lambda model, statistics, *, power=None: None, "power"),
        (lambda model, statistics, *, power={1}: None, "power"),
    ],
)
def test_functions_of_another_shape_are_refused(function, message):
    with pytest.raises(TypeError, match=message):
        hemostat.method("shape", axis=SHRINK)(function)
    assert "shape" not in [method.name for method in hemostat.methods()]


@pytest.mark.parametrize("name", ["", "a:b", "a,b", "a b"])
def test_names_that_a_spec_could_not_hold_are_refused(name):
    with pytest.raises(ValueError):
        hemostat.method(name, axis=SHRINK)(shrink)


def test_unknown_statistics_are_refused():
    with pytest.raises(ValueError, match="absent"):
        hemostat.method("unknown", axis=SHRINK, needs="absent")(shrink)


@pytest.mark.integration
def test_the_interpreter_ends_well(tiny_checkpoint):
    script = f"""
        import hemostat

        @hemostat.method("mine", axis=hemostat.Axis(name="x", default_grid=[0.5]))
        def mine(model, statistics):
            return lambda severity: model

        model = hemostat.Model.load({str(tiny_checkpoint)!r})
        prepared = hemostat.prepare(model, "mine")
        prepared.at(0.5)
        kept = hemostat.methods()
        raise SystemExit(0)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
