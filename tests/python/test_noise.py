"""Room noise: reproducible, relative to the weight's own spread."""

import pytest
import torch

from hemostat import noise

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def some_weight(device, *shape, dtype=torch.float32):
    return (0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.1).to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_is_the_formula(device, dtype):
    weight = some_weight(device, 33, 65, dtype=dtype)
    z = noise.direction([33, 65], seed=7, device=str(device))
    noisy = noise.gaussian(weight, sigma=0.3, seed=7)
    deviation = weight.double().std(correction=0)
    expected = weight.double() + 0.3 * deviation * z.double()
    assert noisy.dtype == dtype and noisy.is_contiguous()
    torch.testing.assert_close(noisy, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8)
    assert torch.equal(noise.apply(weight, z, sigma=0.3), noisy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_isotropic_has_the_given_norm_along_the_direction(device, dtype):
    weight = some_weight(device, 33, 65, dtype=dtype)
    z = noise.direction([33, 65], seed=7, device=str(device)).double()
    noisy = noise.isotropic(weight, norm=1.5, seed=7)
    expected = weight.double() + 1.5 * z / z.norm()
    assert noisy.dtype == dtype and noisy.is_contiguous()
    torch.testing.assert_close(noisy, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8)
    if dtype == torch.float32:
        assert float((noisy - weight).norm()) == pytest.approx(1.5, rel=1e-5)
    assert torch.equal(noise.isotropic(weight, norm=0.0), weight)
    assert torch.equal(noise.isotropic(weight[:, :0], norm=1.0), weight[:, :0])
    torch.testing.assert_close(
        noise.isotropic(weight.t(), norm=1.0), noise.isotropic(weight.t().contiguous(), norm=1.0)
    )


def test_direction_is_standard_normal():
    z = noise.direction([1000, 1000], seed=3).double()
    assert abs(float(z.mean())) < 5e-3
    assert abs(float(z.std()) - 1) < 5e-3
    assert abs(float(z.pow(4).mean()) - 3) < 0.05
    within = float((z.abs() < 1).double().mean())
    assert within == pytest.approx(0.682689, abs=3e-3)


def test_relative_size_of_the_noise(device):
    weight = some_weight(device, 500, 500)
    noisy = noise.gaussian(weight, sigma=0.2)
    assert float((noisy - weight).std() / weight.std()) == pytest.approx(0.2, rel=0.01)


def test_seeds_repeat_and_differ(device):
    weight = some_weight(device, 40, 50)
    first = noise.gaussian(weight, sigma=0.1, seed=1)
    assert torch.equal(first, noise.gaussian(weight, sigma=0.1, seed=1))
    assert not torch.equal(first, noise.gaussian(weight, sigma=0.1, seed=2))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    noise.gaussian(weight, sigma=0.1)
    assert torch.equal(state, torch.get_rng_state())


def test_threads_do_not_matter():
    weight = some_weight("cpu", 700, 900)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = noise.direction([700, 900], seed=5)
        torch.set_num_threads(max(2, before))
        many = noise.direction([700, 900], seed=5)
        assert torch.equal(one, many)
        assert torch.equal(noise.apply(weight, one, sigma=0.5), noise.apply(weight, many, sigma=0.5))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neutral_and_constant_change_nothing(device, dtype):
    weight = some_weight(device, 9, 11, dtype=dtype)
    assert torch.equal(noise.gaussian(weight, sigma=0.0), weight)
    constant = torch.full((30, 40), 0.1, device=device, dtype=dtype)
    assert torch.equal(noise.gaussian(constant, sigma=0.5), constant)
    one = torch.full((1, 1), 3.0, device=device, dtype=dtype)
    assert torch.equal(noise.gaussian(one, sigma=0.5), one)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_empty(device, shape):
    assert noise.gaussian(torch.empty(shape, device=device), sigma=0.5).shape == shape


def test_strides_do_not_matter(device):
    base = some_weight(device, 40, 60)
    for view in (base.t(), base[::2, 1::3]):
        noisy = noise.gaussian(view, sigma=0.2)
        assert noisy.is_contiguous()
        torch.testing.assert_close(noisy, noise.gaussian(view.contiguous(), sigma=0.2))


def test_out_is_returned(device):
    weight = some_weight(device, 6, 8)
    expected = noise.gaussian(weight, sigma=0.3)
    out = torch.empty_like(weight)
    assert noise.gaussian(weight, sigma=0.3, out=out) is out
    assert torch.equal(out, expected)
    assert noise.gaussian(weight, sigma=0.3, out=weight) is weight
    assert torch.equal(weight, expected)


def test_the_noise_is_a_constant_to_autograd(device):
    weight = some_weight(device, 6, 8).requires_grad_()
    noise.gaussian(weight, sigma=0.3).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "gaussian: sigma is -1", lambda w: noise.gaussian(w, sigma=-1)),
        (ValueError, "gaussian: sigma is inf", lambda w: noise.gaussian(w, sigma=float("inf"))),
        (ValueError, "isotropic: norm is -1", lambda w: noise.isotropic(w, norm=-1)),
        (ValueError, "isotropic: norm is nan", lambda w: noise.isotropic(w, norm=float("nan"))),
        (ValueError, "isotropic: seed is -1", lambda w: noise.isotropic(w, norm=1, seed=-1)),
        (ValueError, "isotropic: weight has 32 NaN", lambda w: noise.isotropic(w / 0, norm=1)),
        (ValueError, "gaussian: seed is -1", lambda w: noise.gaussian(w, sigma=0.1, seed=-1)),
        (ValueError, "direction: seed is -1", lambda w: noise.direction([2], seed=-1)),
        (ValueError, r"direction: sizes are \[2, -1\]", lambda w: noise.direction([2, -1])),
        (ValueError, r"weight has shape \[8\]", lambda w: noise.gaussian(w[0], sigma=0.1)),
        (TypeError, "weight is int64", lambda w: noise.gaussian(w.long(), sigma=0.1)),
        (ValueError, "weight has 32 NaN or infinite entries", lambda w: noise.gaussian(w / 0, sigma=0.1)),
        (ValueError, r"direction has shape \[4\]", lambda w: noise.apply(w, w[:, 0], sigma=0.1)),
        (TypeError, "direction must be float32", lambda w: noise.apply(w, w.half(), sigma=0.1)),
        (ValueError, "out has shape", lambda w: noise.gaussian(w, sigma=0.1, out=w[:2])),
    ],
)
def test_bad_input(device, error, message, call):
    weight = torch.ones(4, 8, device=device)
    with pytest.raises(error, match=message):
        call(weight)
    assert bool((weight == 1).all())
