"""Room lowrank, asvd and svd_llm: the least error on the inputs, whatever the Gram matrix is."""

import pytest
import torch

import hemostat
from hemostat import lowrank

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(24, 40), (40, 24), (32, 32)]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens, features, seed=1):
    """Correlated, and some features much larger than others."""
    mixing = random(features, features, seed=seed + 1) / features**0.5
    return random(tokens, features, seed=seed) @ mixing * torch.logspace(-2, 2, features)


def error(x, weight, factors):
    """Mean squared error of the outputs, in float64, of float32 factors."""
    product = factors.a.double().cpu() @ factors.b.double().cpu()
    return float((x.double() @ (weight.double() - product).T).square().sum() / len(x))


def discarded(x, weight, rank):
    """The sum of the squares of the singular values of weight · inputs that a rank leaves out."""
    return float(torch.linalg.svdvals(x.double() @ weight.double().T)[rank:].square().sum() / len(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tokens", [400, 10, 1])  # also of fewer tokens than features
def test_svd_llm_errs_by_the_singular_values_left_out(device, shape, tokens):
    weight, x = random(*shape), inputs(tokens, shape[1])
    gram = (x.double().T @ x.double() / tokens).float()
    decomposition = lowrank.decompose_svd_llm(weight.to(device), gram.to(device))
    size = float((x @ weight.T).double().square().sum() / tokens)
    for removed in (0.0, 0.3, 0.7, 0.95, 1.0):
        factors = decomposition.at(removed)
        assert factors.rank == lowrank.rank_for(removed, *shape)
        assert error(x, weight, factors) == pytest.approx(discarded(x, weight, factors.rank), rel=1e-3, abs=1e-6 * size)


def test_svd_llm_errs_less_than_the_others_on_its_inputs(device):
    weight, x = random(48, 64).to(device), inputs(500, 64)
    gram, absmean = (x.T @ x / 500).to(device), x.abs().mean(0).to(device)
    for removed in (0.1, 0.5, 0.9):
        plain, scaled, whitened = (
            error(x, weight.cpu(), factors)
            for factors in (
                lowrank.svd(weight, removed=removed),
                lowrank.asvd(weight, absmean, removed=removed),
                lowrank.svd_llm(weight, gram, removed=removed),
            )
        )
        assert whitened < scaled < plain


def test_more_removed_errs_more(device):
    weight, x = random(64, 96).to(device), inputs(300, 96)
    gram, absmean = (x.T @ x / 300).to(device), x.abs().mean(0).to(device)
    scaled = x.new_zeros(96, 96)
    scaled.diagonal().copy_(absmean.cpu().sqrt())
    for decomposition, seen in (
        (lowrank.decompose_svd_llm(weight, gram), x),
        (lowrank.decompose_asvd(weight, absmean), scaled),
    ):
        errors = [error(seen, weight.cpu(), decomposition.at(s / 10)) for s in range(11)]
        assert errors == sorted(errors)
        assert errors[-1] == pytest.approx(error(seen, weight.cpu(), lowrank.svd(weight, removed=1.0)))


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_inputs_are_svd(device, shape):
    weight = (random(*shape) @ torch.diag(torch.logspace(0, 1, shape[1]))).to(device)
    expected = lowrank.svd(weight, removed=0.4).weight
    for factors in (
        lowrank.asvd(weight, random(shape[1]).abs().to(device), removed=0.4, alpha=0),
        lowrank.asvd(weight, torch.full((shape[1],), 5.0, device=device), removed=0.4),
        lowrank.svd_llm(weight, 3 * torch.eye(shape[1], device=device), removed=0.4),
        lowrank.svd_llm(weight, torch.zeros(shape[1], shape[1], device=device), removed=0.4),
    ):
        torch.testing.assert_close(factors.weight, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_damping_leads_to_svd(device, shape):
    weight, x = random(*shape).to(device), inputs(9, shape[1])
    gram = (x.T @ x / 9).to(device)
    found = lowrank.svd_llm(weight, gram, removed=0.5, damp=1e9).weight
    torch.testing.assert_close(found, lowrank.svd(weight, removed=0.5).weight, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(lowrank.svd_llm(weight, gram, removed=0.5, damp=0.01).weight, found, atol=1e-2)


@pytest.mark.parametrize("shape", SHAPES)
def test_directions_without_inputs_are_ordered_by_the_weight(device, shape):
    weight, x = random(*shape).to(device), inputs(2, shape[1])
    gram = (x.T @ x / 2).to(device)
    factors = lowrank.svd_llm(weight, gram, removed=0.2)
    seen = torch.linalg.qr(weight.cpu() @ x.T)[0]  # what the two inputs take of the rank
    rest = weight.cpu() - seen @ (seen.T @ weight.cpu())
    least = float(torch.linalg.svdvals(rest.double())[factors.rank - 2 :].square().sum())
    missing = float((weight.cpu() - factors.weight.cpu()).double().square().sum())
    assert missing == pytest.approx(least, rel=1e-2)


def test_dead_features(device):
    weight, x = random(20, 30).to(device), inputs(200, 30)
    x[:, ::3] = 0
    gram, absmean = (x.T @ x / 200).to(device), x.abs().mean(0).to(device)
    for factors in (
        lowrank.svd_llm(weight, gram, removed=0.3),
        lowrank.asvd(weight, absmean, removed=0.3),
        lowrank.asvd(weight, torch.zeros(30, device=device), removed=0.3),
    ):
        assert factors.weight.isfinite().all()
    assert error(x, weight.cpu(), lowrank.svd_llm(weight, gram, removed=0.3)) == pytest.approx(
        discarded(x, weight.cpu(), lowrank.rank_for(0.3, 20, 30)), rel=1e-3
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_are_in_the_weights_dtype(device, dtype):
    weight, x = random(48, 80).to(dtype).to(device), inputs(100, 80)
    gram, absmean = (x.T @ x / 100).to(device), x.abs().mean(0).to(device)
    for factors in (lowrank.svd_llm(weight, gram, removed=0.4), lowrank.asvd(weight, absmean, removed=0.4)):
        assert factors.rank == 18
        assert factors.a.dtype == factors.b.dtype == factors.weight.dtype == dtype
        assert factors.a.is_contiguous() and factors.b.is_contiguous()
        assert factors.weight.isfinite().all()
        # The columns of a are orthonormal, so that halves hold both factors, however unequal the inputs are.
        identity = factors.a.float().T @ factors.a.float()
        torch.testing.assert_close(identity, torch.eye(18, device=device), rtol=0, atol=8 * torch.finfo(dtype).eps)


def test_strides_do_not_matter(device):
    base = random(40, 40).to(device)
    view, x = base.t()[::2], inputs(90, 40)
    gram, absmean = (x.T @ x / 90).to(device), x.abs().mean(0).to(device)
    pairs = [
        (lowrank.svd_llm(w, g, removed=0.5), lowrank.asvd(w, a, removed=0.5))
        for w, g, a in ((view, gram.t(), absmean), (view.contiguous(), gram, absmean.clone()))
    ]
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(device, shape):
    weight, features = torch.empty(shape, device=device), shape[1]
    for factors in (
        lowrank.svd_llm(weight, torch.eye(features, device=device), removed=0.5),
        lowrank.asvd(weight, torch.ones(features, device=device), removed=0.5),
    ):
        assert factors.rank == 0 and factors.weight.shape == shape


def test_one_element(device):
    weight, one = torch.full((1, 1), -3.0, device=device), torch.ones(1, 1, device=device)
    assert lowrank.svd_llm(weight, one, removed=0.5).weight.item() == pytest.approx(-3.0)
    assert lowrank.asvd(weight, one[0], removed=0.5).weight.item() == pytest.approx(-3.0)
    assert lowrank.svd_llm(weight, one, removed=1.0).weight.item() == 0.0


NAN = float("nan")


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "asvd: removed is 1.1", lambda w, a, g: lowrank.asvd(w, a, removed=1.1)),
        (ValueError, "svd_llm: removed is nan", lambda w, a, g: lowrank.svd_llm(w, g, removed=NAN)),
        (ValueError, "asvd: alpha is -1, but must be 0", lambda w, a, g: lowrank.asvd(w, a, removed=0.5, alpha=-1)),
        (ValueError, "decompose_asvd: alpha is nan", lambda w, a, g: lowrank.decompose_asvd(w, a, alpha=NAN)),
        (ValueError, "svd_llm: damp is -1", lambda w, a, g: lowrank.svd_llm(w, g, removed=0.5, damp=-1)),
        (
            ValueError,
            "decompose_svd_llm: damp is inf",
            lambda w, a, g: lowrank.decompose_svd_llm(w, g, damp=float("inf")),
        ),
        (
            ValueError,
            "hemostat.lowrank.asvd: activation_absmean has 7 entries, but weight has 8 input features",
            lambda w, a, g: lowrank.asvd(w, a[:7], removed=0.5),
        ),
        (ValueError, r"activation_absmean has shape \[8, 8\]", lambda w, a, g: lowrank.asvd(w, g, removed=0.5)),
        (ValueError, r"gram has shape \[8\], but must be \[8, 8\]", lambda w, a, g: lowrank.svd_llm(w, a, removed=0.5)),
        (ValueError, r"gram has shape \[7, 8\]", lambda w, a, g: lowrank.svd_llm(w, g[:7], removed=0.5)),
        (ValueError, r"svd_llm: weight has shape \[8\]", lambda w, a, g: lowrank.svd_llm(w[0], g, removed=0.5)),
        (TypeError, "asvd: weight is int32", lambda w, a, g: lowrank.asvd(w.int(), a, removed=0.5)),
        (TypeError, "gram is float64", lambda w, a, g: lowrank.svd_llm(w, g.double(), removed=0.5)),
        (ValueError, "asvd: weight has 32 NaN", lambda w, a, g: lowrank.asvd(w / 0, a, removed=0.5)),
        (ValueError, "svd_llm: weight has 32 NaN", lambda w, a, g: lowrank.svd_llm(w / 0, g, removed=0.5)),
        (ValueError, "gram has 64 NaN", lambda w, a, g: lowrank.svd_llm(w, g / 0, removed=0.5)),
        (ValueError, "gram has 8 negative diagonal entries", lambda w, a, g: lowrank.svd_llm(w, -g, removed=0.5)),
        (
            ValueError,
            "activation_absmean has 8 NaN, infinite or negative entries",
            lambda w, a, g: lowrank.asvd(w, -a, removed=0.5),
        ),
        (
            hemostat.NumericalError,
            "hemostat.lowrank.svd_llm: the outputs' second moments are not finite",
            lambda w, a, g: lowrank.svd_llm(w, g * NAN, removed=0.5, check_finite=False),
        ),
        (
            hemostat.NumericalError,
            "hemostat.lowrank.asvd: the outputs' second moments are not finite",
            lambda w, a, g: lowrank.asvd(w, 1e30 * a, removed=0.5, alpha=20),
        ),
    ],
)
def test_bad_input(device, error, message, call):
    weight, absmean = torch.ones(4, 8, device=device), torch.ones(8, device=device)
    with pytest.raises(error, match=message):
        call(weight, absmean, torch.eye(8, device=device) + 1)
