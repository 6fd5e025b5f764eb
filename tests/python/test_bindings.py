"""Methods, statistics and the package itself, as Python sees them."""

from __future__ import annotations

import doctest
import inspect
import pickle
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch

import hemostat
from hemostat import _C

ROOMS = ["ablate", "context", "decode", "extend", "lowrank", "metrics", "noise", "normalize", "prune", "quantize"]
ROOMS.append("structured")


@pytest.fixture(scope="module")
def curve(tiny_model, tiny_tokens) -> hemostat.SweepCurve:
    return hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[0.2, 0.5, 0.8])


# --- methods, statistics ---


def test_methods_are_listed():
    methods = {method.name: method for method in hemostat.methods()}
    assert {"magnitude", "wanda", "rtn", "svd", "drop_layers"} <= methods.keys()
    wanda = methods["wanda"]
    assert wanda.kind and wanda.description
    assert wanda.needs == {"column_norm"}
    assert wanda.axis.name == "sparsity"
    options = {option.name: option for option in methods["rtn"].options}
    assert options["symmetric"].default is False
    assert options["group_size"].description


def test_axis_measures_distance():
    axis = hemostat.Axis(name="bits", unit="bits", neutral=16, minimum=2, maximum=16, default_grid=[2, 8, 4])
    assert axis.farthest == 2 and axis.direction == -1
    assert axis.default_grid == [8, 4, 2]
    assert axis.distance(16) == 0 and axis.distance(2) == 1
    assert axis.severity_at(axis.distance(8)) == pytest.approx(8)
    assert (axis.kind, axis.measured_by, axis.continuous_at_neutral) == ("continuous", "teacher_forcing", True)
    assert pickle.loads(pickle.dumps(axis)) == axis
    assert axis != hemostat.Axis(name="bits")
    assert hemostat.Axis(name="s").direction == 1


def test_every_axis_is_made_again_from_its_fields(trained):
    ours = [method.name for method in hemostat.methods() if method.kind != "user"]
    planned = _C.plan(trained.model, [f"{name}:group_size=64" if name in ("gptq", "awq") else name for name in ours])
    for axis in [entry.axis for entry in planned]:
        again = hemostat.Axis(**axis.to_dict())
        assert again == axis == pickle.loads(pickle.dumps(axis))
        assert again.to_dict() == axis.to_dict()
    steps = {entry.method: entry.axis.step for entry in planned}
    assert steps["drop_layers"] == 1 / len(trained.model.blocks) and steps["magnitude"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name is empty"),
        ({"minimum": 1, "maximum": 1}, "minimum"),
        ({"farthest": 0.0}, "farthest"),
        ({"farthest": float("inf")}, "farthest"),
        ({"step": -0.1}, "step"),
        ({"kind": "listed"}, "listed"),
        ({"kind": "other"}, "kind is 'other'"),
        ({"measured_by": "eye"}, "measured_by"),
        ({"default_grid": [0.0, 0.5]}, "neutral"),
        ({"default_grid": [1.5]}, "1.5"),
        ({"kind": "integer", "maximum": 4, "default_grid": [1.5]}, "1.5"),
    ],
)
def test_axis_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        hemostat.Axis(**{"name": "s", **options})


def test_options_in_the_spec_and_as_keywords_are_the_same(tiny_model, tiny_tokens):
    keywords = hemostat.prepare(tiny_model, "rtn", group_size=8, symmetric=True).at(3)
    spec = hemostat.prepare(tiny_model, "rtn:group_size=8,symmetric=true").at(3)
    assert torch.equal(keywords.forward(tiny_tokens), spec.forward(tiny_tokens))
    assert hemostat.MethodSpec("rtn", symmetric=True, group_size=8).text() == "rtn:group_size=8,symmetric=true"


@pytest.mark.parametrize("group_size", [None, -1, "row"])
def test_group_size_of_a_row(tiny_model, group_size):
    assert hemostat.MethodSpec("rtn", group_size=group_size).text() == "rtn"


@pytest.mark.parametrize("value", [8, np.int64(8), torch.tensor(8), np.uint8(8)])
def test_options_take_integers_of_any_kind(value):
    assert hemostat.MethodSpec("rtn", group_size=value).text() == "rtn:group_size=8"


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_option_values_keep_their_kind(value):
    assert hemostat.OptionSpec("x", value).default == 0.5
    assert isinstance(hemostat.OptionSpec("x", value).default, float)


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("absent", {}, ValueError, "absent"),
        ("rtn", {"absent": 1}, ValueError, "absent"),
        ("rtn", {"symmetric": "perhaps"}, TypeError, "symmetric"),
        ("rtn", {"symmetric": object()}, TypeError, "symmetric"),
        ("rtn:symmetric=true", {"symmetric": True}, TypeError, "twice"),
        ("rtn", {"group_size": 7}, ValueError, "7"),
        ("wanda", {}, ValueError, "statistics"),
    ],
)
def test_prepare_refuses(tiny_model, method, options, error, message):
    with pytest.raises(error, match=message):
        hemostat.prepare(tiny_model, method, **options)


def test_prepared_applies_at_any_severity(tiny_model, tiny_tokens, statistics):
    prepared = hemostat.prepare(tiny_model, "wanda", statistics)
    assert prepared.axis.name == "sparsity"
    assert torch.equal(prepared.at(0).forward(tiny_tokens), tiny_model.forward(tiny_tokens))
    for severity in (0.25, 0.5):
        weight = prepared.at(severity).linears()["model.layers.0.mlp.down_proj"]
        assert (weight == 0).float().mean().item() == severity
    with pytest.raises(ValueError, match=r"1\.5"):
        prepared.at(1.5)


def test_collect_gathers_what_is_asked_for(tiny_model, tiny_tokens, statistics):
    assert statistics.needs == {"column_norm", "absmax", "absmean", "mean", "gram", "tokens"}
    assert hemostat.collect(tiny_model, tiny_tokens, "wanda").needs == {"column_norm"}
    assert hemostat.collect(tiny_model, tiny_tokens, ["absmax", "wanda"]).needs == {"absmax", "column_norm"}
    assert hemostat.collect(tiny_model, tiny_tokens, needs={"rtn:group_size=8", "gram"}).needs == {"gram"}
    with pytest.raises(ValueError, match="absent"):
        hemostat.collect(tiny_model, tiny_tokens, ["absent"])


def test_statistics_are_a_mapping(tiny_model, tiny_tokens, statistics):
    name = "model.layers.1.mlp.down_proj"
    assert len(statistics) == 28
    assert list(statistics) == statistics.keys() == sorted(tiny_model.linears().names)
    assert name in statistics and "lm_head" not in statistics
    with pytest.raises(KeyError, match="lm_head"):
        statistics["lm_head"]
    assert dict(statistics.items())[name].count == tiny_tokens.numel()
    assert len(statistics.values()) == 28

    inputs = []

    class Taps(hemostat.Observer):
        def linear_input(self, block, names, x):
            if name in names:
                inputs.append(x.flatten(0, -2).double())

    tiny_model.forward(tiny_tokens, observer=Taps())
    (x,) = inputs
    entry = statistics[name]
    assert entry.in_features == 48
    torch.testing.assert_close(entry.norm.double(), x.square().mean(0).sqrt(), rtol=1e-5, atol=0)
    torch.testing.assert_close(entry.absmax.double(), x.abs().amax(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(entry.absmean.double(), x.abs().mean(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(entry.gram.double(), x.T @ x / len(x), rtol=1e-3, atol=1e-5)


def test_statistics_merge(tiny_model, tiny_tokens, statistics):
    first, second = (hemostat.collect(tiny_model, part) for part in tiny_tokens.split([4, 6]))
    assert first.merge(second) is first
    name = "model.layers.3.mlp.up_proj"
    assert first[name].count == statistics[name].count
    torch.testing.assert_close(first[name].norm, statistics[name].norm)
    with pytest.raises(ValueError):
        first.merge(hemostat.collect(tiny_model, tiny_tokens, include="*.mlp.*"))


def test_statistics_that_were_not_collected(tiny_model, tiny_tokens):
    entry = hemostat.collect(tiny_model, tiny_tokens, "absmax")["model.layers.0.mlp.up_proj"]
    with pytest.raises(ValueError, match="gram"):
        _ = entry.gram


# --- the package ---


def public_objects():
    for name in hemostat.__all__:
        yield f"hemostat.{name}", getattr(hemostat, name)
    for room in [*ROOMS, "data", "huggingface"]:
        module = getattr(hemostat, room)
        for name in module.__all__:
            yield f"hemostat.{room}.{name}", getattr(module, name)


@pytest.mark.parametrize(
    ("name", "value"), list(public_objects()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_public_name_is_documented(name, value):
    assert inspect.getdoc(value), name
    if inspect.isclass(value) and not issubclass(value, BaseException):
        for member, attribute in vars(value).items():
            if not member.startswith("_") and (callable(attribute) or isinstance(attribute, property)):
                assert inspect.getdoc(getattr(value, member)), f"{name}.{member}"


def test_functions_are_no_modules():
    for name in ("methods", "scan", "generate", "compare"):
        assert not inspect.ismodule(getattr(hemostat, name, None))
        with pytest.raises(ImportError):
            __import__(f"hemostat.{name}")


def test_examples_run(tiny_model, tiny_tokens, statistics, curve):
    names = {
        "hemostat": hemostat,
        "model": tiny_model,
        "tokens": tiny_tokens,
        "calibration": tiny_tokens[:4],
        "evaluation": tiny_tokens[4:],
        "statistics": statistics,
        "pruned": hemostat.prepare(tiny_model, "magnitude").at(0.3),
        "curve": curve,
    }
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    ours = [value for name, value in public_objects() if name.count(".") == 1 and not inspect.ismodule(value)]
    members = [getattr(hemostat.Model, name) for name in vars(hemostat.Model) if not name.startswith("_")]
    examples = 0
    for value in [*ours, *members]:
        for test in finder.find(value, getattr(value, "__name__", "member"), module=False, globs=dict(names)):
            examples += len(test.examples)
            runner.run(test)
    assert examples >= 15
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.integration
def test_import_is_light():
    heavy = ["transformers", "pandas", "vl_convert", "huggingface_hub", "matplotlib", "scipy"]
    script = f"import sys, hemostat; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    alone = subprocess.run(
        [sys.executable, "-c", script.replace(", hemostat", ", torch")], capture_output=True, text=True, check=True
    )
    assert found.stdout == alone.stdout  # nothing but what torch itself imports


def test_gil_is_released_while_computing(tiny_model, tiny_tokens, damaged):
    """Another thread gets on while the library computes, though Python itself would not switch."""
    turns, stop = [0], threading.Event()

    def count():
        while not stop.is_set():
            turns[0] += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=count)
    work = {
        "forward": lambda: tiny_model.forward(tiny_tokens),
        "compare": lambda: _C.compare(tiny_model, damaged, tiny_tokens),
        "collect": lambda: _C.collect(tiny_model, tiny_tokens),
        "prepare": lambda: hemostat.prepare(tiny_model, "svd"),
    }
    thread.start()
    try:
        sys.setswitchinterval(1000)
        for name, function in work.items():
            for _ in range(1000):
                before = turns[0]
                function()
                if turns[0] > before:
                    break
            else:
                pytest.fail(f"{name} never let another thread run")
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


@pytest.mark.integration
def test_no_warnings_at_import():
    with warnings.catch_warnings():
        script = [sys.executable, "-W", "error", "-c", "import torch, hemostat"]
        found = subprocess.run(script, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
