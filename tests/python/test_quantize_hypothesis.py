"""Room quantize on drawn shapes, strides, dtypes and values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operator_strategies import (
    OPERATORS,
    about,
    assert_same,
    gram_of,
    group_sizes,
    layers,
    matrices,
    result_of,
    tensors,
)

from hemostat import quantize

# Weights of a block and bits per weight.
GGUF_BITS = {
    "Q8_0": (32, 8.5),
    "Q6_K": (256, 6.5625),
    "Q5_1": (32, 6),
    "Q5_K": (256, 5.5),
    "Q5_0": (32, 5.5),
    "Q4_1": (32, 5),
    "Q4_K": (256, 4.5),
    "Q4_0": (32, 4.5),
    "IQ4_NL": (32, 4.5),
    "Q3_K": (256, 3.4375),
    "Q2_K": (256, 2.625),
}


def in_range(x, levels):
    """x, small enough that its lowest level, which may be −max|x| · levels/(levels − 1), is finite."""
    return x * ((levels - 1) / levels) * (1 - 2 * torch.finfo(x.dtype).eps)


@pytest.mark.parametrize("symmetric", [False, True])
@about("quantize.rtn", "quantize.fake_quantize", "quantize.levels")
@given(st.data())
def test_rounding_to_levels(device, symmetric, data):
    bits, search = data.draw(st.one_of(st.integers(2, 8), st.floats(2, 8))), data.draw(st.booleans())
    weight = in_range(data.draw(matrices()), quantize.levels(bits))
    options = {"bits": bits, "group_size": data.draw(group_sizes(weight.shape[1])), "symmetric": symmetric}

    rounded = result_of(quantize.rtn, weight, device=device, search_clip=search, **options)
    packed = quantize.rtn(weight.to(device), packed=True, search_clip=search, **options)
    levels = quantize.levels(bits)
    assert rounded.dtype == weight.dtype and rounded.isfinite().all()
    assert_same(packed.dequantize().cpu(), rounded)
    assert packed.codes.numel() == 0 or int(packed.codes.max()) < levels
    assert levels == round(2**bits)
    assert (rounded[weight == 0] == 0).all()
    if not search:
        assert_same(result_of(quantize.fake_quantize, weight, device=device, **options), rounded)
    if search or weight.numel() == 0:
        return

    scale = packed.scale.cpu().double()
    if options["group_size"] != "tensor":
        scale = scale.repeat_interleave(weight.shape[1] // scale.shape[1], 1)
    # Half a step, or one where the zero point was rounded or the top level of a symmetric range is clamped, and then
    # the result's own rounding.
    own = weight.double().abs() * torch.finfo(weight.dtype).eps + torch.finfo(weight.dtype).tiny
    assert ((rounded.double() - weight.double()).abs() <= scale * (1 + 1e-4) + own).all()
    if not symmetric and weight.dtype == torch.float32:
        again = quantize.rtn(rounded.to(device), **options).cpu()
        # A zero point halfway between two levels may push one end of the range off the grid; the next range is smaller.
        codes = packed.codes.cpu().reshape(*packed.scale.shape, -1)
        whole = ((codes.amin(-1) == 0) & (codes.amax(-1) == levels - 1))[..., None].expand_as(codes)
        whole = whole.reshape(weight.shape)
        torch.testing.assert_close(again[whole], rounded[whole], rtol=1e-5, atol=0)


@about("quantize.gguf")
@given(st.data())
def test_rounding_to_gguf_blocks(device, data):
    name, (size, bits) = data.draw(st.sampled_from(sorted(GGUF_BITS.items())))
    blocks = st.tuples(st.integers(0, 3), st.integers(0, 3).map(lambda count: count * size))
    weight = data.draw(tensors(blocks, values=("normal", "ties", "sparse", "zero", "constant", "subnormal")))
    importance = None
    if data.draw(st.booleans()):
        generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        importance = torch.randn(weight.shape[1], generator=generator).clamp(min=0).to(device)
    options = {"type": name, "importance": importance}

    rounded = result_of(quantize.gguf, weight, device=device, **options)
    packed = quantize.gguf(weight.to(device), packed=True, **options)
    assert rounded.dtype == weight.dtype and rounded.isfinite().all()
    assert packed.data.shape == (weight.shape[0], round(weight.shape[1] * bits / 8))
    assert_same(packed.dequantize().cpu(), rounded)
    assert_same(
        quantize.GgufPacked(packed.data, type=name, in_features=weight.shape[1]).dequantize().cpu().to(weight.dtype),
        rounded,
    )
    if weight.numel() and importance is None:
        # Never worse than all zeros, to the rounding of the result and the least that float16's scale can tell from 0.
        own = (weight.double().abs() * torch.finfo(weight.dtype).eps + 1e-6).square().sum()
        assert (rounded.double() - weight.double()).square().sum() <= weight.double().square().sum() * (1 + 1e-3) + own


@pytest.mark.parametrize("search_clip", [False, True])
@about("quantize.awq", "quantize.awq_scale", "quantize.awq_scaled")
@given(st.data(), st.one_of(st.integers(2, 8), st.floats(2, 8)), st.integers(0, 1000))
def test_awq_rounds_a_scaled_weight(device, search_clip, data, bits, seed):
    weight = data.draw(matrices(values=("normal", "ties", "sparse", "zero", "constant"))).to(device)
    size = data.draw(group_sizes(weight.shape[1]).filter(lambda size: size != "tensor"))
    gram, x = gram_of(weight.shape[1], seed)
    absmean, gram = x.abs().mean(0).to(device), gram.to(device)
    options = {"bits": bits, "group_size": size}
    rounded = quantize.awq(weight, absmean, gram, search_clip=search_clip, **options)
    assert rounded.dtype == weight.dtype and rounded.shape == weight.shape and rounded.is_contiguous()
    assert rounded.isfinite().all()
    scale = quantize.awq_scale([weight], absmean, gram, **options)
    assert scale.shape == absmean.shape and (scale > 0).all()
    assert_same(quantize.awq_scaled(weight, scale, gram, search_clip=search_clip, **options), rounded)
    assert_same(quantize.awq(weight.contiguous(), absmean, gram, search_clip=search_clip, **options), rounded)
    if not search_clip:
        x = x.double().to(device)
        awq, rtn = (
            ((w.double() - weight.double()) @ x.T).square().sum() for w in (rounded, quantize.rtn(weight, **options))
        )
        half = torch.finfo(weight.dtype).eps * float((weight.double().abs() @ x.abs().T).square().sum())
        assert awq <= rtn * (1 + 1e-3) + half + 1e-9


@pytest.mark.parametrize("symmetric", [False, True])
@about("quantize.activation")
@given(tensors(st.lists(st.integers(0, 9), min_size=1, max_size=4)), st.one_of(st.integers(2, 8), st.floats(2, 8)))
def test_activation_rounds_each_token_alone(device, symmetric, x, bits):
    x = in_range(x, quantize.levels(bits))
    rounded = result_of(quantize.activation, x, bits=bits, symmetric=symmetric, device=device)
    assert rounded.dtype == x.dtype and rounded.isfinite().all()
    if x.numel():
        tokens = x.reshape(-1, x.shape[-1])
        assert_same(rounded.view(tokens.shape), quantize.rtn(tokens.to(device), bits=bits, symmetric=symmetric).cpu())


@about("quantize.gptq")
@given(layers(), st.one_of(st.integers(2, 8), st.floats(2, 8)), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_gptq_gives_values_of_its_grid(device, layer, bits, symmetric, act_order, static_groups, data):
    weight, gram = layer[0].to(device), layer[1].to(device)
    sizes = [None, *(g for g in range(1, weight.shape[1] + 1) if weight.shape[1] % g == 0)]
    options = {
        "bits": bits,
        "symmetric": symmetric,
        "act_order": act_order,
        "static_groups": static_groups,
        "group_size": data.draw(st.sampled_from(sizes)),
        "block_size": data.draw(st.integers(1, 40)),
    }
    rounded = quantize.gptq(weight, gram, **options)
    packed = quantize.gptq(weight, gram, packed=True, **options)
    assert rounded.dtype == weight.dtype and rounded.shape == weight.shape and rounded.isfinite().all()
    assert_same(packed.dequantize(), rounded)
    assert packed.codes.numel() == 0 or int(packed.codes.max()) < quantize.levels(bits)


FORMATS = {
    "nf4": 1,
    "fp4": 1,
    "fp8": 1,
    "mxfp4": 32,
    "nvfp4": 16,
    "ternary": 1,
}  # what the columns must be a multiple of


@pytest.mark.parametrize("name", FORMATS)
@about(*(f"quantize.{name}" for name in FORMATS))
@given(st.data())
def test_block_float(device, name, data):
    multiple, operator = FORMATS[name], OPERATORS[f"quantize.{name}"]
    weight = data.draw(
        tensors(st.tuples(st.integers(0, 6), st.integers(0, 4 if multiple > 1 else 33).map(multiple.__mul__)))
    )
    divisors = [b for b in range(1, weight.shape[1] + 1) if weight.shape[1] % b == 0] or [1]
    options = {
        "nf4": {"block_size": data.draw(st.sampled_from(divisors))},
        "fp4": {"block_size": data.draw(st.sampled_from(divisors))},
        "fp8": {"format": data.draw(st.sampled_from(["e4m3", "e5m2"]))},
        "ternary": {"group_size": data.draw(group_sizes(weight.shape[1]))},
    }.get(name, {})
    rounded = result_of(operator, weight, device=device, **options)
    assert rounded.dtype == weight.dtype and rounded.isfinite().all()
    assert (rounded[weight == 0] == 0).all()
    packed = operator(weight.to(device), packed=True, **options)
    assert_same(packed.dequantize().cpu(), rounded)
    assert packed.bits_per_weight >= {"fp8": 8, "ternary": 1.6}.get(name, 4)
    assert (rounded.double() * weight.double() >= 0).all()
    if weight.numel() and weight.abs().max() > 1e-30:
        # Scales of fewer bits, and the nearest element of a coarser format, may lie above what they round.
        above = {"fp8": 1 + 2**-6, "mxfp4": 1.2, "nvfp4": 1 + 2**-4}.get(name, 1) * (1 + torch.finfo(weight.dtype).eps)
        assert rounded.double().abs().max() <= above * weight.double().abs().max()
    if name in ("nf4", "fp4", "fp8") and weight.numel():  # at most half the widest gap of the block's largest
        largest = (
            weight.double().abs().unflatten(1, (-1, options.get("block_size", weight.shape[1]))).amax(2, keepdim=True)
        )
        gap = {"nf4": 0.16, "fp4": 1 / 6, "fp8": 1 / 8}[name]  # of -1 … -0.696; 2/3 … 1; 1.75 … 2 halved in e5m2
        error = (rounded.double() - weight.double()).abs().view(largest.shape[0], largest.shape[1], -1)
        own = torch.finfo(weight.dtype).eps * largest + torch.finfo(weight.dtype).tiny
        assert (error <= gap * largest + own + 1e-37).all()
