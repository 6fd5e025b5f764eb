"""Block formats against bitsandbytes, torchao, PyTorch's float8 casts, and BitNet's layer in transformers."""

import warnings

import pytest
import torch

from hemostat import quantize

with warnings.catch_warnings():  # what they deprecate at import is theirs
    warnings.simplefilter("ignore")
    bitsandbytes = pytest.importorskip("bitsandbytes")
    pytest.importorskip("torchao")
    from bitsandbytes import functional as bnb
    from torchao.prototype.mx_formats.mx_tensor import MXTensor
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def some_weight(rows=48, columns=256, dtype=torch.float32, seed=0):
    """Normal, with rows of zeros, of tiny, huge and equal numbers, and of outliers."""
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    weight[1] = 0
    weight[2] *= 1e-6
    weight[3] *= 1e4
    weight[4] = 0.3
    weight[5, ::17] *= 40
    weight[6] = (2 * weight[6]).round() / 2
    return weight.to(dtype)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_size", [32, 64, 256])
@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_4_bits_are_bitsandbytes(name, block_size, dtype):
    weight = some_weight(dtype=dtype)
    codes, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type=name)
    operator = getattr(quantize, name)
    packed = operator(weight, block_size=block_size, packed=True)
    assert torch.equal(packed.codes.flatten(), codes.flatten())
    assert torch.equal(packed.scale.flatten(), state.absmax.float())
    expected = bnb.dequantize_4bit(codes, state)
    assert torch.equal(operator(weight, block_size=block_size), expected.view(weight.shape))
    assert torch.equal(packed.dequantize(), expected.view(weight.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "largest"), [("e4m3", 448.0), ("e5m2", 57344.0)])
def test_fp8_is_torchs_cast(name, largest, dtype):
    weight = some_weight(dtype=dtype)
    float8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[name]
    scale = weight.float().abs().amax(1, keepdim=True) / largest
    scale[scale == 0] = 1
    codes = (weight.float() / scale).clamp(-largest, largest).to(float8)
    packed = quantize.fp8(weight, format=name, packed=True)
    assert packed.codes.dtype == float8
    assert torch.equal(packed.codes.view(torch.uint8), codes.view(torch.uint8))
    assert torch.equal(packed.scale, scale)
    assert torch.equal(quantize.fp8(weight, format=name), (codes.float() * scale).to(dtype))


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_every_float8_and_what_lies_between(name):
    """Values, middles between them and their neighbours; the row's largest makes the scale 1."""
    float8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}[name]
    values = torch.arange(256, dtype=torch.uint8).view(float8).float()
    values = values[values.isfinite()].sort().values
    middles = (values[1:] + values[:-1]) / 2
    up, down = (torch.nextafter(middles, torch.tensor(sign)) for sign in (torch.inf, -torch.inf))
    weight = torch.cat([values, middles, up, down])[None]
    packed = quantize.fp8(weight, format=name, packed=True)
    assert packed.scale.item() == 1
    assert torch.equal(packed.codes.view(torch.uint8), weight.to(float8).view(torch.uint8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mxfp4_is_torchaos(dtype):
    weight = some_weight(dtype=dtype)
    expected = MXTensor.to_mx(weight, torch.float4_e2m1fn_x2, 32)
    packed = quantize.mxfp4(weight, packed=True)
    assert packed.scale.dtype == torch.float8_e8m0fnu
    assert torch.equal(packed.codes, expected.qdata.view(torch.uint8))
    assert torch.equal(packed.scale.view(torch.uint8), expected.scale.view(torch.uint8))
    assert torch.equal(quantize.mxfp4(weight), expected.dequantize(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mxfp4_is_the_specification(dtype):
    """OCP MX 1.0 in float64: a power of two for 32 elements, each the nearest e2m1, halves to the even code."""
    weight = some_weight(dtype=dtype)
    blocks = weight.double().view(-1, 32)
    exponent = torch.floor(torch.log2(blocks.abs().amax(1, keepdim=True))).clamp(min=-125) - 2
    scaled = blocks / torch.exp2(exponent)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
    distance = (scaled.abs()[..., None] - values).abs()
    even_first = [0, 2, 4, 6, 1, 3, 5, 7]  # argmin takes the first of equally near ones
    nearest = values[even_first][distance[..., even_first].argmin(-1)]
    expected = (nearest * scaled.sign() * torch.exp2(exponent)).view(weight.shape)
    assert torch.equal(quantize.mxfp4(weight).double(), expected.to(dtype).double())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_nvfp4_is_torchaos(dtype, size):
    weight = (size * some_weight()).to(dtype)
    tensor_scale = per_tensor_amax_to_scale(weight.abs().amax())
    expected = NVFP4Tensor.to_nvfp4(weight, per_tensor_scale=tensor_scale)
    packed = quantize.nvfp4(weight, packed=True)
    assert packed.scale.dtype == torch.float8_e4m3fn
    assert torch.equal(packed.tensor_scale, tensor_scale)
    assert torch.equal(packed.scale.view(torch.uint8), expected.scale.view(torch.uint8))
    assert torch.equal(packed.codes, expected.qdata)
    assert torch.equal(quantize.nvfp4(weight), expected.dequantize(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ternary_is_bitnets_layer(dtype):
    from transformers.integrations.bitnet import WeightQuant

    weight = some_weight(dtype=dtype)
    with torch.compiler.set_stance("force_eager"):  # they compile it, which fails for some processors
        expected = WeightQuant.apply(weight)
    rounded = quantize.ternary(weight)
    # Theirs is w · (1/mean), with a mean in weight's dtype for half types: a weight within its rounding may fall apart.
    position = weight.float().abs() / weight.float().abs().mean()
    clear = (position - 0.5).abs() > 2 * torch.finfo(dtype).eps
    assert float(clear.float().mean()) > 0.95
    torch.testing.assert_close(rounded[clear], expected[clear], rtol=4 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_size", ["tensor", None, 64])
def test_ternary_is_the_papers_formula(dtype, group_size):
    weight = some_weight(dtype=dtype)
    groups = weight.double().view(-1, {"tensor": weight.numel(), None: 256}.get(group_size, group_size))
    mean = groups.abs().mean(1, keepdim=True)
    mean[mean == 0] = 1
    packed = quantize.ternary(weight, group_size=group_size, packed=True)
    torch.testing.assert_close(packed.scale.double().view(-1, 1), mean, rtol=1e-7, atol=0)
    expected = (groups.float() / mean.float()).round().clamp(-1, 1) * mean.float()
    assert torch.equal(quantize.ternary(weight, group_size=group_size), expected.view(weight.shape).to(dtype))
