"""The row Fisher, and damage predicted from it, against autograd and against what is measured."""

from __future__ import annotations

import json
import pickle

import pytest
import torch

import hemostat
from hemostat.cli import main


@pytest.fixture(scope="module")
def subject() -> hemostat.data.Subject:
    return hemostat.data.reference()


@pytest.fixture(scope="module")
def statistics(subject) -> hemostat.Statistics:
    return hemostat.collect(subject.model, subject.calibration[:8], ["predict", "wanda"], progress=False)


@pytest.fixture(scope="module")
def others(subject) -> hemostat.Statistics:
    return hemostat.collect(subject.model, subject.calibration[8:16], ["predict"], progress=False)


def by_hand(model: hemostat.Model, windows: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """Of the text's labels: one graph of the whole model a window, a gradient for each linear's output."""
    sums = dict.fromkeys(names, 0.0)

    class Outputs(hemostat.Observer):
        def __init__(self) -> None:
            super().__init__()
            self.given: dict[str, torch.Tensor] = {}

        def linear_output(self, block: int, name: str, y: torch.Tensor) -> None:
            if name in sums:
                self.given[name] = y

    for window in windows:
        outputs = Outputs()
        trained = model.replace({name: weight.requires_grad_() for name, weight in model.linears()})
        logits = trained(window[None], observer=outputs)[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum")
        gradients = torch.autograd.grad(loss, [outputs.given[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            sums[name] = sums[name] + gradient.double().square().flatten(0, -2).sum(0)
    return {name: total / (windows.numel() - len(windows)) for name, total in sums.items()}


def test_row_fisher_of_the_text_is_autograds(subject):
    model, windows = subject.model, subject.calibration[:2, :64]
    names = [
        f"model.layers.{i}.{name}" for i in (0, 5) for name in ("self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj")
    ]
    collected = hemostat.collect(model, windows, ["row_fisher"], labels="text", batch=1, progress=False)
    for name, expected in by_hand(model, windows, names).items():
        torch.testing.assert_close(collected.gradients[name].row_fisher.double(), expected, rtol=1e-4, atol=1e-12)
    assert collected.gradients[names[0]].count == 2 and collected.needs == {"row_fisher"}


def test_it_does_not_depend_on_batches_and_merges(subject):
    model, windows = subject.model, subject.calibration[:4, :64]
    whole = hemostat.collect(model, windows, ["row_fisher"], batch=3, seed=1, progress=False)
    again = hemostat.collect(model, windows, ["row_fisher"], batch=1, seed=1, progress=False)
    other = hemostat.collect(model, windows, ["row_fisher"], batch=1, seed=2, progress=False)
    text = hemostat.collect(model, windows[:2], ["row_fisher"], labels="text", progress=False)
    text.merge(hemostat.collect(model, windows[2:], ["row_fisher"], labels="text", progress=False))
    joined = hemostat.collect(model, windows, ["row_fisher"], labels="text", progress=False)
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(gradient.row_fisher, again.gradients[name].row_fisher, rtol=1e-3, atol=1e-10)
        assert not torch.equal(gradient.row_fisher, other.gradients[name].row_fisher)
        torch.testing.assert_close(
            text.gradients[name].row_fisher, joined.gradients[name].row_fisher, rtol=1e-4, atol=0
        )


def test_it_stands_beside_gradients_of_the_text(subject):
    model, windows = subject.model, subject.calibration[:2, :64]
    both = hemostat.collect(model, windows, ["row_fisher", "gradient_square", "gram"], progress=False)
    fisher = hemostat.collect(model, windows, ["row_fisher"], progress=False)
    squares = hemostat.collect(model, windows, ["gradient_square"], progress=False)
    for name, gradient in both.gradients.items():
        torch.testing.assert_close(gradient.row_fisher, fisher.gradients[name].row_fisher, rtol=1e-4, atol=1e-12)
        torch.testing.assert_close(gradient.square, squares.gradients[name].square, rtol=1e-4, atol=1e-16)
        assert gradient.count == 2


def test_labels_that_the_model_draws_are_of_its_distribution():
    """Of a head alone the Fisher is known: E[(p_r − 1[label = r])²] = p_r(1 − p_r)."""
    model = hemostat.data.reference().model
    windows = hemostat.data.reference().calibration[:8]
    fisher = hemostat.collect(model, windows, ["row_fisher"], include="lm_head", progress=False).gradients["lm_head"]
    p = torch.cat([model(window[None]).detach()[0].double().softmax(-1) for window in windows])
    expected = (p * (1 - p)).mean(0)
    frequent = expected.argsort(descending=True)[:50]
    ratio = fisher.row_fisher[frequent].double().sum() / expected[frequent].sum()
    assert ratio == pytest.approx(1, abs=0.03)


def test_predicted_damage_is_the_formula(subject, statistics):
    model = subject.model
    changed = hemostat.prepare(model, "wanda", statistics, include="model.layers.2.*").at(0.5)
    predicted = hemostat.predicted_damage(model, changed, statistics)
    after = dict(changed.linears())
    assert set(predicted) == {name for name, _ in model.linears(include="model.layers.2.*")}
    for name, weight in model.linears(include="model.layers.2.*"):
        change = (after[name] - weight).double()
        rows = ((change @ statistics[name].gram.double()) * change).sum(1)
        expected = 0.5 * (statistics.gradients[name].row_fisher.double() * rows).sum().item()
        assert predicted[name] == pytest.approx(expected, rel=1e-4)
    assert hemostat.predicted_damage(model, model, statistics) == {}


def ranks(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).argsort().argsort().double()


def test_prediction_ranks_what_is_measured(subject, statistics, others):
    """Single linears under two methods: order of measured KL, on text that no statistics saw."""
    model, evaluation = subject.model, subject.evaluation[:4]
    predicted, measured = [], []
    baseline = hemostat.BaselineEvaluation(model, evaluation)
    for name in model.linears().names[::4]:
        for method, severity in (("wanda", 0.6), ("rtn", 3)):
            given = statistics if method == "wanda" else None
            changed = hemostat.prepare(model, method, given, include=name).at(severity)
            predicted.append(sum(hemostat.predicted_damage(model, changed, others).values()))
            measured.append(baseline.compare(changed).kl.mean)
    correlation = torch.corrcoef(torch.stack([ranks(predicted), ranks(measured)]))[0, 1].item()
    assert correlation > 0.9
    ratio = torch.tensor(measured).log().mean().sub(torch.tensor(predicted).log().mean()).exp().item()
    assert 0.6 < ratio < 2.5


def test_predict(subject, statistics, others):
    predicted = hemostat.predict(subject.model, "wanda", statistics, severities=[0.2, 0.4, 0.6], judge=others)
    assert predicted.severities == [0.2, 0.4, 0.6] and predicted.method == "wanda"
    assert 0 < predicted.delta_nll[0] < predicted.delta_nll[1] < predicted.delta_nll[2]
    assert sum(predicted.linears[1].values()) == pytest.approx(predicted.delta_nll[1])
    middle = (predicted.delta_nll[0] + predicted.delta_nll[1]) / 2
    assert 0.2 < predicted.zone(middle) < 0.4
    assert hemostat.predict(subject.model, "rtn:group_size=64", statistics).severities == [8, 7, 6, 5, 4, 3, 2]
    assert "wanda" in repr(predicted)


def test_what_is_not_predicted(subject, statistics):
    model = subject.model
    for method in ("drop_layers", "activation", "temperature"):
        with pytest.raises(ValueError, match=f"changes of weights, but {method} changes"):
            hemostat.predict(model, method, statistics)
    wanda = hemostat.collect(model, subject.calibration[:2], ["wanda"], progress=False)
    with pytest.raises(ValueError, match="the statistics have no gram; collect"):
        hemostat.predict(model, "wanda", wanda)
    quantized = hemostat.prepare(model, "activation").at(4)
    with pytest.raises(ValueError, match="quantized or noisy"):
        hemostat.predicted_damage(model, quantized, statistics)
    with pytest.raises(ValueError, match="labels is 'none', but takes model, text"):
        hemostat.collect(model, subject.calibration[:1], ["row_fisher"], labels="none", progress=False)


class TestLocalize:
    """Where it bleeds by prediction, without an evaluation."""

    def test_a_block_is_the_sum_over_its_linears(self, subject, statistics, others):
        model = subject.model
        found = hemostat.localize(
            model, "wanda", severity=0.6, statistics=statistics, judge=others, predicted=True, progress=False
        )
        changed = hemostat.prepare(model, "wanda", statistics).at(0.6)
        nats = hemostat.predicted_damage(model, changed, others)
        assert [site.name for site in found] == [f"model.layers.{i}" for i in range(len(model.blocks))]
        for site in found:
            own = sum(value for name, value in nats.items() if name.startswith(site.name + "."))
            assert site.delta_nll == pytest.approx(own)
            assert site.damage is site.kl is site.error is site.cascade_gain is site.control is site.noise_kl is None
        assert found.predicted and found.delta_nll == pytest.approx(sum(nats.values()))
        assert found.whole is found.additivity is found.additivity_kl is None
        assert found.layer_error == found.cascade_gain == []
        assert found.method == "wanda" and found.severity == 0.6
        given = hemostat.localize(model, changed, statistics=others, predicted=True)
        assert [site.delta_nll for site in given] == [site.delta_nll for site in found] and given.method == ""

    def test_each_linear(self, subject, statistics):
        model = subject.model
        found = hemostat.localize(
            model, "rtn", severity=3, statistics=statistics, predicted=True, linears=True, include="*.2.*"
        )
        assert [site.name for site in found] == model.linears().names
        nats = hemostat.predicted_damage(model, hemostat.prepare(model, "rtn", include="*.2.*").at(3), statistics)
        assert {site.name: site.delta_nll for site in found if site.delta_nll} == nats
        assert {site.block for site in found if site.noise_delta_nll is not None} == {2}

    def test_noise_is_what_isotropic_noise_is_predicted_to_cost(self, subject, statistics):
        model = subject.model
        site = hemostat.localize(model, "magnitude", severity=0.5, statistics=statistics, predicted=True, linears=True)[
            3
        ]
        changed = hemostat.prepare(model, "magnitude").at(0.5)
        drawn = []
        for seed in range(8):
            noisy = hemostat._C.isotropic_control(model, changed, seed=seed)
            drawn.append(hemostat.predicted_damage(model, noisy, statistics)[site.name])
        assert sum(drawn) / 8 == pytest.approx(site.noise_delta_nll, rel=0.1)
        without = hemostat.localize(
            model, "magnitude", severity=0.5, statistics=statistics, predicted=True, control=False
        )
        assert {site.noise_delta_nll for site in without} == {None}

    def test_order_is_that_of_what_is_measured(self, subject, statistics, others):
        model, evaluation = subject.model, subject.evaluation[:4]
        measured = hemostat.localize(model, "rtn", evaluation, severity=3, linears=True, control=False, progress=False)
        predicted = hemostat.localize(model, "rtn", severity=3, statistics=others, linears=True, predicted=True)
        pairs = torch.stack([ranks([site.kl for site in measured]), ranks([site.delta_nll for site in predicted])])
        assert torch.corrcoef(pairs)[0, 1].item() > 0.85
        assert not measured.predicted

    def test_tokens_are_what_it_is_predicted_by(self, subject, others):
        model = subject.model
        found = hemostat.localize(
            model, "rtn", subject.calibration[8:16], severity=3, batch=8, predicted=True, progress=False
        )
        given = hemostat.localize(model, "rtn", severity=3, statistics=others, predicted=True)
        assert [site.delta_nll for site in found] == pytest.approx([site.delta_nll for site in given], rel=1e-3)

    def test_reads_and_comes_back(self, subject, statistics):
        found = hemostat.localize(subject.model, "rtn", severity=3, statistics=statistics, predicted=True)
        lines = str(found).splitlines()
        assert lines[0].startswith("rtn at 3, predicted: ΔNLL +0.")
        assert lines[2].split() == ["site", "ΔNLL", "noise", "ΔNLL"]
        assert lines[-1].endswith("Predicted, not measured.")
        assert "predicted ΔNLL" in repr(found) and "predicted ΔNLL" in repr(found[0])
        facts = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert facts["windows"] is facts["kl"] is facts["sites"][0]["delta_nll_interval"] is None
        assert facts["delta_nll"] == found.delta_nll
        frame = found.to_dataframe()
        assert list(frame["delta_nll"]) == [site.delta_nll for site in found] and frame["kl"].isna().all()
        assert found.worst(1)[0].delta_nll == max(site.delta_nll for site in found)
        again = pickle.loads(pickle.dumps(found))
        assert again.predicted and again.to_dict() == found.to_dict()

    def test_refuses(self, subject, statistics):
        model, evaluation = subject.model, subject.evaluation[:1]
        wanda = hemostat.collect(model, subject.calibration[:1], ["wanda"], progress=False)
        for method, arguments, message in [
            ("wanda", {}, "predicted needs statistics"),
            ("wanda", {"statistics": wanda}, "have no gram"),
            ("wanda", {"judge": statistics}, "hemostat.localize: wanda needs statistics"),
            ("activation", {"statistics": statistics, "severity": 4}, "hemostat.localize: .* but activation changes"),
            ("drop_norms", {"statistics": statistics}, "hemostat.localize: .* but drop_norms changes"),
            ("rtn", {"statistics": statistics, "severity": 20}, "bits is 20"),
        ]:
            with pytest.raises(ValueError, match=message):
                hemostat.localize(model, method, predicted=True, **{"severity": 0.5} | arguments)
        changed = hemostat.prepare(model, "drop_norms").at(2 / 13)
        with pytest.raises(ValueError, match="hemostat.localize: .* other things changed too"):
            hemostat.localize(model, changed, statistics=statistics, predicted=True)
        with pytest.raises(ValueError, match="blocks, but the baseline has"):
            hemostat.localize(model, hemostat.prepare(model, "drop_layers").at(0.5), judge=statistics, predicted=True)
        with pytest.raises(TypeError, match="not both"):
            hemostat.localize(model, "rtn", evaluation, severity=3, judge=statistics, predicted=True)
        with pytest.raises(TypeError, match="judge is what predicted=True"):
            hemostat.localize(model, "rtn", evaluation, severity=3, judge=statistics)
        with pytest.raises(TypeError, match="tokens are missing"):
            hemostat.localize(model, "rtn", severity=3)
        with pytest.raises(TypeError, match="severity is missing"):
            hemostat.localize(model, "rtn", predicted=True, statistics=statistics)

    def test_on_the_command_line(self, capsys):
        arguments = ["localize", "reference", "--method", "wanda", "--severity", "0.6", "--windows", "2", "--predicted"]
        assert main([*arguments, "--calibration-windows", "4"]) == 0
        assert capsys.readouterr().out.startswith("wanda at 0.6, predicted: ΔNLL +")


def test_a_graph_is_kept_only_where_the_budget_has_room(subject):
    model, windows = subject.model, subject.calibration[:3, :64]
    for needs in (["row_fisher"], ["row_fisher", "gram"]):
        found = [
            hemostat.collect(model, windows, needs, memory_budget=budget, batch=2, progress=False)
            for budget in (2**30, 6e5, 0)
        ]
        for name, gradient in found[0].gradients.items():
            for other in found[1:]:
                difference = (other.gradients[name].row_fisher - gradient.row_fisher).norm()
                assert difference <= 1e-5 * gradient.row_fisher.norm()
                if "gram" in needs:
                    moved = (other[name].gram - found[0][name].gram).norm()
                    assert moved <= 1e-5 * found[0][name].gram.norm()
            assert all(other.gradients[name].count == 3 for other in found)


def test_a_foreign_module_has_one_too():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    module = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
        )
    ).eval()
    tokens = torch.randint(0, 97, (3, 16))
    ours, foreign = hemostat.Model.from_transformers(module), hemostat.Model.from_module(module)
    for labels in ("model", "text"):
        first, second = (
            hemostat.collect(model, tokens, ["row_fisher"], labels=labels, progress=False).gradients
            for model in (ours, foreign)
        )
        for name, gradient in first.items():
            torch.testing.assert_close(second[name].row_fisher, gradient.row_fisher, rtol=1e-3, atol=1e-9)
