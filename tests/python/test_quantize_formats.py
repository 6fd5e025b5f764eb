"""Room quantize: the formats whose blocks share a scale: storage, invariants, gradients, methods, errors."""

import pytest
import torch

import hemostat
from hemostat import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
NAMES = ["nf4", "fp4", "fp8", "mxfp4", "nvfp4", "ternary"]
# Bits an element, bits of a scale, weights that share it, bits of the tensor's own scale, by the call.
CALLS = {
    "nf4": (quantize.nf4, {}, 4, 32, 64, 0),
    "nf4 of 32": (quantize.nf4, {"block_size": 32}, 4, 32, 32, 0),
    "fp4": (quantize.fp4, {}, 4, 32, 64, 0),
    "fp8": (quantize.fp8, {}, 8, 32, 320, 0),
    "fp8 e5m2": (quantize.fp8, {"format": "e5m2"}, 8, 32, 320, 0),
    "mxfp4": (quantize.mxfp4, {}, 4, 8, 32, 0),
    "nvfp4": (quantize.nvfp4, {}, 4, 8, 16, 32),
    "ternary": (quantize.ternary, {}, 1.6, 32, 320 * 12, 0),
    "ternary by row": (quantize.ternary, {"group_size": None}, 1.6, 32, 320, 0),
}


def some_weight(device, rows=12, columns=320, dtype=torch.float32, seed=0):
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)
    weight[2] = 0
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CALLS)
def test_packed_is_the_same_weight(device, dtype, name):
    operator, options, bits, scale_bits, block, tensor_bits = CALLS[name]
    weight = some_weight(device, dtype=dtype)
    rounded = operator(weight, **options)
    packed = operator(weight, packed=True, **options)
    assert isinstance(packed, quantize.BlockPacked) and isinstance(packed, quantize.PackedWeight)
    assert rounded.dtype == packed.dtype == packed.dequantize().dtype == dtype
    assert torch.equal(packed.dequantize(), rounded)
    assert torch.equal(packed.to("cpu").dequantize(), rounded.cpu())
    assert packed.shape == (12, 320) and packed.codes.shape == (12, 320 * bits / 8)
    assert packed.scale.numel() == weight.numel() / block
    expected = bits + scale_bits / block + tensor_bits / weight.numel()
    assert packed.bits_per_weight == pytest.approx(expected, rel=1e-12)
    assert packed.format.startswith(name.split()[0]) and f'format="{packed.format}"' in repr(packed)
    assert packed.block_size == ("tensor" if name == "ternary" else block)
    assert (packed.tensor_scale is not None) == (name == "nvfp4")


@pytest.mark.parametrize("columns", [1, 3, 7, 33])
@pytest.mark.parametrize("name", ["nf4", "fp4", "fp8", "ternary"])
def test_columns_that_fill_no_byte(device, name, columns):
    weight = some_weight(device, 5, columns)
    options = {"nf4": {"block_size": columns}, "fp4": {"block_size": 1}}.get(name, {})
    operator = getattr(quantize, name)
    packed = operator(weight, packed=True, **options)
    per_byte = {"nf4": 2, "fp4": 2, "fp8": 1, "ternary": 5}[name]
    assert packed.codes.shape == (5, -(-columns // per_byte))
    assert torch.equal(packed.dequantize(), operator(weight, **options))


def test_which_code_comes_first(device):
    weight = torch.zeros(1, 64, device=device)
    weight[0, :2] = torch.tensor([1.0, -1.0])
    assert quantize.nf4(weight, packed=True).codes[0, :2].tolist() == [0xF0, 0x77]
    assert quantize.fp4(weight, packed=True).codes[0, :2].tolist() == [0x3B, 0x00]
    assert quantize.mxfp4(weight, packed=True).codes[0, :2].tolist() == [0xE6, 0x00]
    assert quantize.nvfp4(weight, packed=True).codes[0, :2].tolist() == [0xF7, 0x00]
    ternary = quantize.ternary(weight, packed=True).codes[0, :2].tolist()
    assert ternary == [2 + 0 * 3 + 9 + 27 + 81, 1 + 3 + 9 + 27 + 81]


@pytest.mark.parametrize("name", CALLS)
def test_rounding_again_changes_nothing(device, name):
    operator, options, *_ = CALLS[name]
    once = operator(some_weight(device), **options)
    if "ternary" in name:  # whose mean shrinks where zeros were made
        assert set(once.sign().unique().tolist()) == {-1, 0, 1}
        assert len(once.abs().unique()) <= 1 + (1 if name == "ternary" else 12)
        return
    torch.testing.assert_close(operator(once, **options), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_stay(device, name):
    weight = some_weight(device)
    weight[:, ::3] = 0
    operator = getattr(quantize, name)
    assert bool((operator(weight)[:, ::3] == 0).all())
    for zeros in (torch.zeros(4, 64, device=device), torch.zeros(4, 64, dtype=torch.float16, device=device)):
        assert torch.equal(operator(zeros), zeros)
        assert torch.equal(operator(zeros, packed=True).dequantize(), zeros)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_ends_of_the_range(device, name, dtype):
    operator, info = getattr(quantize, name), torch.finfo(dtype)
    for size in (info.max, info.smallest_normal, info.smallest_normal / 8):
        weight = (torch.linspace(-1, 1, 320, dtype=torch.float64).repeat(3, 1) * size).to(dtype).to(device)
        rounded = operator(weight)
        assert bool(rounded.isfinite().all())
        assert bool((rounded.double() * weight.double() >= 0).all())
        assert bool(((rounded - weight).double().abs() <= weight.double().abs().max()).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_strides_do_not_matter(device, name, dtype):
    operator = getattr(quantize, name)
    base = some_weight(device, 128, 192, dtype=dtype)
    for view in (base.t(), base[::2, 1:65], base[:, ::3], base[:1].expand(6, -1)):
        assert torch.equal(operator(view), operator(view.contiguous()))
        assert torch.equal(operator(view, packed=True).dequantize(), operator(view))


@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_matter(name):
    weight, operator = some_weight("cpu", 300, 512), getattr(quantize, name)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = operator(weight)
        torch.set_num_threads(3)
        three = operator(weight)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, three)


@pytest.mark.parametrize("shape", [(0, 64), (4, 0), (0, 0)])
@pytest.mark.parametrize("name", NAMES)
def test_empty(device, name, shape):
    weight, operator = torch.empty(shape, device=device), getattr(quantize, name)
    assert operator(weight).shape == shape
    packed = operator(weight, packed=True)
    assert packed.shape == packed.dequantize().shape == shape
    assert packed.bits_per_weight == {"fp8": 8, "ternary": 1.6}.get(name, 4)


@pytest.mark.parametrize("name", NAMES)
def test_out_is_returned(device, name):
    weight, operator = some_weight(device), getattr(quantize, name)
    expected, out = operator(weight), torch.empty_like(weight)
    assert operator(weight, out=out) is out and torch.equal(out, expected)
    assert operator(weight, out=weight) is weight and torch.equal(weight, expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_straight_through(device, name):
    weight, operator = some_weight(device).requires_grad_(), getattr(quantize, name)
    gradient = some_weight(device, seed=1)
    operator(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)
    with pytest.raises(ValueError, match="out cannot be given while weight requires a gradient"):
        operator(weight, out=torch.empty_like(gradient))


@pytest.mark.parametrize("name", NAMES)
def test_nan_and_infinities_are_counted_and_leave_the_weight(device, name):
    operator, weight = getattr(quantize, name), some_weight(device)
    weight[0, 0], weight[1, 2], weight[3, 3] = float("nan"), float("inf"), float("-inf")
    before = weight.clone()
    for options in ({}, {"packed": True}, {"out": weight}):
        with pytest.raises(ValueError, match=f"hemostat.quantize.{name}: weight has 3 NaN or infinite entries"):
            operator(weight, **options)
        assert torch.equal(weight.nan_to_num(7), before.nan_to_num(7))
    assert operator(weight, check_finite=False).shape == weight.shape
    assert operator(weight, check_finite=False, packed=True).shape == tuple(weight.shape)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (
            ValueError,
            "nf4: block_size is 48, which does not divide weight's 64 input features",
            lambda w: quantize.nf4(w, block_size=48),
        ),
        (ValueError, "fp4: block_size is 0, but must be 1 or more", lambda w: quantize.fp4(w, block_size=0)),
        (
            ValueError,
            "mxfp4: weight has 16 input features, but the format has blocks of 32",
            lambda w: quantize.mxfp4(w[:, :16]),
        ),
        (
            ValueError,
            "nvfp4: weight has 8 input features, but the format has blocks of 16",
            lambda w: quantize.nvfp4(w[:, :8], packed=True),
        ),
        (ValueError, 'fp8: format is "e3m4", but must be "e4m3"', lambda w: quantize.fp8(w, format="e3m4")),
        (ValueError, "ternary: group_size is 5, which", lambda w: quantize.ternary(w, group_size=5)),
        (ValueError, 'ternary: group_size is "row"', lambda w: quantize.ternary(w, group_size="row")),
        (ValueError, r"fp8: weight has shape \[64\]", lambda w: quantize.fp8(w[0])),
        (TypeError, "mxfp4: weight is float64", lambda w: quantize.mxfp4(w.double())),
        (TypeError, "nf4: out is bfloat16, but must be float32", lambda w: quantize.nf4(w, out=w.bfloat16())),
        (ValueError, "fp8: out cannot be given with packed", lambda w: quantize.fp8(w, packed=True, out=w)),
        (ValueError, "fp8: out overlaps weight in part", lambda w: quantize.fp8(w[:2], out=w[1:3])),
    ],
)
def test_bad_input(device, error, message, call):
    weight = torch.ones(4, 64, device=device)
    with pytest.raises(error, match=message):
        call(weight)
    assert bool((weight == 1).all())


# Methods.


@pytest.fixture(scope="module")
def subject():
    return hemostat.data.reference()


@pytest.mark.parametrize("name", NAMES)
def test_methods_round_the_linears_in_blocks(subject, name):
    bits = {"fp8": 8, "ternary": 1.58}.get(name, 4)
    prepared = hemostat.prepare(subject.model, name)
    assert prepared.axis.kind == "listed" and prepared.axis.default_grid == [bits] and prepared.axis.neutral == 16
    changed = prepared.at(bits)
    before = dict(subject.model.linears())
    for linear_name, linear in changed.linears():
        expected = getattr(quantize, name)(before[linear_name])
        assert torch.equal(linear, expected)
    assert torch.equal(prepared.at(16).forward(subject.evaluation[:1]), subject.model.forward(subject.evaluation[:1]))
    with pytest.raises(ValueError, match=f"{name}: bits is 3, but takes {bits} or 16"):
        prepared.at(3)


def test_options_of_the_methods(subject):
    model = subject.model
    name, weight = model.linears()[0]
    only = {"include": [name]}

    def changed(method, bits, **options):
        return dict(hemostat.prepare(model, method, **options, **only).at(bits).linears())[name]

    assert torch.equal(changed("nf4", 4, block_size=32), quantize.nf4(weight, block_size=32))
    assert torch.equal(changed("fp8", 8, format="e5m2"), quantize.fp8(weight, format="e5m2"))
    assert torch.equal(changed("ternary", 1.58, group_size="row"), quantize.ternary(weight, group_size=None))
    with pytest.raises(ValueError, match=rf"prepare\(nf4\): block_size = 7 does not divide the .* of '{name}'"):
        hemostat.prepare(model, "nf4", block_size=7, **only)
    with pytest.raises(ValueError, match=r"prepare\(fp4\): block_size is 0, but must be 1 or more"):
        hemostat.prepare(model, "fp4", block_size=0)
    with pytest.raises(ValueError, match="option 'format' of 'fp8' takes e4m3, e5m2"):
        hemostat.prepare(model, "fp8", format="e3m4")


@pytest.mark.integration
def test_a_scan_of_formats(subject, tmp_path):
    """One severity each: no transition can be fitted, and report, zone and plan say so without failing."""
    report = hemostat.scan(
        subject.model, subject.evaluation[:2], methods=["nf4", "fp8", "ternary"], store=tmp_path / "scan.db"
    )
    assert [(trial["method"], trial["severity"]) for trial in report.trials] == [
        ("nf4", 4),
        ("fp8", 8),
        ("ternary", 1.58),
    ]
    assert all(threshold["point"] is None for threshold in report.thresholds)
    report.to_html(tmp_path / "report.html")
    assert "nf4" in (tmp_path / "report.html").read_text(encoding="utf-8")
