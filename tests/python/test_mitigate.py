"""hemostat.mitigate: the treatment itself, its parts, and what it refuses."""

import json

import numpy as np
import pytest
import torch

import hemostat
from hemostat.cli import main

treat = hemostat.mitigate.gradient_aware_pruning


@pytest.fixture(scope="module")
def reference():
    return hemostat.data.reference()


@pytest.fixture(scope="module")
def calibration(reference):
    return reference.calibration[:8]


@pytest.fixture(scope="module")
def evaluation(reference):
    return torch.cat([reference.evaluation[:3], reference.evaluation[64:67]])


@pytest.fixture(scope="module")
def treated(reference, calibration, evaluation):
    return treat(reference.model, calibration, sparsity=0.5, evaluation=evaluation)


def sparsities(model: hemostat.Model) -> dict[str, float]:
    return {name: float((weight == 0).float().mean()) for name, weight in model.linears()}


def mean_sparsity(model: hemostat.Model) -> float:
    return sum(int((w == 0).sum()) for _, w in model.linears()) / sum(w.numel() for _, w in model.linears())


def test_the_treated_model_has_the_sparsity_that_was_asked_for(treated):
    assert mean_sparsity(treated.model) == pytest.approx(0.5, abs=1e-3)
    for name, sparsity in sparsities(treated.model).items():
        assert sparsity == pytest.approx(treated.severities[name], abs=2e-3)
    shares = list(treated.severities.values())
    assert max(shares) - min(shares) > 0.1  # it is allocated
    assert max(abs(share - 0.5) for share in shares) <= 0.2 + 1e-9


def test_it_costs_less_than_every_other_method(reference, calibration, evaluation, treated):
    statistics = hemostat.collect(reference.model, calibration, needs=["admm", "wanda", "sparsegpt", "ria"])
    baseline = hemostat.BaselineEvaluation(reference.model, evaluation)
    assert treated.treated.kl.mean == pytest.approx(baseline.compare(treated.model).kl.mean, rel=1e-4)
    for method in ("magnitude", "wanda", "ria", "sparsegpt", "admm"):
        other = baseline.compare(hemostat.prepare(reference.model, method, statistics).at(0.5))
        assert treated.treated.delta_nll < other.delta_nll, method
        assert treated.treated.kl.mean < 0.75 * other.kl.mean, method


def test_recovery_is_the_share_of_damage_spared(treated):
    before, after = treated.untreated.delta_nll, treated.treated.delta_nll
    assert treated.recovery == pytest.approx(1 - after / before)
    low, high = treated.recovery_interval
    assert low < treated.recovery < high <= 1.5
    assert "recovery" in str(treated) and "untreated" in str(treated)
    told = json.loads(json.dumps(treated.to_dict()))
    assert told["recovery"] == treated.recovery and told["treated"]["delta_nll"] == after


def test_the_untreated_model_is_another_method_at_the_same_sparsity(reference, calibration, evaluation, treated):
    statistics = hemostat.collect(reference.model, calibration, needs=["wanda"])
    wanda = hemostat.prepare(reference.model, "wanda", statistics).at(0.5)
    assert treated.untreated.delta_nll == pytest.approx(
        hemostat.compare(reference.model, wanda, evaluation).delta_nll, abs=1e-6
    )


@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_patterns_hold_in_every_group(reference, calibration, pattern):
    kept, of = map(int, pattern.split(":"))
    model = treat(reference.model, calibration[:4], pattern=pattern).model
    for name, weight in model.linears():
        groups = (weight != 0).reshape(-1, of).sum(1)
        assert int(groups.max()) <= kept, name
        assert float((groups == kept).float().mean()) > 0.999, name


def test_parts_can_be_switched_off_and_are_better_on(reference, calibration, evaluation, treated):
    baseline = hemostat.BaselineEvaluation(reference.model, evaluation)
    uniform = treat(reference.model, calibration, sparsity=0.5, allocation=False)
    assert set(uniform.severities.values()) == {0.5}
    dense = treat(reference.model, calibration, sparsity=0.5, propagate=False)
    for part in (uniform, dense):
        assert treated.treated.kl.mean < baseline.compare(part.model).kl.mean
    guided = treat(reference.model, calibration, sparsity=0.5, gram="guided")
    assert baseline.compare(guided.model).kl.mean < 1.5 * treated.treated.kl.mean
    assert any(
        not torch.equal(a, b) for (_, a), (_, b) in zip(guided.model.linears(), treated.model.linears(), strict=True)
    )


def test_refining_keeps_the_sparsity_and_gains(reference, calibration, evaluation):
    baseline = hemostat.BaselineEvaluation(reference.model, evaluation)
    plain = baseline.compare(treat(reference.model, calibration, sparsity=0.7).model)
    refined = treat(reference.model, calibration, sparsity=0.7, refine=True)
    assert mean_sparsity(refined.model) == pytest.approx(0.7, abs=1e-3)
    for name, sparsity in sparsities(refined.model).items():
        assert sparsity == pytest.approx(refined.severities[name], abs=2e-3)
    assert baseline.compare(refined.model).kl.mean < plain.kl.mean


def test_it_is_a_method_of_the_registry_too(reference, calibration, evaluation, treated):
    found = {method.name: method for method in hemostat.methods()}["gradient_aware"]
    assert found.axis.name == "sparsity" and found.needs == {"tokens"}
    prepared = hemostat.prepare(reference.model, "gradient_aware", calibration=calibration)
    for (name, a), (_, b) in zip(prepared.at(0.5).linears(), treated.model.linears(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    curve = hemostat.sweep(
        reference.model,
        "gradient_aware:propagate=false,allocation=false",
        evaluation[:2],
        calibration=calibration[:4],
        severities=[0.3, 0.6],
        progress=False,
    )
    assert curve.damages[0].kl.mean < curve.damages[1].kl.mean


def test_only_chosen_linears_are_pruned(reference, calibration):
    model = treat(reference.model, calibration[:4], sparsity=0.5, include="*.1.mlp.*").model
    pruned = {name for name, sparsity in sparsities(model).items() if sparsity > 0}
    assert pruned == {name for name, _ in reference.model.linears(include="*.1.mlp.*")}


def test_the_row_fisher_decides_where_admm_removes():
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(16, 24, generator=generator), torch.randn(200, 24, generator=generator)
    gram = x.T @ x / 200
    fisher = torch.rand(16, generator=generator) ** 3 + 1e-3
    for pruned, mask in (
        hemostat.prune.admm(weight, gram, sparsity=0.5, row_weight=fisher),
        hemostat.prune.admm(weight, gram, sparsity=0.5, row_weight=7 * fisher),
    ):
        kept = mask.sum(1).float()
        assert np.corrcoef(kept.numpy(), fisher.log().numpy())[0, 1] > 0.8
        assert int((~mask).sum()) == 192 and torch.equal(pruned != 0, mask)
    plain = hemostat.prune.admm(weight, gram, sparsity=0.5)
    equal = hemostat.prune.admm(weight, gram, sparsity=0.5, row_weight=torch.full((16,), 3.0))
    torch.testing.assert_close(plain[0], equal[0])

    def cost(pruned: torch.Tensor) -> float:
        change = pruned - weight
        return float((((change @ gram) * change).sum(1) * fisher).sum())

    assert cost(hemostat.prune.admm(weight, gram, sparsity=0.5, row_weight=fisher)[0]) < cost(plain[0])


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ValueError, "give sparsity or pattern"),
        ({"sparsity": 0.5, "pattern": "2:4"}, ValueError, "not both"),
        ({"sparsity": 1.5}, ValueError, "sparsity"),
        ({"pattern": "2:7"}, ValueError, "multiple of 7"),
        ({"sparsity": 0.5, "gram": "guessed"}, ValueError, "guided"),
        ({"sparsity": 0.5, "iterations": 0}, ValueError, "iterations"),
        ({"sparsity": 0.5, "untreated": "magic"}, ValueError, "magic"),
        ({"sparsity": 0.5, "include": "nothing*"}, ValueError, "leave no linear layer"),
    ],
)
def test_nonsense_is_refused_before_any_work(tiny_model, tiny_tokens, given, error, words):
    with pytest.raises(error, match=words):
        treat(tiny_model, tiny_tokens, progress=False, **given)


def test_too_little_text_is_refused(tiny_model, tiny_tokens):
    with pytest.raises(ValueError, match="at least 2 windows"):
        treat(tiny_model, tiny_tokens[:1], sparsity=0.5)
    with pytest.raises(ValueError, match="row_weight has 3 entries"):
        hemostat.prune.admm(torch.ones(2, 4), torch.eye(4), sparsity=0.5, row_weight=torch.ones(3))
    with pytest.raises(ValueError, match="negative"):
        hemostat.prune.admm(torch.ones(2, 4), torch.eye(4), sparsity=0.5, row_weight=torch.tensor([1.0, -1.0]))


def test_from_the_command_line(tiny_checkpoint, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 200)
    out = tmp_path / "pruned"
    options = ["--treatment", "gradient_aware_pruning", "--out", str(out), "--text", str(text), "--length", "64"]
    assert main(["treat", str(tiny_checkpoint), *options, "--sparsity", "0.6"]) == 0
    printed = capsys.readouterr().out
    assert "gradient_aware_pruning at 0.6" in printed and "treated" in printed
    assert mean_sparsity(hemostat.Model.load(out)) == pytest.approx(0.6, abs=0.01)
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoModelForCausalLM.from_pretrained(out) is not None
    assert main(["treat", str(tiny_checkpoint), *options, "--sparsity", "0.6"]) == 2  # it exists already
    assert main(["treat", str(tiny_checkpoint), "--treatment", "gradient_aware_pruning", "--out", str(out) + "2"]) == 2


def test_a_half_type_model_is_treated_in_its_own_dtype(reference, calibration):
    model = treat(reference.model.to(torch.bfloat16), calibration[:4], sparsity=0.5, refine=True).model
    assert all(weight.dtype == torch.bfloat16 for _, weight in model.linears())
    assert mean_sparsity(model) == pytest.approx(0.5, abs=2e-3)
