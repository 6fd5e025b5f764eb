"""Room lowrank against scipy's decompositions in float64."""

import numpy as np
import pytest
import scipy.linalg
import torch

from hemostat import lowrank


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (50, 50)])
@pytest.mark.parametrize("removed", [0.0, 0.3, 0.8])
def test_svd_is_the_closest_of_its_rank(shape, removed):
    # A falling spectrum: where two singular values are nearly equal, which of them is kept is up to rounding.
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(side, min(shape), generator=generator))[0] for side in shape)
    weight = (left * 0.9 ** torch.arange(min(shape))) @ right.T
    factors = lowrank.svd(weight, removed=removed)
    u, s, vh = scipy.linalg.svd(weight.double().numpy(), full_matrices=False)
    rank = factors.rank
    expected = (u[:, :rank] * s[:rank]) @ vh[:rank]
    np.testing.assert_allclose(factors.weight.numpy(), expected, atol=1e-5)
    # Eckart and Young: what is missing is the tail of the spectrum.
    missing = float((weight - factors.weight).double().norm())
    assert missing == pytest.approx(float(np.sqrt((s[rank:] ** 2).sum())), rel=1e-5)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (50, 50)])
@pytest.mark.parametrize("removed", [0.0, 0.3, 0.8])
def test_activation_aware_factors_are_the_papers(shape, removed):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    x = torch.randn(300, shape[1], generator=generator) @ torch.randn(shape[1], shape[1], generator=generator)
    x *= torch.logspace(-1, 1, shape[1])
    gram, absmean = x.T @ x / len(x), x.abs().mean(0)
    # SVD-LLM: the Cholesky factor of the inputs' second moments; ASVD: the diagonal of mean activations.
    cholesky = scipy.linalg.cholesky(gram.double().numpy(), lower=True)
    diagonal = np.diag(np.sqrt(absmean.double().numpy()) + 1e-6)
    for scale, factors in (
        (cholesky, lowrank.svd_llm(weight, gram, removed=removed)),
        (diagonal, lowrank.asvd(weight, absmean, removed=removed)),
    ):
        u, s, vh = scipy.linalg.svd(weight.double().numpy() @ scale, full_matrices=False)
        rank = factors.rank
        expected = (u[:, :rank] * s[:rank]) @ vh[:rank] @ np.linalg.inv(scale)
        np.testing.assert_allclose(factors.weight.numpy(), expected, atol=2e-4)
