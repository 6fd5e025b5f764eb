"""Kernel bit_faults_: the draws of every bit, what a fault does, and that rates share their draws."""

import math

import pytest
import torch
from kernel_references import DTYPES, bits_of, ops, random, reference_draws
from torch.library import opcheck

FLIP, ALL = 2, {torch.float32: 32, torch.bfloat16: 16, torch.float16: 16, torch.uint8: 8}


def faults(device, like, rate, seed=0, first=0, bits=None, fault=FLIP):
    """Which bits differ after faults in a copy."""
    damaged = like.clone().to(device)
    assert ops.bit_faults_(damaged, rate, seed, first, bits or ALL[like.dtype], fault) is None
    return bits_of(damaged) ^ bits_of(like)


def some(shape, dtype):
    return (100 * random(*shape)).abs().to(dtype)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
@pytest.mark.parametrize("rate", [0.0, 1e-3, 0.1, 0.7, 1.0])
def test_a_bit_is_faulty_where_its_draw_is_below_the_rate(device, dtype, rate):
    for shape in [(1, 1), (3, 7), (40, 33)]:
        values = some(shape, dtype)
        found = faults(device, values, rate, seed=5)
        draws = reference_draws(found.numel(), 5).view(found.shape)
        # Survivals are rounded in each of nine levels; a draw that close to the rate may fall on either side.
        near = (draws - rate).abs() < 1e-12
        assert torch.equal(found | near, (draws < rate) | near)
        assert rate in (0.0, 1.0) or not near.any()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
def test_stuck_bits_read_what_they_are_stuck_at(device, dtype):
    values, rate = some((20, 30), dtype), 0.2
    faulty = faults(device, values, rate)
    for fault in (0, 1):
        damaged = values.clone().to(device)
        ops.bit_faults_(damaged, rate, 0, 0, ALL[dtype], fault)
        expected = bits_of(values) & ~faulty if fault == 0 else bits_of(values) | faulty
        assert torch.equal(bits_of(damaged), expected)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
def test_other_positions_keep_what_they_hold(device, dtype):
    values = some((50, 40), dtype)
    everywhere = faults(device, values, 0.05)
    for first, bits in [(0, 1), (3, 4), (ALL[dtype] - 1, 1)]:
        found = faults(device, values, 0.05, first=first, bits=bits)
        assert torch.equal(found[:, first : first + bits], everywhere[:, first : first + bits])
        assert found.sum() == found[:, first : first + bits].sum() > 0


def test_more_faults_at_a_higher_rate_are_the_same_and_more(device):
    values, before = some((200, 300), torch.float32), None
    for rate in (1e-6, 1e-4, 1e-3, 1e-2, 0.3, 1.0):
        found = faults(device, values, rate, seed=3)
        assert before is None or not (before & ~found).any()
        before = found
    assert before.all()


@pytest.mark.parametrize("rate", [3e-6, 1e-4, 1e-2, 0.3])
def test_as_many_as_the_rate_says_and_everywhere_alike(device, rate):
    values = torch.zeros(1000, 2000)
    found = faults(device, values, rate, seed=11)
    bits = found.numel()
    assert abs(int(found.sum()) - rate * bits) < 5 * math.sqrt(rate * (1 - rate) * bits)
    if rate < 1e-4:
        return
    # Of each position in a word, and in each of a group's halves, as many.
    for parts in (found.sum(0), found.view(-1, 512).sum(0)):
        expected = rate * bits / len(parts)
        assert ((parts - expected).abs() < 6 * math.sqrt(expected)).all()
    # Neighbours are independent: both are faulty by chance alone.
    flat = found.flatten()
    for distance in (1, 32, 256, 512):
        both = int((flat[:-distance] & flat[distance:]).sum())
        expected = rate**2 * bits
        assert abs(both - expected) < 6 * math.sqrt(expected) + 6


def test_seeds_differ(device):
    values = torch.zeros(100, 100)
    one, other = (faults(device, values, 0.01, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)
    expected = 0.01**2 * one.numel()
    assert abs(int((one & other).sum()) - expected) < 6 * math.sqrt(expected)
    assert torch.equal(one, faults(device, values, 0.01, seed=0))
    assert not torch.equal(one, faults(device, values, 0.01, seed=-1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
def test_opcheck(device, dtype):
    for shape in [(6, 32), (0, 4)]:
        opcheck(ops.bit_faults_.default, (some(shape, dtype).to(device), 0.1, 3, 1, 4, FLIP))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
def test_compile(device):
    def damaged(values):
        copy = values * 2
        ops.bit_faults_(copy, 0.1, 3, 0, 16, FLIP)
        return copy + 1

    compiled = torch.compile(damaged, fullgraph=True, backend="aot_eager")
    for shape in [(6, 32), (9, 64)]:
        values = random(*shape).to(device)
        assert torch.equal(compiled(values), damaged(values))


def test_refused(device):
    values = torch.zeros(4, 8, device=device)
    for message, arguments in [
        ("values is Double", (values.double(), 0.1, 0, 0, 32, 2)),
        ("values is not contiguous", (values.t(), 0.1, 0, 0, 32, 2)),
        ("rate must be in 0 … 1, got 1.5", (values, 1.5, 0, 0, 32, 2)),
        ("rate must be in 0 … 1, got nan", (values, float("nan"), 0, 0, 32, 2)),
        ("first_bit = 1 and bits = 32 must name bits of 32", (values, 0.1, 0, 1, 32, 2)),
        ("first_bit = 0 and bits = 0", (values, 0.1, 0, 0, 0, 2)),
        ("first_bit = 0 and bits = 17 must name bits of 16", (values.half(), 0.1, 0, 0, 17, 2)),
        ("fault must be 0, 1 or 2, got 3", (values, 0.1, 0, 0, 32, 3)),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            ops.bit_faults_(*arguments)
    assert (values == 0).all()
