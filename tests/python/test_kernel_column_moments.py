"""Kernel column_moments: sums and maxima of columns."""

import pytest
import torch
from kernel_references import DTYPES, ops, random
from torch.library import opcheck


def close(found, expected):
    torch.testing.assert_close(found.cpu().double(), expected, rtol=2e-6, atol=0)


# Around the rows of a sum in float32, of a part, and the columns of a task.
SHAPES = [(1, 1), (7, 3), (8, 512), (33, 513), (128, 40), (129, 1025), (1000, 5)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_formulas(device, dtype, shape):
    x = random(*shape).to(dtype)
    squares, magnitudes, largest = ops.column_moments(x.to(device))
    assert [t.dtype for t in (squares, magnitudes, largest)] == [torch.float64, torch.float64, torch.float32]
    close(squares, x.double().square().sum(0))
    close(magnitudes, x.double().abs().sum(0))
    assert torch.equal(largest.cpu(), x.float().abs().amax(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(device, dtype):
    x = random(150, 70, dtype=dtype).to(device)
    for view in (x.t(), x[::2, ::3], x[:, 1:], x[:1].expand(90, 70)):
        for found, expected in zip(ops.column_moments(view), ops.column_moments(view.contiguous()), strict=True):
            assert torch.equal(found, expected)


def test_any_value(device):
    x = random(300, 4)
    x[200, 0], x[3, 1], x[299, 2] = float("nan"), float("inf"), torch.finfo(torch.float32).max
    squares, magnitudes, largest = (t.cpu() for t in ops.column_moments(x.to(device)))
    for found in (squares, magnitudes, largest):
        assert found[0].isnan() and found[1] == float("inf") and found[3].isfinite()
    assert largest[2] == torch.finfo(torch.float32).max
    assert magnitudes[2].isfinite()


@pytest.mark.parametrize("shape", [(0, 0), (0, 8), (4, 0)])
def test_empty(device, shape):
    for found in ops.column_moments(torch.empty(shape, device=device)):
        assert torch.equal(found.cpu().float(), torch.zeros(shape[1]))


def test_the_number_of_threads_changes_nothing():
    x, threads, found = random(1000, 1500), torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(ops.column_moments(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("wants_gradient", [False, True])
def test_opcheck(device, wants_gradient):
    opcheck(ops.column_moments.default, (random(6, 32).to(device).requires_grad_(wants_gradient),))
    assert not any(t.requires_grad for t in ops.column_moments(random(6, 32).to(device).requires_grad_()))


def test_refused(device):
    with pytest.raises(ValueError, match=r"column_moments: x has shape \[8\]"):
        ops.column_moments(torch.zeros(8, device=device))
    with pytest.raises(TypeError, match="column_moments: x is Double"):
        ops.column_moments(torch.zeros(8, 4, device=device).double())
