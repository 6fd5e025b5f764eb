"""Room quantize: rounding to levels, packed codes, clip search, gradients, errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hemostat import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def reference_rtn(weight, bits, group_size, symmetric):
    """The contract's formula, in float32. → values in weight's dtype, scale [groups, 1] and zero [groups, 1]"""
    levels = round(2**bits)
    groups = weight.float().reshape(-1, group_size)
    high, low = groups.amax(1, True).clamp_min(0), groups.amin(1, True).clamp_max(0)
    if symmetric:
        scale = 2 * torch.maximum(high, -low) / (levels - 1)
        zero = torch.full_like(scale, levels // 2)
    else:
        scale = (high - low) / (levels - 1)
        zero = torch.where(scale > 0, torch.round(-low / scale), 0)
    codes = torch.where(scale > 0, torch.round(groups / scale), 0).add(zero).clamp(0, levels - 1)
    return ((codes - zero) * scale).view(weight.shape).to(weight.dtype), scale, zero


def some_weight(device, *shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 2.5, 3, 4, 6.3, 8])
@pytest.mark.parametrize("group_size", [None, -1, "tensor", 8, 24])
def test_rtn(device, dtype, symmetric, bits, group_size):
    weight = some_weight(device, 37, 72, dtype=dtype)
    weight[3] = 0  # a row without a range
    weight[4] = weight[4].abs()  # ranges that end at 0
    weight[5] = -weight[5].abs()
    entries = {None: 72, -1: 72, "tensor": weight.numel()}.get(group_size, group_size)
    rounded = quantize.rtn(weight, bits=bits, group_size=group_size, symmetric=symmetric)
    expected = reference_rtn(weight.cpu(), bits, entries, symmetric)[0]
    assert rounded.dtype == dtype and rounded.is_contiguous()
    assert torch.equal(rounded.cpu(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("search_clip", [False, True])
@pytest.mark.parametrize("group_size", [None, "tensor", 8])
def test_packed_codes_are_the_same_weight(device, dtype, symmetric, search_clip, group_size):
    weight = some_weight(device, 12, 32, dtype=dtype)
    weight[2] = 0
    options = dict(bits=3, group_size=group_size, symmetric=symmetric, search_clip=search_clip)
    packed = quantize.rtn(weight, packed=True, **options)
    groups = {None: (12, 1), "tensor": (1, 1), 8: (12, 4)}[group_size]
    assert isinstance(packed, quantize.GroupPacked) and isinstance(packed, quantize.PackedWeight)
    assert packed.codes.dtype == torch.uint8 and packed.codes.shape == weight.shape
    assert int(packed.codes.max()) <= 7
    assert packed.scale.dtype == packed.zero.dtype == torch.float32
    assert packed.scale.shape == packed.zero.shape == groups
    assert packed.shape == (12, 32) and packed.bits == 3 and packed.symmetric is symmetric
    assert packed.group_size == {None: 32}.get(group_size, group_size)
    assert packed.dtype == dtype == packed.dequantize().dtype
    assert torch.equal(packed.dequantize(), quantize.rtn(weight, **options))
    assert torch.equal(packed.to("cpu").dequantize(), packed.dequantize().cpu())
    assert "bits=3" in repr(packed)


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric", "expected"),
    [
        (4, 128, False, 4 + 32 / 128),
        (4, 128, True, 4 + 16 / 128),
        (2, None, False, 2 + 32 / 256),
        (2.5, 64, False, 3 + 32 / 64),
        (8, "tensor", False, 8 + 32 / (256 * 3)),
    ],
)
def test_bits_per_weight(bits, group_size, symmetric, expected):
    packed = quantize.rtn(torch.randn(3, 256), bits=bits, group_size=group_size, symmetric=symmetric, packed=True)
    assert packed.bits_per_weight == pytest.approx(expected, rel=1e-12)


def test_levels():
    assert [quantize.levels(bits) for bits in (2, 2.5, 3, 4.0, 8)] == [4, 6, 8, 16, 256]


@settings(deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 33),
    st.floats(2, 8),
    st.booleans(),
    st.sampled_from([1e-30, 1e-3, 1.0, 1e30]),
    st.integers(0, 2**31),
)
def test_invariants(rows, columns, bits, symmetric, size, seed):
    weight = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) < 0.2] = 0
    packed = quantize.rtn(weight, bits=bits, symmetric=symmetric, packed=True)
    rounded = packed.dequantize()
    levels = quantize.levels(bits)
    assert bool((rounded[weight == 0] == 0).all())
    assert int(packed.codes.max()) < levels
    # Half a step, and for an even count of symmetric levels the clamped top one; where the zero point itself was
    # rounded away from a range's end, that end may be off by half a step more.
    steps = 0.5 if symmetric else 1.0
    assert bool(((rounded - weight).abs() <= packed.scale * (steps + 1e-4)).all())
    again = quantize.rtn(rounded, bits=bits, symmetric=symmetric)
    if not symmetric:  # the symmetric range of a clamped group shrinks when it is rounded again
        torch.testing.assert_close(again, rounded, rtol=1e-5, atol=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_more_bits_err_less(device, symmetric):
    weight = some_weight(device, 64, 256)
    errors = [
        float((quantize.rtn(weight, bits=bits, symmetric=symmetric) - weight).square().mean()) for bits in range(2, 9)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_do_not_matter(device, dtype):
    base = some_weight(device, 48, 96, dtype=dtype)
    for view in (base.t(), base[::2, 1:65], base[:, ::2], base[:1].expand(6, -1)):
        for search_clip in (False, True):
            options = dict(bits=3, group_size=8, search_clip=search_clip)
            assert torch.equal(quantize.rtn(view, **options), quantize.rtn(view.contiguous(), **options))
    assert torch.equal(quantize.activation(base.t(), bits=4), quantize.activation(base.t().contiguous(), bits=4))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_empty(device, shape):
    weight = torch.empty(shape, device=device)
    for group_size in (None, "tensor", 2):
        for search_clip in (False, True):
            options = dict(bits=4, group_size=group_size, search_clip=search_clip)
            assert quantize.rtn(weight, **options).shape == shape
            packed = quantize.rtn(weight, packed=True, **options)
            assert packed.shape == packed.dequantize().shape == shape
    assert quantize.activation(weight, bits=4).shape == shape


def test_one_element(device):
    for value in (-3.0, 0.0, 5.0):
        weight = torch.full((1, 1), value, device=device)
        assert quantize.rtn(weight, bits=2).item() == value


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [None, "tensor", 16])
def test_search_clip_never_errs_more(device, symmetric, group_size):
    weight = some_weight(device, 16, 64)
    entries = {None: 64, "tensor": 1024}.get(group_size, group_size)

    def error(search_clip):
        rounded = quantize.rtn(weight, bits=3, group_size=group_size, symmetric=symmetric, search_clip=search_clip)
        return (rounded - weight).square().reshape(-1, entries).sum(1)

    assert bool((error(True) <= error(False) * (1 + 1e-5)).all())
    assert float(error(True).sum()) < 0.95 * float(error(False).sum())


@pytest.mark.parametrize("call", [quantize.rtn, quantize.fake_quantize, quantize.activation])
def test_gradients_pass_straight_through(device, call):
    weight = some_weight(device, 5, 16).requires_grad_()
    gradient = some_weight(device, 5, 16, seed=1)
    rounded = call(weight, bits=3)
    assert rounded.requires_grad
    assert torch.equal(rounded.detach(), call(weight.detach(), bits=3))
    rounded.backward(gradient)
    assert torch.equal(weight.grad, gradient)
    with torch.no_grad():
        assert not call(weight, bits=3).requires_grad


@pytest.mark.parametrize("search_clip", [False, True])
def test_fake_quantize_is_rtn(device, search_clip):
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)).to(device)
    options = {"bits": 3, "group_size": 8, "search_clip": search_clip}
    out = torch.empty_like(weight)
    assert quantize.fake_quantize(weight, out=out, **options) is not None
    assert torch.equal(out, quantize.rtn(weight, **options))


def test_training_through_fake_quantize(device):
    target = some_weight(device, 4, 8, seed=2)
    weight = torch.nn.Parameter(torch.zeros(4, 8, device=device))
    optimizer = torch.optim.SGD([weight], lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        loss = (quantize.fake_quantize(weight, bits=4) - target).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * float(target.square().sum())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", [(7,), (3, 16), (2, 5, 16), (2, 1, 3, 33)])
def test_activation_scales_each_token(device, dtype, symmetric, shape):
    x = some_weight(device, *shape, dtype=dtype)
    x = x * torch.logspace(-2, 2, x[..., :1].numel(), device=device).view(*shape[:-1], 1).to(dtype)
    rounded = quantize.activation(x, bits=4, symmetric=symmetric)
    assert rounded.dtype == dtype and rounded.shape == x.shape
    assert torch.equal(rounded.cpu(), reference_rtn(x.cpu(), 4, shape[-1], symmetric)[0])


def test_out_is_returned(device):
    weight = some_weight(device, 6, 8)
    for call in (
        lambda w, **out: quantize.rtn(w, bits=3, **out),
        lambda w, **out: quantize.rtn(w, bits=3, search_clip=True, **out),
        lambda w, **out: quantize.activation(w, bits=3, **out),
    ):
        expected = call(weight)
        out = torch.empty_like(weight)
        assert call(weight, out=out) is out
        assert torch.equal(out, expected)
        in_place = weight.clone()
        assert call(in_place, out=in_place) is in_place
        assert torch.equal(in_place, expected)


def test_nan_and_infinities_are_counted_and_leave_the_weight(device):
    weight = some_weight(device, 4, 8)
    weight[0, 0], weight[1, 2], weight[3, 3] = float("nan"), float("inf"), float("-inf")
    before = weight.clone()
    for name, call in (
        ("rtn: weight", lambda **o: quantize.rtn(weight, bits=4, **o)),
        ("rtn: weight", lambda **o: quantize.rtn(weight, bits=4, packed=True, **o)),
        ("rtn: weight", lambda **o: quantize.rtn(weight, bits=4, search_clip=True, **o)),
        ("rtn: weight", lambda **o: quantize.rtn(weight, bits=4, out=weight, **o)),
        ("fake_quantize: weight", lambda **o: quantize.fake_quantize(weight, bits=4, **o)),
        ("activation: input", lambda **o: quantize.activation(weight, bits=4, **o)),
        ("activation: input", lambda **o: quantize.activation(weight, bits=4, out=weight, **o)),
    ):
        with pytest.raises(ValueError, match=f"hemostat.quantize.{name} has 3 NaN or infinite entries"):
            call()
        torch.testing.assert_close(weight, before, rtol=0, atol=0, equal_nan=True)
    assert quantize.rtn(weight, bits=4, check_finite=False).shape == weight.shape


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "bits is 1, but must be from 2 to 8", lambda w: quantize.rtn(w, bits=1)),
        (ValueError, "bits is 8.5", lambda w: quantize.rtn(w, bits=8.5)),
        (ValueError, "bits is nan", lambda w: quantize.rtn(w, bits=float("nan"))),
        (ValueError, "activation: bits is 16", lambda w: quantize.activation(w, bits=16)),
        (ValueError, "levels: bits is 9", lambda w: quantize.levels(9)),
        (
            ValueError,
            "group_size is 5, which does not divide weight's 8 input features; 1, 2, 4, 8 would",
            lambda w: quantize.rtn(w, bits=4, group_size=5),
        ),
        (ValueError, "group_size is 0", lambda w: quantize.rtn(w, bits=4, group_size=0)),
        (ValueError, "group_size is -2", lambda w: quantize.rtn(w, bits=4, group_size=-2)),
        (ValueError, 'group_size is "row"', lambda w: quantize.rtn(w, bits=4, group_size="row")),
        (ValueError, "fake_quantize: group_size is 3", lambda w: quantize.fake_quantize(w, bits=4, group_size=3)),
        (ValueError, r"weight has shape \[8\]", lambda w: quantize.rtn(w[0], bits=4)),
        (ValueError, "input is a scalar", lambda w: quantize.activation(w[0, 0], bits=4)),
        (TypeError, "weight is int8", lambda w: quantize.rtn(w.char(), bits=4)),
        (TypeError, "input is float64", lambda w: quantize.activation(w.double(), bits=4)),
        (TypeError, "out is bfloat16, but must be float32", lambda w: quantize.rtn(w, bits=4, out=w.bfloat16())),
        (ValueError, r"out has shape \[4, 4\]", lambda w: quantize.rtn(w, bits=4, out=w[:, :4])),
        (ValueError, "out must be contiguous", lambda w: quantize.rtn(w, bits=4, out=w.T.contiguous().T)),
        (ValueError, "out overlaps weight in part", lambda w: quantize.rtn(w[:2], bits=4, out=w[1:3])),
        (ValueError, "out cannot be given with packed", lambda w: quantize.rtn(w, bits=4, packed=True, out=w)),
        (
            ValueError,
            "out cannot be given while weight requires a gradient",
            lambda w: quantize.rtn(w.clone().requires_grad_(), bits=4, out=w),
        ),
    ],
)
def test_bad_input(device, error, message, call):
    weight = torch.ones(4, 8, device=device)
    with pytest.raises(error, match=message):
        call(weight)
    assert bool((weight == 1).all())


def test_threads_do_not_matter():
    weight = torch.randn(300, 512, generator=torch.Generator().manual_seed(3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = quantize.rtn(weight, bits=3, group_size=64), quantize.rtn(weight, bits=3, group_size="tensor")
        torch.set_num_threads(max(2, before))
        many = quantize.rtn(weight, bits=3, group_size=64), quantize.rtn(weight, bits=3, group_size="tensor")
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one, many))
