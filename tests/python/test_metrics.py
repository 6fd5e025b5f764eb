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
        "acceptance": torch.minimum(p.exp(), q.exp()).sum(1).numpy(),
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

    def test_acceptance(self, damage, reference):
        assert damage.acceptance == pytest.approx(reference["acceptance"].mean(), abs=1e-6)

    def test_means_of_windows(self, damage, reference):
        def windows(name):
            return pytest.approx(reference[name].reshape(10, -1).mean(1), abs=1e-5)

        assert damage.window_kl == windows("kl")
        assert damage.window_acceptance == windows("acceptance")
        one = 1.5 * 10 / len(reference["agree"])  # one token whose two likeliest are equal to rounding
        assert damage.window_top1_agreement == pytest.approx(reference["agree"].reshape(10, -1).mean(1), abs=one)
        assert damage.kl.mean == pytest.approx(np.mean(damage.window_kl), rel=1e-9)
        assert damage.top1_agreement == pytest.approx(np.mean(damage.window_top1_agreement), rel=1e-9)

    def test_volume_and_direction(self, pair, damage, reference):
        delta, changed = reference["nll"] - reference["nll_baseline"], ~reference["agree"]
        assert damage.volume == 1 - damage.top1_agreement > 0
        few = 20 / changed.sum()  # as above
        assert damage.direction == pytest.approx(delta[changed].mean(), abs=few)
        assert damage.delta_nll_unchanged == pytest.approx(delta[~changed].mean(), abs=few)
        parts = damage.volume * damage.direction + (1 - damage.volume) * damage.delta_nll_unchanged
        assert damage.delta_nll == pytest.approx(parts, abs=1e-9)
        back = hemostat.compare(pair[1], pair[0], pair[2])  # what is undone points the other way
        assert back.volume == damage.volume
        assert back.direction == pytest.approx(-damage.direction, rel=1e-6)

    def test_intervals_cover_as_an_independent_bootstrap(self, damage, reference):
        draws = np.random.default_rng(0).integers(0, 10, (20000, 10))
        delta = np.array(damage.window_nll) - np.array(damage.window_nll_baseline)
        changed = ~reference["agree"].reshape(10, -1)
        of_changed = ((reference["nll"] - reference["nll_baseline"]).reshape(10, -1) * changed).sum(1)
        ratio = of_changed[draws].sum(1) / changed.sum(1)[draws].sum(1)
        for found, resampled in [
            (damage.delta_nll_interval, delta[draws].mean(1)),
            (damage.kl.mean_interval, np.array(damage.window_kl)[draws].mean(1)),
            (damage.top1_agreement_interval, np.array(damage.window_top1_agreement)[draws].mean(1)),
            (damage.acceptance_interval, np.array(damage.window_acceptance)[draws].mean(1)),
            (damage.direction_interval, ratio),
        ]:
            ends = np.quantile(resampled, [0.025, 0.975])
            assert found == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]))

    def test_silent_where_the_interval_holds_zero(self, pair, damage):
        model, _, tokens = pair
        assert damage.silent is False and damage.delta_nll_interval[0] > 0
        whisper = hemostat.compare(model, hemostat.prepare(model, "gaussian").at(1e-4), tokens)
        low, high = whisper.delta_nll_interval
        assert whisper.silent is (low <= 0 <= high)
        assert "silent" not in repr(damage) and ("silent" in repr(whisper)) is whisper.silent

    def test_one_window_has_no_interval(self, pair):
        model, damaged, tokens = pair
        damage = hemostat.compare(model, damaged, tokens[:1], generation=True)
        fields = damage.to_dict()
        for name in ("delta_nll", "top1_agreement", "acceptance", "direction"):
            assert getattr(damage, f"{name}_interval") is None and fields[f"{name}_interval"] is None
        assert damage.kl.mean_interval is None and fields["kl"]["mean_interval"] is None
        assert damage.silent is None and fields["silent"] is None
        assert damage.generation.first_divergence_interval is None
        assert damage.direction is not None and damage.volume > 0
        assert "[" not in repr(damage)
        again = hemostat.Damage.from_dict(damage.to_dict(windows=True))
        assert again.to_dict(windows=True) == damage.to_dict(windows=True)

    def test_a_change_in_one_window_alone_has_a_direction_without_interval(self, pair):
        model, _, tokens = pair
        for sigma in (3e-3, 1e-3, 5e-4, 2e-4):
            found = hemostat.compare(model, hemostat.prepare(model, "gaussian").at(sigma), tokens[:2])
            changed = sum(agreement < 1 for agreement in found.window_top1_agreement)
            assert (found.direction is None) is (changed == 0)
            assert (found.direction_interval is None) is (changed < 2)

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
        assert damage.delta_nll_interval == damage.kl.mean_interval == (0, 0)
        assert damage.acceptance == 1 and damage.acceptance_interval == (1, 1)
        assert damage.volume == damage.delta_nll_unchanged == 0 and damage.direction is None and damage.silent
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
    assert math.isnan(damage.acceptance) and fields["acceptance"] is None
    assert fields["direction"] is fields["delta_nll_unchanged"] is None
    assert fields["delta_nll_interval"] == fields["acceptance_interval"] == [None, None]
    assert damage.silent is False and damage.volume == 1


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
        torch.testing.assert_close(
            found.acceptance.double(), torch.minimum(p.exp(), q.exp()).sum(-1), rtol=1e-5, atol=1e-6
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
        assert found.acceptance[0] == 1 and math.isnan(found.acceptance[1])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"damaged_scale": 0.0}, "damaged_scale is 0, but takes a positive finite number"),
            ({"damaged_scale": math.nan}, "damaged_scale is nan, but takes a positive finite number"),
            ({"targets": torch.tensor([0, -1])}, "targets has -1, but the vocabulary has 5 tokens"),
            ({"targets": torch.tensor([5, 1])}, "targets has 5, but the vocabulary has 5 tokens"),
            ({"targets": torch.tensor([0])}, r"targets is \[1\], but the logits \[2, 5\] are of tokens \[2\]"),
            ({"targets": torch.tensor([0, 1], dtype=torch.int32)}, "targets is int32, but takes int64"),
            ({"baseline_logits": torch.zeros(2, 0), "damaged_logits": torch.zeros(2, 0)}, "a vocabulary of at least 1"),
            ({"damaged_logits": torch.zeros(2, 4)}, r"damaged_logits is \[2, 4\], but baseline_logits is \[2, 5\]"),
            ({"damaged_logits": torch.zeros(2, 5).double()}, "damaged_logits is float64"),
        ],
    )
    def test_says_its_own_name(self, change, message):
        arguments = {"baseline_logits": torch.zeros(2, 5), "damaged_logits": torch.zeros(2, 5)}
        arguments |= {"targets": torch.tensor([0, 1])} | change
        with pytest.raises((ValueError, TypeError), match=f"^hemostat.metrics.divergence: .*{message}"):
            hemostat.metrics.divergence(**arguments)


def test_calibration_error_matches_the_formula():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(4000, generator=generator)
    right = torch.rand(4000, generator=generator) < confidence**2
    for bins in (1, 10, 15):
        found = hemostat.metrics.expected_calibration_error(confidence, right, bins=bins)
        assert found == pytest.approx(expected_calibration_error(confidence.double().numpy(), right.numpy(), bins))
