"""Room quantize: llama.cpp's block formats, and the method that sweeps over them."""

import pytest
import torch

import hemostat
from hemostat import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
BITS = {
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_1": 6,
    "Q5_K": 5.5,
    "Q5_0": 5.5,
    "Q4_1": 5,
    "Q4_K": 4.5,
    "Q4_0": 4.5,
    "IQ4_NL": 4.5,
    "Q3_K": 3.4375,
    "Q2_K": 2.625,
}
SEARCHED = ["Q6_K", "Q5_K", "Q4_K", "IQ4_NL", "Q3_K", "Q2_K"]


def some_weight(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def some_importance(columns, seed=1):
    return torch.randn(columns, generator=torch.Generator().manual_seed(seed)).exp()


def error(weight, rounded, importance=None):
    squares = (rounded.double() - weight.double()).square()
    return float((squares if importance is None else squares * importance.double()).sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BITS)
def test_packed_blocks_are_the_same_weight(device, name, dtype, weighted):
    weight = some_weight(7, 768, dtype=dtype).to(device)
    weight[2] = 0
    importance = some_importance(768).to(device) if weighted else None
    before = weight.clone()
    rounded = quantize.gguf(weight, type=name, importance=importance)
    packed = quantize.gguf(weight, type=name, importance=importance, packed=True)
    assert isinstance(packed, quantize.GgufPacked) and isinstance(packed, quantize.PackedWeight)
    assert packed.type == name and packed.bits_per_weight == BITS[name] and packed.shape == (7, 768)
    assert packed.data.dtype == torch.uint8 and packed.data.shape == (7, 96 * BITS[name])
    assert packed.dtype == rounded.dtype == dtype and rounded.is_contiguous()
    assert torch.equal(packed.dequantize(), rounded)
    assert torch.equal(packed.to("cpu").dequantize(), rounded.cpu())
    assert f'type="{name}"' in repr(packed)
    again = quantize.GgufPacked(packed.data, type=name, in_features=768, dtype=dtype)
    assert torch.equal(again.dequantize(), rounded)
    assert torch.equal(weight, before)
    assert bool((rounded[2] == 0).all())


def test_q4_k_is_the_default():
    weight = some_weight(3, 256)
    assert torch.equal(quantize.gguf(weight), quantize.gguf(weight, type="Q4_K"))


@pytest.mark.parametrize("weighted", [False, True])
def test_more_bits_err_less(device, weighted):
    weight = some_weight(64, 512).to(device)
    importance = some_importance(512).to(device) if weighted else None
    for family in (["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K"], ["Q8_0", "Q5_0", "Q4_0"], ["Q5_1", "Q4_1"]):
        errors = [error(weight, quantize.gguf(weight, type=name, importance=importance), importance) for name in family]
        assert errors == sorted(errors)


@pytest.mark.parametrize("name", [name for name in BITS if name != "Q8_0"])
def test_importance_moves_the_error_to_where_it_counts_less(device, name):
    weight, importance = some_weight(64, 512).to(device), some_importance(512).to(device)
    alike = quantize.gguf(weight, type=name, importance=torch.full_like(importance, 3))
    weighted = quantize.gguf(weight, type=name, importance=importance)
    assert error(weight, weighted, importance) < 0.97 * error(weight, alike, importance)
    assert error(weight, weighted) > error(weight, alike)


def test_q8_0_takes_no_notice_of_importance():
    weight, importance = some_weight(8, 64), some_importance(64)
    assert torch.equal(quantize.gguf(weight, type="Q8_0", importance=importance), quantize.gguf(weight, type="Q8_0"))


@pytest.mark.parametrize("name", BITS)
def test_no_importance_at_all_is_the_same_for_all(device, name):
    weight = some_weight(5, 512).to(device)
    zero, one = torch.zeros(512, device=device), torch.ones(512, device=device)
    assert torch.equal(
        quantize.gguf(weight, type=name, importance=zero), quantize.gguf(weight, type=name, importance=one)
    )


@pytest.mark.parametrize("name", SEARCHED)
def test_a_weight_on_few_levels_is_changed_little(device, name):
    weight = some_weight(16, 512).to(device)
    rounded = quantize.gguf(weight, type=name)
    assert error(rounded, quantize.gguf(rounded, type=name)) < 0.25 * error(weight, rounded)


@pytest.mark.parametrize("name", BITS)
def test_strides_and_threads_do_not_matter(device, name):
    base = some_weight(512, 512).to(device)
    importance = some_importance(512).to(device)
    for view in (base.t(), base[::2, 256:], base[:, ::2], base[:1].expand(6, -1)):
        options = dict(type=name, importance=importance[: view.shape[1]])
        assert torch.equal(quantize.gguf(view, **options), quantize.gguf(view.contiguous(), **options))
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(quantize.gguf(base, type=name, packed=True).data)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("shape", [(0, 256), (4, 0), (0, 0)])
def test_empty(device, shape):
    weight = torch.empty(shape, device=device)
    for name in BITS:
        assert quantize.gguf(weight, type=name).shape == shape
        packed = quantize.gguf(weight, type=name, packed=True)
        assert packed.shape == packed.dequantize().shape == shape


@pytest.mark.parametrize("name", BITS)
def test_blocks_that_do_not_fill_a_group(device, name):
    """Rows of any number of blocks are encoded as their blocks are alone."""
    size = 256 if name.endswith("K") else 32
    weight = some_weight(3, 19 * size).to(device)
    whole = quantize.gguf(weight, type=name)
    for block in (0, 7, 16, 18):
        columns = slice(block * size, (block + 1) * size)
        assert torch.equal(quantize.gguf(weight[:, columns], type=name), whole[:, columns])


def test_out_is_returned(device):
    weight = some_weight(6, 256).to(device)
    for name in ("Q8_0", "Q2_K"):
        expected = quantize.gguf(weight, type=name)
        out = torch.empty_like(weight)
        assert quantize.gguf(weight, type=name, out=out) is out
        assert torch.equal(out, expected)
        in_place = weight.clone()
        assert quantize.gguf(in_place, type=name, out=in_place) is in_place
        assert torch.equal(in_place, expected)


def test_gradients_pass_straight_through(device):
    weight = some_weight(5, 256).to(device).requires_grad_()
    rounded = quantize.gguf(weight, type="Q3_K")
    gradient = some_weight(5, 256, seed=2).to(device)
    rounded.backward(gradient)
    assert torch.equal(weight.grad, gradient)
    assert torch.equal(rounded.detach(), quantize.gguf(weight.detach(), type="Q3_K"))


@pytest.mark.parametrize("name", BITS)
def test_what_cannot_be_stored_is_refused_and_leaves_the_weight(device, name):
    for spoiled in (float("nan"), float("inf"), -float("inf"), 1e38):
        weight = some_weight(4, 256).to(device)
        weight[1, 40] = spoiled
        before = weight.clone()
        for options in ({}, {"packed": True}, {"out": weight}):
            with pytest.raises(
                ValueError, match="weight has . values or block scales that are NaN, infinite or beyond"
            ):
                quantize.gguf(weight, type=name, **options)
        torch.testing.assert_close(weight, before, rtol=0, atol=0, equal_nan=True)
        assert quantize.gguf(weight, type=name, check_finite=False).shape == (4, 256)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, 'type is "Q4_X", but must be one of Q4_0, ', lambda w: quantize.gguf(w, type="Q4_X")),
        (
            ValueError,
            "weight has 288 input features, but Q4_K takes a multiple of 256",
            lambda w: quantize.gguf(torch.zeros(2, 288)),
        ),
        (
            ValueError,
            "weight has 40 input features, but Q8_0 takes a multiple of 32",
            lambda w: quantize.gguf(w[:, :40], type="Q8_0"),
        ),
        (
            ValueError,
            "importance has 32 entries, but weight has 256 input features",
            lambda w: quantize.gguf(w, importance=torch.ones(32)),
        ),
        (
            ValueError,
            r"importance has shape \[1, 256\], but must be \[in_features\]",
            lambda w: quantize.gguf(w, importance=torch.ones(1, 256)),
        ),
        (
            ValueError,
            "importance has 256 NaN, infinite or negative entries",
            lambda w: quantize.gguf(w, importance=-torch.ones(256)),
        ),
        (TypeError, "importance is int64", lambda w: quantize.gguf(w, importance=torch.ones(256).long())),
        (TypeError, "weight is float64", lambda w: quantize.gguf(w.double())),
        (ValueError, r"weight has shape \[256\]", lambda w: quantize.gguf(w[0])),
        (TypeError, "out is bfloat16, but must be float32", lambda w: quantize.gguf(w, out=w.bfloat16())),
        (ValueError, "out cannot be given with packed=True", lambda w: quantize.gguf(w, out=w, packed=True)),
        (
            ValueError,
            r"data has shape \[4, 143\], but must be \[out_features, 144\] for 256 input features of Q4_K",
            lambda w: quantize.GgufPacked(torch.zeros(4, 143, dtype=torch.uint8), type="Q4_K", in_features=256),
        ),
        (
            ValueError,
            "in_features is 250, but Q4_K has blocks of 256 weights",
            lambda w: quantize.GgufPacked(torch.zeros(4, 144, dtype=torch.uint8), type="Q4_K", in_features=250),
        ),
        (TypeError, "data is", lambda w: quantize.GgufPacked(w, type="Q4_K", in_features=256)),
        (
            TypeError,
            "dtype is",
            lambda w: quantize.GgufPacked(
                torch.zeros(4, 144, dtype=torch.uint8), type="Q4_K", in_features=256, dtype=torch.int8
            ),
        ),
    ],
)
def test_errors(error, message, call):
    with pytest.raises(error, match=message):
        call(some_weight(4, 256))


# The method.


def linears(model):
    return dict(model.linears())


def test_the_method_takes_each_format_of_its_family(tiny_model):
    """A model of 32 and 48 input features, which no K format divides and Q*_0's blocks do not all divide."""
    rows = {"include": "*.q_proj"}
    before = linears(tiny_model)
    for family, types in {
        "k": {8.5: "Q8_0", 6.5625: "Q8_0", 5.5: "Q5_1", 4.5: "Q5_0", 3.4375: "Q4_0", 2.625: "Q4_0"},
        "legacy": {8.5: "Q8_0", 5.5: "Q5_0", 5: "Q4_1", 4.5: "Q4_0"},
        "iq": {4.5: "IQ4_NL"},
    }.items():
        prepared = hemostat.prepare(tiny_model, "gguf", family=family, **rows)
        assert prepared.axis.kind == "listed" and prepared.axis.neutral == 16
        assert list(prepared.axis.default_grid) == list(types)
        assert linears(prepared.at(16)).keys() == before.keys()
        for bits, name in types.items():
            for layer, weight in linears(prepared.at(bits)).items():
                changed = "q_proj" in layer
                expected = quantize.gguf(before[layer], type=name) if changed else before[layer]
                assert torch.equal(weight, expected), (family, bits, layer)
    with pytest.raises(ValueError, match="bits is 4, but takes 8.5, 6.5625, 5.5, 4.5, 3.4375, 2.625 or 16"):
        hemostat.prepare(tiny_model, "gguf", **rows).at(4)


def test_the_method_falls_back_only_where_it_has_to(trained):
    before = linears(trained.model)
    assert {weight.shape[1] % 256 == 0 for weight in before.values()} == {False, True}
    found = linears(hemostat.prepare(trained.model, "gguf").at(2.625))
    for layer, weight in before.items():
        name = "Q2_K" if weight.shape[1] % 256 == 0 else "Q4_0"
        assert torch.equal(found[layer], quantize.gguf(weight, type=name)), layer


def test_the_methods_importance_is_the_mean_squared_input(tiny_model, tiny_tokens):
    rows = {"include": "*.q_proj"}
    statistics = hemostat.collect(tiny_model, tiny_tokens, needs="column_norm")
    found = linears(hemostat.prepare(tiny_model, "gguf", statistics, importance=True, **rows).at(4.5))
    for layer, weight in linears(tiny_model).items():
        if "q_proj" in layer:
            importance = statistics[layer].norm.square()
            assert torch.equal(found[layer], quantize.gguf(weight, type="Q5_0", importance=importance))


def test_the_methods_errors(tiny_model):
    with pytest.raises(ValueError, match=r"needs statistics \(column_norm\)"):
        hemostat.prepare(tiny_model, "gguf", importance=True)
    with pytest.raises(ValueError, match="has 48 input features, but blocks take a multiple of 32"):
        hemostat.prepare(tiny_model, "gguf")
    with pytest.raises(ValueError, match="family"):
        hemostat.prepare(tiny_model, "gguf", family="m")
