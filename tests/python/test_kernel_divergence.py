"""The kernel that compares two sets of logits."""

import pytest
import torch
from kernel_references import (
    DIVERGENCE,
    DTYPES,
    divergence,
    ops,
    random,
    reference_divergence,
)


def logits(kind, tokens, vocab):
    a = random(tokens, vocab, seed=1) * 3
    b = a + random(tokens, vocab, seed=2) * 0.3
    if kind == "close":
        b = a + random(tokens, vocab, seed=2) * 1e-3
    if kind == "wide":
        a, b = a * 30, random(tokens, vocab, seed=2) * 60
    if kind in ("masked", "masked first", "masked in damaged"):
        mask = random(tokens, vocab, seed=3) > 0
        if kind == "masked first":
            mask = torch.arange(vocab).expand(tokens, vocab) < vocab // 2
        mask[:, -1] = False
        b = b.masked_fill(mask, -float("inf"))
        if kind != "masked in damaged":
            a = a.masked_fill(mask, -float("inf"))
    if kind == "ties":
        a, b = a.round(), b.round()
    if kind == "ascending":
        a, b = a.sort(1).values, b.sort(1).values
    if kind == "shifted":
        b = a + 1000
    return a, b


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "kind",
    ["normal", "close", "wide", "masked", "masked first", "masked in damaged", "ties", "ascending", "shifted"],
)
def test_divergence(device, kind, dtype, scale):
    for tokens, vocab in [(1, 1), (4, 2), (5, 4), (7, 5), (6, 100), (3, 2048), (3, 2049), (4, 5000), (2, 40000)]:
        a, b = (tensor.to(dtype) for tensor in logits(kind, tokens, vocab))
        targets = torch.randint(vocab, (tokens,), generator=torch.Generator().manual_seed(4))
        found = divergence(device, a, b, targets, scale)
        expected = reference_divergence(a, b, targets, scale)
        largest = max(tensor[tensor.isfinite()].abs().max().item() for tensor in (a, b))
        for name, got, want in zip(DIVERGENCE, found, expected, strict=True):
            if name.startswith("top1"):
                assert got.dtype == torch.int64 and torch.equal(got, want), name
            else:
                assert got.dtype == torch.float32
                # A few roundings of the largest logit in float32.
                torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=(1 + largest) * 2.0**-23)


def test_divergence_of_the_same_is_zero(device):
    a, _ = logits("normal", 5, 5000)
    found = dict(zip(DIVERGENCE, divergence(device, a, a.clone(), torch.arange(5)), strict=True))
    assert torch.equal(found["kl"], torch.zeros(5)) and torch.equal(found["kl_reverse"], torch.zeros(5))
    assert torch.equal(found["nll_baseline"], found["nll_damaged"])
    assert torch.equal(found["top5_overlap"], torch.ones(5))
    assert torch.equal(found["acceptance"], torch.ones(5))


@pytest.mark.parametrize("kind", ["wide", "masked", "ascending", "shifted"])
def test_the_same_is_accepted_for_certain(device, kind):
    a, _ = logits(kind, 6, 7000)
    for dtype in DTYPES:
        rows = a.to(dtype)
        found = dict(zip(DIVERGENCE, divergence(device, rows, rows.clone(), torch.zeros(6).long()), strict=True))
        assert torch.equal(found["acceptance"], torch.ones(6)), dtype
    # A shift changes no probability; in powers of two, which round nothing, exactly.
    found = divergence(device, a.round(), a.round() + 4096, torch.zeros(6).long())[-1]
    assert torch.equal(found, torch.ones(6))


def test_acceptance_of_what_shares_no_mass_is_zero(device):
    a = torch.full((3, 5000), -float("inf"))
    a[:, 10] = 0.0
    b = a.roll(3000, 1)
    b[1, 4000] = 0.0
    b[2, 10] = 0.0  # half of it
    found = dict(zip(DIVERGENCE, divergence(device, a, b, torch.full((3,), 10)), strict=True))
    assert found["acceptance"].tolist() == [0.0, 0.0, 0.5]


def test_acceptance_where_a_block_lies_far_below_the_next(device):
    # What is kept of a block is relative to the largest so far: here hundreds of nats below the row's largest, in one
    # row or the other.
    a, b = logits("normal", 3, 6000)
    a[0, :4096] -= 500
    b[1, :4096] -= 500
    a[2, :2048], b[2, :2048] = a[2, :2048] - 3e4, b[2, :2048] - 100
    expected = reference_divergence(a, b, torch.zeros(3).long(), 1.0)[-1]
    found = divergence(device, a, b, torch.zeros(3).long())[-1]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert 0 < expected[1] < 0.5 < expected[2]


def test_small_differences_in_acceptance_are_not_lost_in_rounding(device):
    a = random(20, 4000) * 2
    b = a + random(20, 4000, seed=1) * 1e-4
    expected = 1 - reference_divergence(a, b, torch.zeros(20).long(), 1.0)[-1]
    found = 1 - divergence(device, a, b, torch.zeros(20).long())[-1].double()
    assert 2e-5 < expected.mean() < 1e-4
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-7)


def test_divergence_is_never_negative(device):
    a = random(200, 3000) * 4
    b = a * (1 + random(200, 3000, seed=1) * 2.0**-24)
    found = dict(zip(DIVERGENCE, divergence(device, a, b, torch.zeros(200, dtype=torch.int64)), strict=True))
    for name in ("kl", "kl_reverse", "entropy_baseline", "entropy_damaged"):
        assert (found[name] >= 0).all()
    assert found["kl"].max() < 1e-6
    assert (found["acceptance"] <= 1).all() and found["acceptance"].min() > 1 - 1e-6


def test_mass_that_the_damaged_logits_lost_is_infinite(device):
    a, b = logits("normal", 2, 300)
    b[0, 17] = -float("inf")
    found = dict(zip(DIVERGENCE, divergence(device, a, b, torch.tensor([17, 17])), strict=True))
    assert found["kl"][0] == float("inf") and found["nll_damaged"][0] == float("inf")
    assert found["kl"][1].isfinite() and found["kl_reverse"].isfinite().all()


def test_divergence_of_logits_without_a_distribution_is_nan(device):
    a, b = logits("normal", 5, 3000)
    a[0, 5] = float("nan")
    b[1, 2500] = float("nan")
    a[2, 7] = float("inf")
    b[3] = -float("inf")
    found = dict(zip(DIVERGENCE, divergence(device, a, b, torch.zeros(5, dtype=torch.int64)), strict=True))
    for name in ("kl", "kl_reverse", "top5_overlap", "acceptance"):
        assert found[name].isnan().tolist() == [True, True, True, True, False], name
    for name in ("nll_baseline", "entropy_baseline", "confidence_baseline"):
        assert found[name].isnan().tolist() == [True, False, True, False, False], name
    for name in ("nll_damaged", "entropy_damaged", "confidence_damaged"):
        assert found[name].isnan().tolist() == [False, True, False, True, False], name


def test_a_target_outside_the_vocabulary():
    score = torch.zeros(4, 8)
    for target in (-1, 8):
        with pytest.raises(ValueError, match=rf"targets\[2\] is {target}, but the vocabulary has 8 tokens"):
            ops.divergence(score, score, torch.tensor([0, 7, target, 0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_target_outside_the_vocabulary_on_cuda():
    score = torch.zeros(2, 8, device="cuda")
    nll = ops.divergence(score, score, torch.tensor([0, 8], device="cuda"))[0]
    assert nll.isnan().tolist() == [False, True]
