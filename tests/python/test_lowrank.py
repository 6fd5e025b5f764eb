"""Room lowrank: ranks, the closest factors, one decomposition for every severity."""

import math
from fractions import Fraction

import pytest
import torch

import hemostat
from hemostat import lowrank

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 90, 99])
@pytest.mark.parametrize("shape", [(576, 1536), (1536, 576), (100, 100), (576, 192)])
def test_rank(percent, shape):
    out_features, in_features = shape
    exact = (1 - Fraction(percent, 100)) * out_features * in_features / (out_features + in_features)
    assert lowrank.rank_for(percent / 100, *shape) == max(1, math.floor(exact))


def test_rank_at_the_ends():
    assert lowrank.rank_for(1.0, 64, 64) == 0
    assert lowrank.rank_for(0.99, 4, 4) == 1  # at least one while anything is kept
    assert lowrank.rank_for(0.0, 1, 1) == 1
    assert lowrank.rank_for(0.0, 0, 8) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_svd(device, dtype):
    weight = torch.randn(48, 80, generator=torch.Generator().manual_seed(0)).to(dtype).to(device)
    factors = lowrank.svd(weight, removed=0.4)
    assert factors.rank == 18
    assert factors.a.shape == (48, 18) and factors.b.shape == (18, 80)
    assert factors.a.is_contiguous() and factors.b.is_contiguous()
    assert factors.a.dtype == factors.b.dtype == factors.weight.dtype == dtype
    assert factors.a.numel() + factors.b.numel() <= 0.6 * weight.numel()
    expected = (factors.a.float() @ factors.b.float()).to(dtype)
    torch.testing.assert_close(factors.weight, expected)
    assert repr(factors) == "Factors(a=[48, 18], b=[18, 80])"


def test_a_matrix_of_low_rank_is_kept(device):
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(40, 5, generator=generator) @ torch.randn(5, 60, generator=generator)).to(device)
    factors = lowrank.svd(weight, removed=0.75)
    assert factors.rank == 6
    torch.testing.assert_close(factors.weight, weight, rtol=1e-4, atol=1e-4)


def test_more_removed_errs_more(device):
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(2)).to(device)
    errors = [float((lowrank.svd(weight, removed=s / 10).weight - weight).norm()) for s in range(11)]
    assert errors == sorted(errors)
    assert errors[-1] == pytest.approx(float(weight.norm()))


def test_one_decomposition_serves_every_severity(device):
    weight = torch.randn(32, 24, generator=torch.Generator().manual_seed(3)).bfloat16().to(device)
    decomposition = lowrank.decompose(weight)
    assert decomposition.us.dtype == decomposition.vh.dtype == torch.float32
    for removed in (0.0, 0.3, 0.9, 1.0):
        once, alone = decomposition.at(removed), lowrank.svd(weight, removed=removed)
        assert torch.equal(once.a, alone.a) and torch.equal(once.b, alone.b)
    before = decomposition.us.clone()
    decomposition.at(0.0).a.zero_()
    assert torch.equal(decomposition.us, before)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(device, shape):
    factors = lowrank.svd(torch.empty(shape, device=device), removed=0.5)
    assert factors.rank == 0
    assert factors.weight.shape == shape


def test_one_element_and_nothing_kept(device):
    weight = torch.full((1, 1), -3.0, device=device)
    assert lowrank.svd(weight, removed=0.5).weight.item() == pytest.approx(-3.0)
    assert lowrank.svd(weight, removed=1.0).weight.item() == 0.0


def test_strides_do_not_matter(device):
    base = torch.randn(40, 40, generator=torch.Generator().manual_seed(4)).to(device)
    view = base.t()[::2]
    torch.testing.assert_close(
        lowrank.svd(view, removed=0.5).weight, lowrank.svd(view.contiguous(), removed=0.5).weight
    )


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "svd: removed is 1.1, but must be from 0 to 1", lambda w: lowrank.svd(w, removed=1.1)),
        (ValueError, "svd: removed is nan", lambda w: lowrank.svd(w, removed=float("nan"))),
        (ValueError, "at: removed is -1", lambda w: lowrank.decompose(w).at(-1)),
        (ValueError, r"svd: weight has shape \[8\]", lambda w: lowrank.svd(w[0], removed=0.5)),
        (TypeError, "svd: weight is int32", lambda w: lowrank.svd(w.int(), removed=0.5)),
        (ValueError, "svd: weight has 32 NaN or infinite entries", lambda w: lowrank.svd(w / 0, removed=0.5)),
        (ValueError, "decompose: weight has 32 NaN", lambda w: lowrank.decompose(w / 0)),
    ],
)
def test_bad_input(device, error, message, call):
    with pytest.raises(error, match=message):
        call(torch.ones(4, 8, device=device))


def test_what_does_not_converge_is_a_numerical_error():
    with pytest.raises(hemostat.NumericalError, match="hemostat.lowrank.svd"):
        lowrank.svd(torch.full((4, 8), float("nan")), removed=0.5, check_finite=False)
