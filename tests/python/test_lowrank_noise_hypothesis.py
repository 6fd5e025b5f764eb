"""Rooms lowrank and noise on drawn shapes, strides, dtypes and values."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_strategies import about, assert_same, matrices, result_of, sparsities, tensors

from hemostat import lowrank, noise


@about("lowrank.svd", "lowrank.decompose", "lowrank.rank_for")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), sparsities)
def test_svd_is_the_closest_product(device, weight, removed):
    before = weight.clone()
    factors = lowrank.svd(weight.to(device), removed=removed)
    rank = lowrank.rank_for(removed, *weight.shape)
    assert factors.a.shape == (weight.shape[0], rank) and factors.b.shape == (rank, weight.shape[1])
    assert factors.a.dtype == factors.b.dtype == factors.weight.dtype == weight.dtype
    assert factors.a.is_contiguous() and factors.b.is_contiguous()
    assert factors.a.numel() + factors.b.numel() <= max((1 - removed) * weight.numel() + 1e-6, sum(weight.shape))
    assert_same(weight, before)
    once = lowrank.decompose(weight.to(device)).at(removed)
    assert_same(once.a, factors.a)
    assert_same(once.b, factors.b)
    least = float(torch.linalg.svdvals(weight.double())[rank:].square().sum().sqrt())  # Eckart and Young
    error = float((factors.a.cpu().double() @ factors.b.cpu().double() - weight.double()).norm())
    size = float(weight.double().norm())
    assert least - 1e-5 * size <= error <= least + 4 * torch.finfo(weight.dtype).eps * size + 1e-5 * size


@about("lowrank.asvd", "lowrank.decompose_asvd", "lowrank.svd_llm", "lowrank.decompose_svd_llm")
@given(
    matrices(values=("normal", "ties", "sparse", "zero", "constant")), sparsities, st.integers(1, 40), st.floats(0, 2)
)
def test_activation_aware_factors_err_least_on_their_inputs(device, weight, removed, tokens, alpha):
    x = torch.randn(tokens, weight.shape[1], generator=torch.Generator().manual_seed(tokens))
    gram, absmean = (x.T @ x / tokens).to(device), x.abs().mean(0).to(device)
    second, scale = gram.cpu().double(), torch.diag(absmean.cpu().double() ** alpha + 1e-6)
    before, given = weight.clone(), weight.to(device)
    for factors, once, seen in (
        (
            lowrank.svd_llm(given, gram, removed=removed, damp=0.1),
            lowrank.decompose_svd_llm(given, gram, damp=0.1),
            torch.linalg.cholesky(second + 0.1 * second.diagonal().mean() * torch.eye(len(second))),
        ),
        (
            lowrank.asvd(given, absmean, removed=removed, alpha=alpha),
            lowrank.decompose_asvd(given, absmean, alpha=alpha),
            scale,
        ),
    ):
        rank = lowrank.rank_for(removed, *weight.shape)
        assert factors.a.shape == (weight.shape[0], rank) and factors.b.shape == (rank, weight.shape[1])
        assert factors.a.dtype == factors.b.dtype == factors.weight.dtype == weight.dtype
        assert factors.a.is_contiguous() and factors.b.is_contiguous()
        assert_same(weight, before)
        assert_same(once.at(removed).a, factors.a)
        assert_same(once.at(removed).b, factors.b)
        outputs = weight.double() @ seen
        least, size = float(torch.linalg.svdvals(outputs)[rank:].square().sum().sqrt()), float(outputs.norm())
        error = float((factors.a.cpu().double() @ factors.b.cpu().double() @ seen - outputs).norm())
        slack = (1e-5 + 4 * torch.finfo(weight.dtype).eps) * float(weight.double().norm() * seen.norm())
        assert least - 1e-5 * size <= error <= least + slack


# Noise.


@about("noise.gaussian", "noise.apply", "noise.direction")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), st.floats(0, 4), st.integers(0, 2**40))
def test_gaussian_is_its_formula(device, weight, sigma, seed):
    noisy = result_of(noise.gaussian, weight, sigma=sigma, seed=seed, device=device, exact=False)
    z = noise.direction(list(weight.shape), seed=seed, device=str(device))
    assert z.dtype == torch.float32 and z.isfinite().all()
    assert_same(z.cpu(), noise.direction(list(weight.shape), seed=seed))
    assert noisy.dtype == weight.dtype
    assert_same(result_of(noise.apply, weight, z, sigma=sigma, device=device, exact=False), noisy)
    if weight.numel():
        exact = weight.double() + sigma * weight.double().std(correction=0) * z.cpu().double()
        torch.testing.assert_close(noisy, exact.to(weight.dtype), rtol=torch.finfo(weight.dtype).eps, atol=1e-5)
    if sigma == 0:
        assert_same(noisy, weight)


@about("noise.isotropic")
@given(matrices(values=("normal", "ties", "sparse", "zero", "constant")), st.floats(0, 4), st.integers(0, 2**40))
def test_isotropic_noise_has_its_norm(device, weight, norm, seed):
    noisy = result_of(noise.isotropic, weight, norm=norm, seed=seed, device=device, exact=False)
    assert noisy.dtype == weight.dtype
    if weight.numel():
        added = float((noisy.double() - weight.double()).norm())
        rounding = torch.finfo(weight.dtype).eps * float(noisy.double().norm() + weight.double().norm())
        assert abs(added - norm) <= 1e-4 * norm + rounding + torch.finfo(weight.dtype).smallest_normal
    if norm == 0:
        assert_same(noisy, weight)


@about("noise.activation_noise")
@given(
    tensors(
        st.lists(st.integers(0, 9), min_size=1, max_size=4), values=("normal", "ties", "sparse", "zero", "constant")
    ),
    st.floats(0, 4),
    st.integers(0, 2**62),
)
def test_activation_noise_on_each_token_alone(device, x, sigma, seed):
    noisy = result_of(noise.activation_noise, x, sigma=sigma, seed=seed, device=device, exact=False)
    assert noisy.dtype == x.dtype and noisy.isfinite().all()
    if x.numel() == 0:
        return
    tokens, width = x.reshape(-1, *x.shape[-2:]), 12 * sigma + 1e-3  # beyond any draw
    spread = x.double().std(-1, correction=0, keepdim=True)
    assert ((noisy.double() - x.double()).abs() <= width * spread + 1e-2 * x.double().abs() + 1e-5).all()
    first = noise.activation_noise(tokens[0].to(device), sigma=sigma, seed=seed).cpu()
    torch.testing.assert_close(noisy.reshape(tokens.shape)[0], first)
    if sigma == 0:
        assert_same(noisy, x)


@about("noise.bit_flip", "noise.stuck_at")
@given(st.data())
def test_faulty_bits(device, data):
    weight, rate, seed = data.draw(matrices()), data.draw(st.floats(0, 1)), data.draw(st.integers(0, 2**62))
    codes = data.draw(st.booleans())
    weight = (weight.float().abs() % 256).byte() if codes else weight
    bits = data.draw(st.integers(1, 8)) if codes else 8 * weight.element_size()
    options = {"rate": rate, "seed": seed} | ({"bits": bits} if codes else {})
    if data.draw(st.booleans()):
        options["bit"] = data.draw(st.integers(0, bits - 1))
    flipped = result_of(noise.bit_flip, weight, device=device, **options)
    low, high = (result_of(noise.stuck_at, weight, value=value, device=device, **options) for value in (0, 1))
    assert flipped.dtype == low.dtype == high.dtype == weight.dtype

    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[weight.element_size()]
    stored, other, zeros, ones = (x.contiguous().view(integer) for x in (weight, flipped, low, high))
    assert_same(zeros, stored & other)
    assert_same(ones, stored | other)
    reach = 2 ** options["bit"] if "bit" in options else 2**bits - 1
    assert (((stored ^ other).long() & ~reach & (2 ** (8 * weight.element_size()) - 1)) == 0).all()
    more = noise.bit_flip(weight.to(device), **options | {"rate": (1 + rate) / 2}).cpu().contiguous().view(integer)
    assert ((stored ^ other) & ~(stored ^ more) == 0).all()
    if rate == 0:
        assert_same(stored, other)
