"""Room kernels: torch.ops.hemostat.* against plain references, on every device."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

import hemostat  # noqa: F401  loads the operators

ops = torch.ops.hemostat
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (1, 9), (5, 1), (3, 16), (7, 100), (33, 1500), (4, 4096), (2, 9000)]
DIVERGENCE = [
    "nll_baseline",
    "nll_damaged",
    "kl",
    "kl_reverse",
    "entropy_baseline",
    "entropy_damaged",
    "confidence_baseline",
    "confidence_damaged",
    "top1_baseline",
    "top1_damaged",
    "top5_overlap",
]


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scores(kind, shape, seed=0):
    """Scores of which a selection could get something wrong."""
    score = random(*shape, seed=seed)
    if kind == "ties":
        return (score * 2).round() / 2
    if kind == "half of them zero":
        return score * (random(*shape, seed=seed + 1) > 0)
    if kind == "signed zeros":
        return torch.where(score > 0, 0.0, -0.0)
    if kind == "constant":
        return torch.full(shape, -0.3)
    if kind == "infinite":
        score = score**7
        score.view(-1)[0], score.view(-1)[-1] = float("inf"), -float("inf")
        return score
    if kind == "sorted":
        return score.view(-1).sort().values.view(shape)
    assert kind == "normal"
    return score


KINDS = ["normal", "ties", "half of them zero", "signed zeros", "constant", "infinite", "sorted"]


# What the contract says, by a stable sort.


def ranked(score, column_scale, per_row, absolute):
    values = score.float()
    if absolute:
        values = values.abs()
    if column_scale is not None:
        values = values * column_scale
    values = values + 0.0  # −0 is 0
    values = values if per_row else values.reshape(1, -1)
    return values, torch.sort(values, dim=1, stable=True).indices


def reference_mask(score, column_scale, removed, per_row, absolute):
    values, order = ranked(score, column_scale, per_row, absolute)
    mask = torch.ones(values.shape, dtype=torch.bool)
    return mask.scatter_(1, order[:, :removed], False).reshape(score.shape)


def reference_pattern(score, column_scale, n, m, absolute):
    values, _ = ranked(score, column_scale, True, absolute)
    return reference_mask(values.reshape(-1, m), None, m - n, True, False).reshape(score.shape)


def reference_kept_until(score, column_scale, per_row, absolute, dtype):
    values, order = ranked(score, column_scale, per_row, absolute)
    entries = values.shape[1]
    falls = (torch.arange(1, entries + 1, dtype=dtype) / entries).expand(values.shape)
    return torch.empty(values.shape, dtype=dtype).scatter_(1, order, falls).reshape(score.shape)


def reference_quantize(weight, levels, group_size, symmetric):
    """Codes, scale and zero of every group, and the dequantized float32 weight."""
    groups = weight.float().reshape(1, 1, -1) if group_size == 0 else weight.float().unflatten(1, (-1, group_size))
    highest = groups.amax(-1, keepdim=True).clamp(min=0)
    lowest = groups.amin(-1, keepdim=True).clamp(max=0)
    if symmetric:
        amax = torch.maximum(highest, -lowest)
        amax[amax == 0] = 1
        scale = 2 * amax / (levels - 1)
        zero = torch.full_like(scale, levels // 2)
    else:
        empty = (highest == 0) & (lowest == 0)
        highest[empty], lowest[empty] = 1, -1
        scale = (highest - lowest) / (levels - 1)
        zero = torch.round(-lowest / scale)
    codes = torch.clamp(torch.round(groups / scale) + zero, 0, levels - 1)
    values = (codes - zero) * scale
    return codes.reshape(weight.shape), scale.squeeze(-1), zero.squeeze(-1), values.reshape(weight.shape)


def reference_divergence(baseline, damaged, targets, scale):
    """In float64. A logit of −Inf has no mass, and adds nothing."""
    a = baseline.double()
    b = damaged.double() * scale
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()

    def expectation(mass, value):
        return torch.where(mass > 0, mass * value, 0.0).sum(1)

    k = min(5, a.shape[1])
    top_a = torch.sort(baseline, dim=1, descending=True, stable=True).indices[:, :k]
    top_b = torch.sort(damaged, dim=1, descending=True, stable=True).indices[:, :k]
    return [
        -log_p.gather(1, targets[:, None])[:, 0],
        -log_q.gather(1, targets[:, None])[:, 0],
        expectation(p, log_p - log_q),
        expectation(q, log_q - log_p),
        -expectation(p, log_p),
        -expectation(q, log_q),
        p.amax(1),
        q.amax(1),
        top_a[:, 0],
        top_b[:, 0],
        (top_a[:, :, None] == top_b[:, None, :]).sum((1, 2)).double() / k,
    ]


# The operators, with a fresh out on the device and the results on the CPU. Every bool that they write is 0 or 1.


def mask_smallest(device, score, column_scale, removed, per_row, absolute):
    out = torch.full(score.shape, True, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    invalid = ops.mask_smallest(score.to(device), scale, removed, per_row, absolute, out=out)
    assert invalid.dtype == torch.int64 and invalid.shape == () and invalid.device == out.device and invalid == 0
    assert out.view(torch.uint8).max() <= 1
    return out.cpu()


def mask_pattern(device, score, column_scale, n, m, absolute):
    out = torch.full(score.shape, True, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    assert ops.mask_pattern(score.to(device), scale, n, m, absolute, out=out) == 0
    return out.cpu()


def kept_until(device, score, column_scale, per_row, absolute, dtype):
    out = torch.full(score.shape, -1, dtype=dtype, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    assert ops.kept_until(score.to(device), scale, per_row, absolute, out=out) == 0
    return out.cpu()


def fake_quantize(device, weight, levels, group_size, symmetric):
    out = torch.full(weight.shape, -1, dtype=weight.dtype, device=device)
    assert ops.fake_quantize(weight.to(device), levels, group_size, symmetric, out=out) == 0
    return out.cpu()


def divergence(device, baseline, damaged, targets, scale=1.0):
    found = ops.divergence(baseline.to(device), damaged.to(device), targets.to(device), scale)
    return [tensor.cpu() for tensor in found]


# Masks.


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_mask_smallest(device, shape, kind, per_row):
    score = scores(kind, shape)
    entries = shape[1] if per_row else score.numel()
    scale = random(shape[1], seed=3).abs() + 0.1
    for column_scale, absolute in [(None, True), (None, False), (scale, True), (scale, False)]:
        for removed in sorted({0, 1, entries // 10, entries // 2, entries - 1, entries}):
            mask = mask_smallest(device, score, column_scale, removed, per_row, absolute)
            assert torch.equal(mask, reference_mask(score, column_scale, removed, per_row, absolute)), removed


@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_mask_smallest_of_every_dtype(device, dtype, per_row):
    score = random(65, 333, dtype=dtype)
    scale = random(333, seed=1).abs()
    for column_scale in (None, scale):
        mask = mask_smallest(device, score, column_scale, 111, per_row, True)
        assert torch.equal(mask, reference_mask(score, column_scale, 111, per_row, True))


@pytest.mark.parametrize("kind", KINDS)
def test_mask_of_a_large_tensor(device, kind):
    score = scores(kind, (700, 1001))
    for removed in (1, 70_070, 350_350, 700_000):
        mask = mask_smallest(device, score, None, removed, False, False)
        assert torch.equal(mask, reference_mask(score, None, removed, False, False)), removed


def test_mask_of_a_large_tensor_that_a_sample_misjudges(device):
    # Neighbours are alike, so that a sample of neighbours knows less than its size promises.
    for seed in range(6):
        score = random(1 << 16, 1, seed=seed).expand(-1, 16).reshape(1024, 1024).contiguous()
        for removed in (50_000, 524_288, 1_000_000):
            mask = mask_smallest(device, score, None, removed, False, True)
            assert torch.equal(mask, reference_mask(score, None, removed, False, True))


@pytest.mark.parametrize("m", [1, 2, 3, 4, 8, 12, 16, 24, 64, 1000])
@pytest.mark.parametrize("kind", ["normal", "ties", "signed zeros", "infinite"])
def test_mask_pattern(device, kind, m):
    for columns in (m, 3 * m, 17 * m):
        score = scores(kind, (5, columns))
        scale = random(columns, seed=1).abs() + 0.1
        for n in sorted({0, 1, m // 2, m}):
            for column_scale, absolute in [(None, True), (scale, True), (None, False)]:
                mask = mask_pattern(device, score, column_scale, n, m, absolute)
                assert torch.equal(mask, reference_pattern(score, column_scale, n, m, absolute)), (columns, n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("per_row", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (3, 4096), (300, 1001)])
def test_kept_until(device, shape, kind, per_row, dtype):
    score = scores(kind, shape)
    scale = random(shape[1], seed=3).abs() + 0.1
    for column_scale, absolute in [(None, True), (None, False), (scale, True)]:
        found = kept_until(device, score, column_scale, per_row, absolute, dtype)
        assert torch.equal(found, reference_kept_until(score, column_scale, per_row, absolute, dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("per_row", [True, False])
def test_kept_until_of_half_types(device, dtype, per_row):
    score = random(40, 1000, dtype=dtype)
    found = kept_until(device, score, None, per_row, False, torch.float32)
    assert torch.equal(found, reference_kept_until(score, None, per_row, False, torch.float32))


def test_kept_until_is_every_mask(device):
    score = scores("ties", (9, 200))
    falls = kept_until(device, score, None, True, True, torch.float32)
    for removed in range(0, 201, 25):
        assert torch.equal(falls > removed / 200, mask_smallest(device, score, None, removed, True, True))


def test_every_half_value_is_ordered_and_rounded_right(device):
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        values = bits.view(dtype)
        values = values[values.isfinite()].reshape(-1, 1)
        for per_row in (True, False):
            found = kept_until(device, values.T, None, per_row, False, torch.float32)
            assert torch.equal(found, reference_kept_until(values.T, None, per_row, False, torch.float32))
        # One value a group: its scale and product exercise the rounding back to `dtype`.
        found = fake_quantize(device, values, 256, 1, False)
        assert torch.equal(found, reference_quantize(values, 256, 1, False)[3].to(dtype))


@pytest.mark.parametrize("per_row", [True, False])
def test_nan_scores_are_counted(device, per_row):
    for shape in ((3, 40), (700, 1001)):
        score = random(*shape)
        score[0, 3] = score[2, 5] = float("nan")
        score[1, 1] = float("inf")
        mask = torch.empty(shape, dtype=torch.bool, device=device)
        falls = torch.empty(shape, device=device)
        for removed in (0, 7, shape[1]):
            assert ops.mask_smallest(score.to(device), None, removed, per_row, True, out=mask) == 2
        assert ops.kept_until(score.to(device), None, per_row, True, out=falls) == 2
    score = random(3, 40)
    score[1, 7] = float("nan")
    for n, m in ((2, 4), (2, 5)):
        out = torch.empty(3, 40, dtype=torch.bool, device=device)
        assert ops.mask_pattern(score.to(device), None, n, m, True, out=out) == 1
    scale = torch.ones(40)
    scale[0] = float("inf")  # 0 · Inf
    zeros = torch.zeros(3, 40, device=device)
    assert ops.mask_smallest(zeros, scale.to(device), 7, per_row, True, out=torch.empty_like(zeros).bool()) == 3


# Quantization.


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("levels", [2, 3, 7, 16, 256, 65536])
@pytest.mark.parametrize("dtype", DTYPES)
def test_quantize(device, dtype, levels, symmetric):
    for shape, group_size in [
        ((1, 1), 1),
        ((5, 48), 48),
        ((7, 384), 128),
        ((3, 9000), 9000),
        ((3, 30), 3),
        ((6, 70), 0),
    ]:
        weights = [
            random(*shape),
            random(*shape).abs(),
            -random(*shape).abs(),
            torch.zeros(shape),
            random(*shape) * 1e-4,
        ]
        for weight in (weight.to(dtype) for weight in weights):
            codes, scale, zero, values = reference_quantize(weight, levels, group_size, symmetric)
            assert torch.equal(fake_quantize(device, weight, levels, group_size, symmetric), values.to(dtype))
            if levels > 256:
                continue
            found = ops.quantize(weight.to(device), levels, group_size, symmetric)
            assert [tensor.dtype for tensor in found] == [torch.uint8, torch.float32, torch.float32, torch.int64]
            assert torch.equal(found[0].cpu().float(), codes)
            assert torch.equal(found[1].cpu(), scale) and torch.equal(found[2].cpu(), zero)
            assert found[3] == 0


def test_quantize_in_place(device):
    weight = random(6, 64).to(device)
    expected = fake_quantize(device, weight, 8, 16, True)
    assert ops.fake_quantize(weight, 8, 16, True, out=weight) == 0
    assert torch.equal(weight.cpu(), expected)


def test_quantize_at_the_ends_of_the_range(device):
    largest, least = torch.finfo(torch.float32).max, 2.0**-149
    for symmetric in (False, True):
        weight = torch.tensor(
            [[0.0, 0.0, 0.0, 0.0], [largest / 2, -largest / 2, 1.0, 0.0], [least, -least, 0.0, least]]
        )
        found = fake_quantize(device, weight, 16, 4, symmetric)
        assert found.isfinite().all()
        assert torch.equal(found[0], torch.zeros(4))
        assert (found - weight).abs().max() <= largest / 2 / 15 * 2
        assert (found[2].abs() <= least).all()


def test_values_that_are_not_finite_are_counted(device):
    weight = random(8, 64)
    weight[0, 0], weight[3, 63], weight[3, 1] = float("nan"), float("inf"), -float("inf")
    for group_size in (0, 16, 64):
        for symmetric in (False, True):
            out = torch.empty(8, 64, device=device)
            assert ops.fake_quantize(weight.to(device), 16, group_size, symmetric, out=out) == 3
            assert ops.quantize(weight.to(device), 16, group_size, symmetric)[3] == 3


# Divergence.


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


def test_divergence_is_never_negative(device):
    a = random(200, 3000) * 4
    b = a * (1 + random(200, 3000, seed=1) * 2.0**-24)
    found = dict(zip(DIVERGENCE, divergence(device, a, b, torch.zeros(200, dtype=torch.int64)), strict=True))
    for name in ("kl", "kl_reverse", "entropy_baseline", "entropy_damaged"):
        assert (found[name] >= 0).all()
    assert found["kl"].max() < 1e-6


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
    for name in ("kl", "kl_reverse", "top5_overlap"):
        assert found[name].isnan().tolist() == [True, True, True, True, False], name
    for name in ("nll_baseline", "entropy_baseline", "confidence_baseline"):
        assert found[name].isnan().tolist() == [True, False, True, False, False], name
    for name in ("nll_damaged", "entropy_damaged", "confidence_damaged"):
        assert found[name].isnan().tolist() == [False, True, False, True, False], name


# Every operator.


def results(device, seed=0):
    """Of every operator, on inputs that take more than one thread, tile and block."""
    score = scores("normal", (300, 3001), seed=seed).to(device)
    weight = random(64, 4096, seed=seed).to(device)
    a, b = (random(40, 5000, seed=seed + i).to(device) * 5 for i in (1, 2))
    found = []
    for per_row, entries in ((True, 3001), (False, 300 * 3001)):
        mask = torch.empty(score.shape, dtype=torch.bool, device=device)
        ops.mask_smallest(score, None, entries // 3, per_row, False, out=mask)
        falls = torch.empty(score.shape, device=device)
        ops.kept_until(score, None, per_row, True, out=falls)
        found += [mask, falls]
    for m in (2, 4, 8, 16, 32):
        mask = torch.empty(weight.shape, dtype=torch.bool, device=device)
        ops.mask_pattern(weight, None, m // 2, m, True, out=mask)
        found.append(mask)
    for dtype in DTYPES:
        for group_size in (0, 128):
            out = torch.empty(weight.shape, dtype=dtype, device=device)
            ops.fake_quantize(weight.to(dtype), 16, group_size, False, out=out)
            found += [out, *ops.quantize(weight.to(dtype), 16, group_size, True)]
        found += ops.divergence(a.to(dtype), b.to(dtype), torch.arange(40, device=device), 0.9)
    return [tensor.cpu() for tensor in found]


def test_the_number_of_threads_changes_nothing(device):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(device)
        torch.set_num_threads(3)
        three = results(device)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def digest():
    sha = hashlib.sha256()
    for tensor in results(torch.device("cpu")):
        sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def test_every_instruction_set_gives_the_same_bits():
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_kernels as t; print(t.digest())"
    )
    digests = set()
    for isa in ("baseline", "avx2", "avx512"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "HEMOSTAT_ISA": isa, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1 and digests == {digest()}


def strided(tensor):
    """The same values in other layouts: transposed, every third of a larger one, and a row repeated by stride 0."""
    yield tensor.t().contiguous().t()
    larger = torch.zeros(tensor.shape[0] * 2, tensor.shape[1] * 3, dtype=tensor.dtype, device=tensor.device)
    larger[::2, ::3] = tensor
    yield larger[::2, ::3]
    wide = torch.zeros(tensor.shape[0], tensor.shape[1] + 5, dtype=tensor.dtype, device=tensor.device)
    wide[:, 3:-2] = tensor
    yield wide[:, 3:-2]
    yield tensor[:1].expand(tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(device, dtype):
    for score in strided(random(21, 128, dtype=dtype).to(device)):
        assert score.stride() != (128, 1)
        dense = score.contiguous().cpu()
        for per_row in (True, False):
            mask = mask_smallest(device, score, None, 50, per_row, True)
            assert torch.equal(mask, reference_mask(dense, None, 50, per_row, True))
            falls = kept_until(device, score, None, per_row, True, torch.float32)
            assert torch.equal(falls, reference_kept_until(dense, None, per_row, True, torch.float32))
        for m in (4, 32):
            mask = mask_pattern(device, score, None, m // 2, m, True)
            assert torch.equal(mask, reference_pattern(dense, None, m // 2, m, True))
        for group_size in (0, 32):
            expected = reference_quantize(dense, 16, group_size, False)
            assert torch.equal(fake_quantize(device, score, 16, group_size, False), expected[3].to(dtype))
            assert torch.equal(ops.quantize(score, 16, group_size, False)[0].cpu().float(), expected[0])
        targets = torch.arange(21)
        expected = divergence(device, dense, dense.flip(0), targets)
        found = divergence(device, score, score.flip(0), targets)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    scale = random(256, seed=5).abs().to(device)[::2]
    score = random(9, 128)
    out = torch.empty(9, 128, dtype=torch.bool, device=device)
    ops.mask_smallest(score.to(device), scale, 30, True, True, out=out)
    assert torch.equal(out.cpu(), reference_mask(score, scale.cpu(), 30, True, True))


@pytest.mark.parametrize("shape", [(0, 0), (0, 8), (4, 0)])
def test_empty(device, shape):
    score = torch.empty(shape, device=device)
    mask = torch.empty(shape, dtype=torch.bool, device=device)
    for per_row in (True, False):
        assert ops.mask_smallest(score, None, 0, per_row, True, out=mask) == 0
        assert ops.kept_until(score, None, per_row, True, out=torch.empty_like(score)) == 0
    assert ops.mask_pattern(score, None, 2, 4, True, out=mask) == 0
    for group_size in (0, 4):
        assert ops.fake_quantize(score, 16, group_size, True, out=torch.empty_like(score)) == 0
        codes, scale, zero, invalid = ops.quantize(score, 16, group_size, True)
        assert codes.shape == shape and invalid == 0
        assert scale.shape == zero.shape == ((1, 1) if group_size == 0 else (shape[0], shape[1] // 4))
    targets = torch.empty(0, dtype=torch.int64, device=device)
    assert all(
        out.shape == (0,) for out in ops.divergence(score[:0, :0].new_empty(0, 8), score.new_empty(0, 8), targets)
    )


def samples(device):
    """An operator, its arguments and its out."""
    score, scale = random(6, 32).to(device), random(32, seed=1).abs().to(device)
    mask, falls = torch.empty(6, 32, dtype=torch.bool, device=device), torch.empty(6, 32, device=device)
    targets = torch.arange(6, device=device)
    return {
        "mask_smallest": [((score, scale, 5, True, True), mask), ((score, None, 50, False, False), mask)],
        "mask_pattern": [((score, scale, 2, 4, True), mask), ((score, None, 3, 8, False), mask)],
        "kept_until": [((score, scale, True, True), falls), ((score, None, False, False), falls)],
        "fake_quantize": [((score, 16, 8, False), falls), ((score, 16, 0, True), falls)],
        "quantize": [((score, 16, 8, False), None), ((score, 16, 0, True), None)],
        "divergence": [((score, score.flip(0), targets, 0.5), None)],
    }


NAMES = ["mask_smallest", "mask_pattern", "kept_until", "fake_quantize", "quantize", "divergence"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device, name, wants_gradient):
    for arguments, out in samples(device)[name]:
        arguments = (arguments[0].requires_grad_(wants_gradient), *arguments[1:])
        opcheck(getattr(ops, name).default, arguments, {} if out is None else {"out": out})


@pytest.mark.parametrize("name", NAMES)
def test_results_carry_no_gradient(device, name):
    for arguments, out in samples(device)[name]:
        arguments[0].requires_grad_()
        found = getattr(ops, name)(*arguments, **({} if out is None else {"out": out}))
        for tensor in found if isinstance(found, tuple) else (found, out):
            assert not tensor.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
def test_compile(device):
    def masked(score, scale, removed):
        out = torch.empty_like(score, dtype=torch.bool)
        invalid = ops.mask_smallest(score * 2, scale, removed, True, True, out=out)
        pattern = torch.empty_like(out)
        ops.mask_pattern(score, scale, 2, 4, True, out=pattern)
        falls = torch.empty_like(score)
        ops.kept_until(score, None, False, True, out=falls)
        return score * out * pattern + falls + invalid

    def compared(score, targets):
        rounded = torch.empty_like(score)
        ops.fake_quantize(score, 16, 8, False, out=rounded)
        codes, *_ = ops.quantize(score, 16, 8, True)
        return *ops.divergence(score, rounded, targets, 1.0), codes.sum()

    compiled = [torch.compile(function, fullgraph=True) for function in (masked, compared)]
    # The second shape makes sizes symbolic; so does the second number removed.
    for shape, removed in [((6, 32), 5), ((9, 64), 5), ((12, 128), 9), ((7, 32), 0)]:
        score, scale = random(*shape).to(device), random(shape[1], seed=1).abs().to(device)
        targets = torch.arange(shape[0], device=device)
        assert torch.equal(compiled[0](score, scale, removed), masked(score, scale, removed))
        for a, b in zip(compiled[1](score, targets), compared(score, targets), strict=True):
            assert torch.equal(a, b)


def test_what_is_refused(device):
    score = torch.zeros(4, 8, device=device)
    mask, falls = torch.zeros(4, 8, dtype=torch.bool, device=device), torch.zeros(4, 8, device=device)
    targets = torch.zeros(4, dtype=torch.int64, device=device)
    scale = torch.ones(8, device=device)
    refused = [
        (r"mask_smallest: removed must be in 0 … 8 .*got 9", ops.mask_smallest, (score, None, 9, True, True), mask),
        (r"mask_smallest: removed .* 0 … 32 .*got -1", ops.mask_smallest, (score, None, -1, False, True), mask),
        (r"score has shape \[8\]", ops.mask_smallest, (scale, None, 1, True, True), mask),
        (r"score is Double", ops.mask_smallest, (score.double(), None, 1, True, True), mask),
        (r"column_scale has shape \[4\]", ops.mask_smallest, (score, scale[:4], 1, True, True), mask),
        (r"column_scale is BFloat16", ops.mask_smallest, (score, scale.bfloat16(), 1, True, True), mask),
        (r"out is Float", ops.mask_smallest, (score, None, 1, True, True), falls),
        (r"out has shape \[3, 8\]", ops.mask_smallest, (score, None, 1, True, True), mask[:3]),
        (r"out is not contiguous", ops.mask_smallest, (score[:, :4], None, 1, True, True), mask[:, :4]),
        (r"m = 3 does not divide", ops.mask_pattern, (score, None, 2, 3, True), mask),
        (r"n must be in 0 … m = 4, got 5", ops.mask_pattern, (score, None, 5, 4, True), mask),
        (r"m must be in 1 … 1024, got 0", ops.mask_pattern, (score, None, 0, 0, True), mask),
        (r"out is Bool, but takes float32 or float64", ops.kept_until, (score, None, True, True), mask),
        (r"out overlaps score", ops.kept_until, (falls, None, True, True), falls),
        (r"levels must be in 2 … 65536, got 1", ops.fake_quantize, (score, 1, 4, True), falls),
        (r"group_size = 3 does not divide", ops.fake_quantize, (score, 16, 3, True), falls),
        (r"group_size must be positive.*got -1", ops.fake_quantize, (score, 16, -1, True), falls),
        (r"out is Float, but weight is Half", ops.fake_quantize, (score.half(), 16, 4, True), falls),
        (r"levels must be in 2 … 256, got 257", ops.quantize, (score, 257, 4, True), None),
        (r"damaged_logits has shape \[3, 8\]", ops.divergence, (score, score[:3], targets), None),
        (r"damaged_logits is Half", ops.divergence, (score, score.half(), targets), None),
        (r"targets has shape \[3\]", ops.divergence, (score, score, targets[:3]), None),
        (r"targets is Int", ops.divergence, (score, score, targets.int()), None),
        (r"vocabulary of 0", ops.divergence, (score[:, :0], score[:, :0], targets), None),
        (r"damaged_scale must be positive and finite, got 0", ops.divergence, (score, score, targets, 0.0), None),
    ]
    for message, op, arguments, out in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            op(*arguments, **({} if out is None else {"out": out}))
    shared = torch.zeros(40, device=device)
    with pytest.raises(ValueError, match="out overlaps weight"):
        ops.fake_quantize(shared[:32].view(4, 8), 16, 4, True, out=shared[8:].view(4, 8))


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_do_not_mix():
    score = torch.zeros(4, 8, device="cuda")
    with pytest.raises(ValueError, match="out is on cpu, but score is on cuda:0"):
        ops.mask_smallest(score, None, 1, True, True, out=torch.zeros(4, 8, dtype=torch.bool))
