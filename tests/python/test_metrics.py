"""hemostat.compare and the metrics room against the formulas in float64 on whole logits."""

import math

import numpy as np
import pytest
import torch

import hemostat


def log_probabilities(model, tokens):
    """float64 [targets, vocab]"""
    with torch.no_grad():
        return torch.log_softmax(model.forward(tokens)[:, :-1].double().flatten(0, 1), dim=-1).cpu()


def expected_calibration_error(confidence, right, bins=15):
    """The sum over bins, as Guo et al. write it."""
    edges = np.linspace(0, 1, bins + 1)
    error = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.fixture(scope="module")
def pair(trained):
    """A trained model, the same with 3-bit weights, and windows of text."""
    damaged = hemostat.prepare(trained.model, "rtn").at(3)
    return trained.model, damaged, trained.tokens[:10]


@pytest.fixture(scope="module")
def damage(pair):
    return hemostat.compare(*pair, byte_count=7000)


@pytest.fixture(scope="module")
def reference(pair):
    """Per token, numpy float64."""
    baseline, damaged, tokens = pair
    p, q = log_probabilities(baseline, tokens), log_probabilities(damaged, tokens)
    targets = tokens[:, 1:].flatten().cpu()
    top5 = [set(row) for row in p.topk(5).indices.tolist()]
    return {
        "nll_baseline": -p.gather(1, targets[:, None])[:, 0].numpy(),
        "nll": -q.gather(1, targets[:, None])[:, 0].numpy(),
        "kl": (p.exp() * (p - q)).sum(1).numpy(),
        "kl_reverse": (q.exp() * (q - p)).sum(1).numpy(),
        "entropy_baseline": -(p.exp() * p).sum(1).numpy(),
        "entropy": -(q.exp() * q).sum(1).numpy(),
        "confidence_baseline": p.exp().amax(1).numpy(),
        "confidence": q.exp().amax(1).numpy(),
        "right_baseline": (p.argmax(1) == targets).numpy(),
        "right": (q.argmax(1) == targets).numpy(),
        "agree": (p.argmax(1) == q.argmax(1)).numpy(),
        "overlap": np.array([len(a & set(b)) / 5 for a, b in zip(top5, q.topk(5).indices.tolist(), strict=True)]),
    }


class TestCompare:
    def test_likelihoods(self, damage, reference):
        assert (damage.windows, damage.tokens) == (10, len(reference["nll"]))
        assert damage.nll_baseline == pytest.approx(reference["nll_baseline"].mean(), rel=1e-6)
        assert damage.nll == pytest.approx(reference["nll"].mean(), rel=1e-6)
        assert damage.delta_nll == pytest.approx((reference["nll"] - reference["nll_baseline"]).mean(), abs=1e-6)
        assert damage.perplexity == pytest.approx(math.exp(reference["nll"].mean()), rel=1e-5)
        assert damage.perplexity_baseline == pytest.approx(math.exp(reference["nll_baseline"].mean()), rel=1e-5)
        assert damage.window_nll == pytest.approx(reference["nll"].reshape(10, -1).mean(1), rel=1e-5)
        assert damage.bits_per_byte == pytest.approx(reference["nll"].sum() / math.log(2) / 7000, rel=1e-6)

    def test_divergence_and_its_quantiles(self, damage, reference):
        kl = reference["kl"]
        assert damage.kl.mean == pytest.approx(kl.mean(), rel=1e-4)
        for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)):
            assert getattr(damage.kl, name) == pytest.approx(np.quantile(kl, q), rel=1e-4)
        assert damage.kl.reverse_mean == pytest.approx(reference["kl_reverse"].mean(), rel=1e-4)

    def test_divergence_by_confidence(self, damage, reference):
        order = np.argsort(reference["confidence_baseline"], kind="stable")
        edges = [len(order) * i // 4 for i in range(5)]
        for quarter, found in enumerate(damage.kl.by_confidence):
            expected = reference["kl"][order[edges[quarter] : edges[quarter + 1]]].mean()
            assert found == pytest.approx(expected, rel=1e-3)

    def test_choices(self, damage, reference):
        right_baseline, right = reference["right_baseline"], reference["right"]
        one = 1.5 / len(right)  # one token whose two likeliest are equal to rounding
        assert damage.top1_agreement == pytest.approx(reference["agree"].mean(), abs=one)
        assert damage.top5_overlap == pytest.approx(reference["overlap"].mean(), abs=one)
        assert damage.accuracy_baseline == pytest.approx(right_baseline.mean(), abs=one)
        assert damage.accuracy == pytest.approx(right.mean(), abs=one)
        assert damage.flips_right_to_wrong == pytest.approx((right_baseline & ~right).mean(), abs=one)
        assert damage.flips_wrong_to_right == pytest.approx((right & ~right_baseline).mean(), abs=one)

    def test_calibration_and_entropy(self, damage, reference):
        assert damage.calibration_error_baseline == pytest.approx(
            expected_calibration_error(reference["confidence_baseline"], reference["right_baseline"]), abs=1e-3
        )
        assert damage.calibration_error == pytest.approx(
            expected_calibration_error(reference["confidence"], reference["right"]), abs=1e-3
        )
        assert damage.entropy_baseline == pytest.approx(reference["entropy_baseline"].mean(), rel=1e-5)
        assert damage.entropy_shift == pytest.approx(
            (reference["entropy"] - reference["entropy_baseline"]).mean(), abs=1e-5
        )

    def test_index_from_the_evaluated_tokens(self, pair, damage):
        tokens = pair[2].cpu()
        counts = torch.bincount(tokens.flatten(), minlength=pair[0].embedding.shape[0]).double()
        unigram = -torch.log((counts + 1) / (counts.sum() + len(counts)))[tokens[:, 1:]].mean().item()
        assert damage.index == pytest.approx(damage.delta_nll / (unigram - damage.nll_baseline), rel=1e-9)
        assert damage.index_source == "evaluated tokens"

    def test_index_from_given_counts(self, pair):
        counts = torch.arange(pair[0].embedding.shape[0])
        damage = hemostat.compare(*pair, unigram=counts)
        unigram = hemostat.metrics.unigram_nll(counts, pair[2][:, 1:])
        assert damage.index == pytest.approx(damage.delta_nll / (unigram - damage.nll_baseline), rel=1e-9)
        assert damage.index_source == "given"

    def test_interval_covers_as_an_independent_bootstrap(self, damage):
        delta = np.array(damage.window_nll) - np.array(damage.window_nll_baseline)
        draws = np.random.default_rng(0).integers(0, len(delta), (20000, len(delta)))
        low, high = np.quantile(delta[draws].mean(1), [0.025, 0.975])
        width = high - low
        assert damage.delta_nll_interval[0] == pytest.approx(low, abs=0.1 * width)
        assert damage.delta_nll_interval[1] == pytest.approx(high, abs=0.1 * width)

    def test_is_the_same_for_a_seed_and_for_any_memory(self, pair):
        one, other = (hemostat.compare(*pair, memory_budget=budget) for budget in (2**30, 0))
        assert one.to_dict(windows=True) == other.to_dict(windows=True)
        kept = hemostat.BaselineEvaluation(pair[0], pair[2])
        assert kept.keeps_logits
        assert kept.compare(pair[1]).to_dict(windows=True) == one.to_dict(windows=True)
        assert hemostat.compare(*pair, seed=1).delta_nll_interval != one.delta_nll_interval

    @pytest.mark.parametrize("batch", [1, 4, 10])
    def test_nothing_changed_is_exactly_no_damage(self, pair, batch):
        model, _, tokens = pair
        damage = hemostat.compare(model, model, tokens, batch=batch)
        assert damage.delta_nll == 0
        assert damage.delta_nll_interval == (0, 0)
        assert damage.kl.mean == damage.kl.max == damage.kl.reverse_mean == 0
        assert damage.top1_agreement == damage.top5_overlap == 1
        assert damage.index == 0

    def test_refuses_what_cannot_be_compared(self, pair, tiny_model):
        model, damaged, tokens = pair
        with pytest.raises(ValueError, match="vocabulary"):
            hemostat.compare(model, tiny_model, tokens)
        with pytest.raises(ValueError, match="two tokens"):
            hemostat.compare(model, damaged, tokens[:, :1])
        with pytest.raises(ValueError, match="window"):
            hemostat.compare(model, damaged, tokens[:0])
        with pytest.raises(ValueError, match="hemostat.compare"):
            hemostat.compare(model, damaged, tokens + model.embedding.shape[0])
        with pytest.raises(TypeError, match="hemostat.compare"):
            hemostat.compare(model, damaged, tokens.double())
        with pytest.raises(ValueError, match="unigram has 3 entries"):
            hemostat.compare(model, damaged, tokens, unigram=torch.ones(3, dtype=torch.long))


def test_collapse_is_nan_and_null(pair):
    model, _, tokens = pair
    name, weight = next(iter(model.linears()))
    damage = hemostat.compare(model, model.replace({name: torch.full_like(weight, math.nan)}), tokens)
    assert math.isnan(damage.perplexity)
    assert math.isnan(damage.index)
    assert damage.top1_agreement == 0
    fields = damage.to_dict()
    assert fields["perplexity"] is None
    assert fields["perplexity_baseline"] > 1


class TestDivergence:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_matches_torch(self, device, dtype):
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randn(3, 7, 101, generator=generator).mul(3).to(device, dtype) for _ in range(2))
        targets = torch.randint(0, 101, (3, 7), generator=generator).to(device)
        found = hemostat.metrics.divergence(a, b, targets)
        p, q = (torch.log_softmax(x.double(), -1) for x in (a, b))
        torch.testing.assert_close(found.kl.double(), (p.exp() * (p - q)).sum(-1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found.kl_reverse.double(), (q.exp() * (q - p)).sum(-1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            found.nll_damaged.double(), -q.gather(-1, targets[..., None])[..., 0], rtol=1e-5, atol=1e-5
        )
        assert torch.equal(found.right_baseline, a.argmax(-1) == targets)
        assert torch.equal(found.agree, a.argmax(-1) == b.argmax(-1))

    def test_two_dtypes_are_compared_in_float32(self, device):
        a, b = torch.randn(5, 11, device=device), torch.randn(5, 11, device=device).bfloat16()
        targets = torch.zeros(5, dtype=torch.long, device=device)
        mixed = hemostat.metrics.divergence(a, b, targets)
        assert torch.equal(mixed.kl, hemostat.metrics.divergence(a, b.float(), targets).kl)

    def test_what_is_not_a_number_agrees_with_nothing(self, device):
        a = torch.randn(2, 11, device=device)
        b = a.clone()
        b[1, 3] = math.nan
        found = hemostat.metrics.divergence(a, b, a.argmax(-1))
        assert found.agree.tolist() == [True, False]
        assert found.right_damaged.tolist() == [True, False]
        assert found.kl[0] == 0
        assert math.isnan(found.kl[1])


def test_calibration_error_matches_the_formula():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(4000, generator=generator)
    right = torch.rand(4000, generator=generator) < confidence**2
    for bins in (1, 10, 15):
        found = hemostat.metrics.expected_calibration_error(confidence, right, bins=bins)
        assert found == pytest.approx(expected_calibration_error(confidence.double().numpy(), right.numpy(), bins))
