"""quantize.gguf against the gguf package (layout, dequantization, its own quantizers) and the errors of llama.cpp."""

import gguf
import numpy as np
import pytest
import torch
from gguf_tensors import LLAMA_ERRORS, TYPES, cases, squared_error

from hemostat import quantize

PLAIN = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0")  # those that the package quantizes too


def ggml_type(name):
    return gguf.GGMLQuantizationType[name]


def sizes(name):
    return gguf.GGML_QUANT_SIZES[ggml_type(name)]


def packed(data, name, **options):
    weights, bytes_ = sizes(name)
    return quantize.GgufPacked(data, type=name, in_features=data.shape[1] // bytes_ * weights, **options)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", TYPES)
def test_any_bytes_dequantize_to_the_same_bits(name):
    weights, bytes_ = sizes(name)
    data = np.random.default_rng(0).integers(0, 256, (301, 5 * bytes_), dtype=np.uint8)
    expected = torch.from_numpy(gguf.quants.dequantize(data, ggml_type(name)))
    found = packed(torch.from_numpy(data), name)
    values = found.dequantize().cpu()
    assert found.shape == values.shape == (301, 5 * weights)
    assert found.bits_per_weight == 8 * bytes_ / weights
    same = (values.view(torch.int32) == expected.view(torch.int32)) | (values.isnan() & expected.isnan())
    assert bool(same.all())
    for dtype in (torch.bfloat16, torch.float16):
        torch.testing.assert_close(
            packed(torch.from_numpy(data), name, dtype=dtype).dequantize(),
            expected.to(dtype),
            rtol=0,
            atol=0,
            equal_nan=True,
        )


def plain_weights():
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(40, 320, generator=generator)
    ties = (normal * 2).round() / 2
    mirrored = torch.cat([normal[:, :16], -normal[:, :16]], 1)  # both signs of the largest magnitude
    return {
        "normal": normal,
        "positive": normal.abs() + 0.5,
        "negative": -normal.abs(),
        "ties": ties,
        "mirrored": mirrored,
        "mirrored, negative first": -mirrored,
        "sparse": torch.where(normal > 1, normal, 0),
        "zero": torch.zeros_like(normal),
        "constant": torch.full_like(normal, -0.3),
        "rows of all sizes": normal * torch.logspace(-6, 3, 40)[:, None],
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_formats_are_the_reference_byte_for_byte(name, dtype):
    for kind, weight in plain_weights().items():
        weight = weight.to(dtype)
        expected = torch.from_numpy(gguf.quants.quantize(weight.float().numpy(), ggml_type(name)))
        found = quantize.gguf(weight, type=name, packed=True)
        assert torch.equal(found.data.cpu(), expected), kind


# A minimum of 0 is stored without a sign here, with that of some zero there: the same weights.
@pytest.mark.parametrize("name", [name for name in PLAIN if not name.endswith("_1")])
def test_blocks_of_zeros_of_both_signs_are_the_reference_byte_for_byte(name):
    signs = torch.randn(40, 320, generator=torch.Generator().manual_seed(2))
    for weight in (signs * 0, signs.abs() * -0.0):
        expected = torch.from_numpy(gguf.quants.quantize(weight.numpy(), ggml_type(name)))
        assert torch.equal(quantize.gguf(weight, type=name, packed=True).data.cpu(), expected)


@pytest.mark.parametrize("case", LLAMA_ERRORS)
@pytest.mark.parametrize("name", TYPES)
def test_errs_no_more_than_llama_cpp(name, case):
    weight, importance = cases()[case]
    found = quantize.gguf(weight, type=name, importance=None if importance is None else importance)
    error, least = squared_error(cases()[case], found.cpu()), LLAMA_ERRORS[case][name]
    searched = name not in PLAIN or (importance is not None and name != "Q8_0")
    # The plain formats are the same bytes, to the rounding of the recorded number.
    assert error <= least * (1.0 if searched else 1 + 1e-5)
    assert error > 0.3 * least  # or the recorded number would be of another tensor
