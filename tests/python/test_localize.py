"""hemostat.localize: each part damaged alone, as compare would have it with that part replaced."""

import json
import math
import pickle
import re

import pytest
import torch

import hemostat
from hemostat import _C
from hemostat.cli import main

KEYS = ["method", "options", "severity", "windows", "delta_nll", "kl", "additivity", "additivity_kl", "sites"]
SITE_KEYS = ["name", "block", "linear", "delta_nll", "delta_nll_interval", "kl", "error", "cascade_gain"]


class Stream(hemostat.Observer):
    def __init__(self):
        super().__init__()
        self.states = []

    def hidden_state(self, index, x):
        self.states.append(x.double())


def stream(model, tokens):
    observer = Stream()
    model(tokens, observer=observer)
    return observer.states


def relative_error(damaged, baseline):
    return ((damaged - baseline).norm() / baseline.norm()).item()


@pytest.fixture(scope="module")
def tokens(stories):
    return stories.tokens[:3]


@pytest.fixture(scope="module")
def found(stories, tokens):
    return hemostat.localize(stories.model, "rtn", tokens, severity=3, group_size=4)


def test_a_block_alone_is_the_model_with_that_block_replaced(stories, tokens, found):
    model, damaged = stories.model, hemostat.prepare(stories.model, "rtn", group_size=4).at(3)
    assert found.method == "rtn:group_size=4"
    assert [site.block for site in found] == list(range(5))
    assert [site.linear for site in found] == [None] * 5
    baseline = stream(model, tokens)
    for site in found:
        alone = model.replace(dict(damaged.linears(include=f"{site.name}.*")))
        expected = hemostat.compare(model, alone, tokens)
        assert expected.kl.mean > 0
        assert site.damage.delta_nll == pytest.approx(expected.delta_nll, abs=1e-7)
        assert site.damage.delta_nll_interval == pytest.approx(expected.delta_nll_interval, abs=1e-7)
        assert site.damage.kl.mean == pytest.approx(expected.kl.mean, abs=1e-7)
        assert site.damage.top1_agreement == expected.top1_agreement
        states = stream(alone, tokens)
        error = relative_error(states[site.block + 1], baseline[site.block + 1])
        assert site.error == pytest.approx(error, rel=1e-5)
        assert site.cascade_gain == pytest.approx(relative_error(states[-1], baseline[-1]) / error, rel=1e-5)

    whole = hemostat.compare(model, damaged, tokens)
    assert found.whole.delta_nll == pytest.approx(whole.delta_nll, abs=1e-7)
    assert found.additivity == pytest.approx(sum(site.delta_nll for site in found) / whole.delta_nll, rel=1e-5)
    assert found.additivity_kl == pytest.approx(sum(site.kl for site in found) / whole.kl.mean, rel=1e-5)
    assert 0.3 < found.additivity_kl < 3  # parts of a trained model do about what the whole does


def test_layer_error_is_that_of_the_whole_models_residual_stream(stories, tokens, found):
    baseline = stream(stories.model, tokens)
    states = stream(hemostat.prepare(stories.model, "rtn", group_size=4).at(3), tokens)
    errors = [relative_error(damaged, clean) for damaged, clean in zip(states, baseline, strict=True)]
    assert found.layer_error[0] == errors[0] == 0
    assert found.layer_error == pytest.approx(errors, rel=1e-5)
    assert math.isnan(found.cascade_gain[0])
    gains = [after / before for before, after in zip(errors[1:], errors[2:], strict=False)]
    assert found.cascade_gain[1:] == pytest.approx(gains, rel=1e-5)


def test_a_linear_alone_is_the_model_with_that_linear_replaced(stories, tokens):
    model, damaged = stories.model, hemostat.prepare(stories.model, "magnitude").at(0.5)
    found = hemostat.localize(model, "magnitude", tokens[:2], severity=0.5, linears=True, control=False)
    assert [site.name for site in found] == damaged.linears().names
    for site in found.worst(3) + found[:4]:
        assert site.name == f"model.layers.{site.block}.{site.linear}"
        expected = hemostat.compare(model, model.replace({site.name: damaged.linears()[site.name]}), tokens[:2])
        assert site.delta_nll == pytest.approx(expected.delta_nll, abs=1e-7)
        assert site.kl == pytest.approx(expected.kl.mean, abs=1e-7)
        assert site.control is site.noise_delta_nll is site.noise_kl is None


def test_two_models_are_localized_too(stories, tokens, found):
    damaged = hemostat.prepare(stories.model, "rtn", group_size=4).at(3)
    given = hemostat.localize(stories.model, damaged, tokens)
    assert [site.delta_nll for site in given] == [site.delta_nll for site in found]
    assert given.method == ""
    assert math.isnan(given.severity)
    assert given.to_dict()["severity"] is None
    for arguments in ({"severity": 3}, {"group_size": 4}):
        with pytest.raises(TypeError, match="takes no severity"):
            hemostat.localize(stories.model, damaged, tokens, **arguments)


class TestControl:
    def test_has_the_norm_of_each_change(self, stories):
        model, damaged = stories.model, hemostat.prepare(stories.model, "magnitude").at(0.5)
        control = _C.isotropic_control(model, damaged, seed=1)
        for (name, clean), (_, changed), (_, noisy) in zip(
            model.linears(), damaged.linears(), control.linears(), strict=True
        ):
            noise, change = (noisy - clean).flatten(), (changed - clean).flatten()
            assert noise.norm().item() == pytest.approx(change.norm().item(), rel=1e-5), name
            assert abs(torch.cosine_similarity(noise, change, dim=0)) < 0.1
        assert torch.equal(control.head.linear.weight, model.head.linear.weight)

    def test_is_what_stands_beside_a_site(self, stories, tokens):
        model, damaged = stories.model, hemostat.prepare(stories.model, "magnitude").at(0.5)
        found = hemostat.localize(model, "magnitude", tokens, severity=0.5, seed=1)
        control = _C.isotropic_control(model, damaged, seed=1)
        for site in found:
            alone = model.replace(dict(control.linears(include=f"{site.name}.*")))
            expected = hemostat.compare(model, alone, tokens)
            assert site.noise_delta_nll == pytest.approx(expected.delta_nll, abs=1e-7)
            assert site.noise_kl == site.control.kl.mean == pytest.approx(expected.kl.mean, abs=1e-7)

    def test_is_none_where_no_weight_changed(self, stories, tokens):
        for site in hemostat.localize(stories.model, "activation", tokens[:1], severity=4):
            assert site.kl > 0
            assert site.control is None


def test_neutral_does_nothing_exactly(stories, tokens):
    found = hemostat.localize(stories.model, "rtn", tokens, severity=16)
    assert found.whole.delta_nll == found.whole.kl.max == 0
    assert len(found) == 5
    for site in found:
        assert site.delta_nll == site.damage.kl.max == site.error == 0
        assert site.cascade_gain is site.control is None
    assert found.layer_error == [0] * 6
    assert found.additivity is found.additivity_kl is None


def test_a_changed_head_and_final_norm_are_sites(stories, tokens):
    model = stories.model
    found = hemostat.localize(model, "rtn", tokens[:2], severity=3, include=["lm_head", "*.0.*"])
    assert [site.name for site in found] == [*(f"model.layers.{i}" for i in range(5)), "lm_head"]
    head = found[-1]
    assert head.block is head.linear is head.error is None
    changed = hemostat.prepare(model, "rtn", include="lm_head").at(3)
    assert head.kl == pytest.approx(hemostat.compare(model, changed, tokens[:2]).kl.mean, abs=1e-7)
    assert found.whole.kl.mean > found[0].kl > 0
    assert found[1].kl == 0

    norms = hemostat.localize(model, "drop_norms", tokens[:1], severity=1 / 11)
    assert norms[-1].name == "model.norm"
    assert norms[-1].kl == pytest.approx(norms.whole.kl.mean, abs=1e-7)
    assert norms.additivity_kl == pytest.approx(1)


def test_is_a_sequence_of_sites(found):
    assert len(found) == len(found.sites) == 5
    assert [site.name for site in found] == [site.name for site in found.sites]
    assert found[-1].name == "model.layers.4"
    assert [site.name for site in found[1:3]] == ["model.layers.1", "model.layers.2"]
    with pytest.raises(IndexError):
        found[5]
    worst = found.worst(2)
    assert [site.delta_nll for site in worst] == sorted((site.delta_nll for site in found), reverse=True)[:2]
    assert len(found.worst(100)) == 5


def test_to_dict_is_json(found):
    document = found.to_dict()
    assert document == json.loads(json.dumps(document, allow_nan=False))
    assert list(document) == [*KEYS, "layer_error", "cascade_gain"]
    assert document["method"] == "rtn"
    assert document["options"] == {"group_size": 4}
    assert document["severity"] == 3
    assert document["windows"] == 3
    assert document["delta_nll"] == found.whole.delta_nll
    assert document["cascade_gain"] == [None, *found.cascade_gain[1:]]
    for entry, site in zip(document["sites"], found, strict=True):
        assert list(entry) == [*SITE_KEYS, "noise_delta_nll", "noise_kl"]
        assert entry["delta_nll_interval"] == list(site.damage.delta_nll_interval)
        assert entry["kl"] == site.kl
        assert entry["noise_delta_nll"] == site.noise_delta_nll


def test_comes_back_from_its_complete_form(found):
    document = json.loads(json.dumps(found.to_dict(complete=True)))
    for other in (hemostat.Localization.from_dict(document), pickle.loads(pickle.dumps(found))):
        assert str(other.to_dict(complete=True)) == str(found.to_dict(complete=True))  # NaN equals itself as text
        assert other.method == found.method
    del document["sites"][0]["damage"]
    with pytest.raises(ValueError, match="no field damage"):
        hemostat.Localization.from_dict(document)


def test_can_be_read(found):
    lines = str(found).splitlines()
    assert re.search(r"rtn:group_size=4 at 3, 3 windows: ΔNLL \+\d", lines[0])
    assert "add up to" in lines[0]
    assert lines[2].split()[:2] == ["site", "ΔNLL"]
    assert [line.split()[0] for line in lines[4:9]] == [site.name for site in found]
    assert "5 sites" in repr(found)
    assert repr(found[0]).startswith("Site('model.layers.0', ΔNLL ")
    frame = found.to_dataframe()
    assert list(frame["name"]) == [site.name for site in found]
    assert list(frame["delta_nll_low"]) == [site.damage.delta_nll_interval[0] for site in found]


def test_one_window_has_no_interval(tiny_model, tiny_tokens):
    found = hemostat.localize(tiny_model, "rtn", tiny_tokens[:1], severity=3)
    facts = found.to_dict()
    assert {site["delta_nll_interval"] for site in facts["sites"]} == {None}
    assert found.additivity == pytest.approx(sum(site["delta_nll"] for site in facts["sites"]) / facts["delta_nll"])
    first = str(found).splitlines()[0]
    assert "one window: ΔNLL" in first and "()" not in first
    assert found.to_dataframe()["delta_nll_low"].isna().all()


def test_counts_windows_and_stops_where_the_callback_raises(tiny_model, tiny_tokens):
    calls = []
    hemostat.localize(
        tiny_model, "rtn", tiny_tokens, severity=3, batch=4, progress=lambda *counts: calls.append(counts)
    )
    total = 10 * (1 + 4)  # the whole and 4 blocks
    assert calls[0] == (4, total)
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)

    def stop(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        hemostat.localize(tiny_model, "rtn", tiny_tokens, severity=3, progress=stop)


def test_seeds_the_method_the_noise_and_the_resampling(tiny_model, tiny_tokens):
    first = hemostat.localize(tiny_model, "gaussian", tiny_tokens, severity=0.3, seed=1)
    again = hemostat.localize(tiny_model, "gaussian:seed=1", tiny_tokens, severity=0.3, seed=1)
    assert first.method == "gaussian:seed=1"
    assert first.to_dict() == again.to_dict()
    other = hemostat.localize(tiny_model, "gaussian:seed=1", tiny_tokens, severity=0.3, seed=2)
    assert [site.delta_nll for site in other] == [site.delta_nll for site in first]
    assert other[0].noise_kl != first[0].noise_kl


def test_takes_a_users_method(tiny_model, tiny_tokens):
    @hemostat.method("localize_shrink", axis=hemostat.Axis(name="shrink", unit="fraction", default_grid=[0.1]))
    def shrink(model, statistics):
        return lambda severity: model.replace({n: w * (1 - severity) for n, w in model.linears(include="*.2.*")})

    found = hemostat.localize(tiny_model, "localize_shrink", tiny_tokens, severity=0.5)
    assert [site.kl > 0 for site in found] == [False, False, True, False]
    assert found.additivity_kl == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("no_such_method", {"severity": 1}, "no_such_method"),
        ("magnitude", {"severity": 1.5}, "sparsity"),
        ("magnitude", {"severity": math.nan}, "sparsity"),
        ("magnitude", {}, "severity is missing"),
        ("magnitude", {"severity": 0.5, "no_such_option": 1}, "no_such_option"),
        ("magnitude", {"severity": 0.5, "batch": 0}, "hemostat.localize: batch is 0"),
        ("wanda", {"severity": 0.5}, "hemostat.localize: wanda needs statistics"),
        ("drop_layers", {"severity": 0.25}, "3 blocks, but the baseline has 4"),
        ("insert_identity", {"severity": 0.25}, "5 blocks, but the baseline has 4"),
        ("token_noise", {"severity": 0.1}, "token_noise changes the tokens that the model reads"),
        ("temperature", {"severity": 2}, "temperature changes how tokens are chosen"),
        ("drop_norms", {"severity": 2 / 9, "linears": True}, "block 3 changed, but none of its linears"),
    ],
)
def test_refuses_before_any_evaluation(tiny_model, tiny_tokens, method, arguments, message):
    def worked(*_):
        pytest.fail("worked")

    with pytest.raises((ValueError, TypeError), match=message):
        hemostat.localize(tiny_model, method, tiny_tokens, progress=worked, **arguments)


def test_refuses_statistics_that_lack_what_is_needed(tiny_model, tiny_tokens):
    statistics = hemostat.collect(tiny_model, tiny_tokens, needs=["absmax"])
    with pytest.raises(ValueError, match="column_norm"):
        hemostat.localize(tiny_model, "wanda", tiny_tokens, severity=0.5, statistics=statistics)


@pytest.mark.integration
class TestCommand:
    def run(self, capsys, *arguments):
        code = main(["localize", *map(str, arguments)])
        return code, *capsys.readouterr()

    def test_gives_what_python_gives(self, capsys, tiny_checkpoint, text):
        arguments = [tiny_checkpoint, "--method", "wanda", "--severity", 0.5, "--text", text, "--windows", 3]
        code, out, err = self.run(capsys, *arguments, "--json")
        assert code == 0 and "no better than counting its tokens" in err  # random weights
        model = hemostat.Model.load(tiny_checkpoint)
        tokens = hemostat.data.tokens(model, text)
        split = len(tokens) // 5
        statistics = hemostat.collect(model, tokens[:split], needs="wanda")
        found = hemostat.localize(model, "wanda", tokens[split : split + 3], severity=0.5, statistics=statistics)
        assert json.loads(out) == found.to_dict()

    def test_prints_a_table(self, capsys, tiny_checkpoint, text):
        arguments = [tiny_checkpoint, "--method", "rtn:group_size=16", "--severity", 3, "--text", text, "--windows", 2]
        code, out, err = self.run(capsys, *arguments, "--linears", "--no-control")
        assert code == 0 and "no better than counting its tokens" in err  # random weights
        assert out.startswith("rtn:group_size=16 at 3, 2 windows: ΔNLL ")
        assert re.search(r"^model\.layers\.3\.mlp\.down_proj +[+-]0\.", out, re.M)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--method", "drop_layers", "--severity", 0.25], "3 blocks, but the baseline has 4"),
            (["--method", "rtn", "--severity", 20], "bits is 20"),
            (["--method", "nothing", "--severity", 2], "no method 'nothing'"),
        ],
    )
    def test_refuses_in_a_line(self, capsys, tiny_checkpoint, text, arguments, message):
        code, out, err = self.run(capsys, tiny_checkpoint, "--text", text, *arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert re.search(message, err), err
