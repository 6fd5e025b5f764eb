"""AWQ: its operators and its method."""

import pytest
import torch
from solver_references import correlated_gram, output_error

import hemostat
from hemostat import quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture
def subject(device):
    """A weight, and the mean |x| and the Gram matrix of its inputs."""
    x, gram = correlated_gram(48)
    weight = torch.randn(40, 48, generator=torch.Generator().manual_seed(3))
    return tuple(t.to(device) for t in (weight, x.abs().mean(0), gram))


@pytest.mark.parametrize("bits", [2, 2.5, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group_size", [None, 16, 48])
def test_outputs_are_never_further_off_than_with_rtn(subject, bits, symmetric, group_size):
    weight, absmean, gram = subject
    options = {"bits": bits, "symmetric": symmetric, "group_size": group_size}
    awq = output_error(weight, quantize.awq(weight, absmean, gram, **options), gram)
    assert awq <= output_error(weight, quantize.rtn(weight, **options), gram) * (1 + 1e-5)
    if bits <= 4:
        assert awq < 0.9 * output_error(weight, quantize.rtn(weight, **options), gram)


def test_clips_lessen_the_error_on_inputs_that_are_apart(device):
    # Where no input goes with another, an output's error is the sum of its groups' errors, which the clips lessen.
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).to(device)
    gram = torch.diag(torch.rand(64, generator=torch.Generator().manual_seed(1)).exp()).to(device)
    scale = torch.ones(64, device=device)
    options = {"bits": 3, "group_size": 16}
    plain = output_error(weight, quantize.awq_scaled(weight, scale, gram, **options), gram)
    clipped = output_error(weight, quantize.awq_scaled(weight, scale, gram, search_clip=True, **options), gram)
    assert clipped < 0.95 * plain


def test_the_two_halves_make_the_whole(subject):
    weight, absmean, gram = subject
    for search_clip in (False, True):
        scale = quantize.awq_scale([weight], absmean, gram, bits=3, group_size=16)
        halves = quantize.awq_scaled(weight, scale, gram, bits=3, group_size=16, search_clip=search_clip)
        whole = quantize.awq(weight, absmean, gram, bits=3, group_size=16, search_clip=search_clip)
        assert torch.equal(halves, whole)


def test_the_scaled_weight_lies_on_its_levels(subject):
    weight, absmean, gram = subject
    scale = quantize.awq_scale([weight], absmean, gram, bits=2, group_size=16)
    rounded = quantize.awq(weight, absmean, gram, bits=2, group_size=16) * scale
    for group in rounded.view(-1, 16):
        distinct = group.sort().values
        assert int((distinct.diff() > 1e-4 * group.abs().max()).sum()) < 4


def test_a_scale_of_ones_is_rtn(subject):
    weight, _, gram = subject
    ones = torch.ones(48, device=weight.device)
    assert torch.equal(
        quantize.awq_scaled(weight, ones, gram, bits=3, group_size=16), quantize.rtn(weight, bits=3, group_size=16)
    )
    # Equal inputs leave nothing to scale.
    assert torch.equal(
        quantize.awq(weight, ones, gram, bits=3, group_size=16), quantize.rtn(weight, bits=3, group_size=16)
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("search_clip", [False, True])
@pytest.mark.parametrize(("group_size", "groups"), [(None, 1), (16, 3)])
def test_packed_codes_are_the_same_weight(subject, dtype, search_clip, group_size, groups):
    weight, absmean, gram = subject
    weight = weight.to(dtype)
    options = {"bits": 3, "group_size": group_size, "search_clip": search_clip}
    packed = quantize.awq(weight, absmean, gram, packed=True, **options)
    assert isinstance(packed, quantize.GroupPacked) and packed.order is None
    assert packed.codes.dtype == torch.uint8 and int(packed.codes.max()) <= 7
    assert packed.scale.shape == (40, groups) and packed.input_scale.shape == (48,)
    assert packed.dequantize().dtype == dtype
    assert torch.equal(packed.dequantize(), quantize.awq(weight, absmean, gram, **options))
    assert torch.equal(packed.to("cpu").dequantize(), packed.dequantize().cpu())
    # Codes, a scale and a zero point of each group, and the input features' scale, which all rows share.
    assert packed.bits_per_weight == pytest.approx(3 + 32 * groups / 48 + 16 / 40)
    halves = quantize.awq_scaled(weight, packed.input_scale, gram, packed=True, **options)
    assert torch.equal(halves.codes, packed.codes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_takes_any_strides_and_dtype(subject, dtype):
    weight, absmean, gram = subject
    weight = weight.to(dtype)
    result = quantize.awq(weight, absmean, gram, bits=4, group_size=16)
    assert result.dtype == dtype and result.is_contiguous()
    wide = torch.zeros(80, 96, dtype=dtype, device=weight.device)
    wide[::2, ::2] = weight
    assert torch.equal(quantize.awq(wide[::2, ::2], absmean, gram, bits=4, group_size=16), result)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (1, 1)])
def test_small_weights(device, shape):
    weight, absmean = torch.ones(shape, device=device), torch.ones(shape[1], device=device)
    gram = torch.eye(shape[1], device=device)
    for search_clip in (False, True):
        rounded = quantize.awq(weight, absmean, gram, bits=4, group_size=None, search_clip=search_clip)
        assert torch.equal(rounded, weight)
    assert torch.equal(quantize.awq_scale([weight], absmean, gram, bits=4, group_size=None), absmean)


def test_inputs_that_never_were_on(subject):
    weight, absmean, gram = subject
    absmean, gram = absmean.clone(), gram.clone()
    absmean[5], gram[5], gram[:, 5] = 0, 0, 0
    assert quantize.awq(weight, absmean, gram, bits=4, group_size=16).isfinite().all()
    assert (quantize.awq_scale([weight], absmean, gram, bits=4, group_size=16) > 0).all()


def refusals():
    weight, absmean, gram = torch.ones(2, 4), torch.ones(4), torch.eye(4)
    room = "hemostat.quantize."
    options = {"bits": 4, "group_size": 2}
    yield (
        lambda: quantize.awq(weight, absmean[:3], gram, **options),
        (room + "awq: activation_absmean has 3 entries, but weight has 4 input features"),
    )
    yield (
        lambda: quantize.awq(weight, absmean, torch.eye(3), **options),
        room + "awq: gram is of 3 features, but weight",
    )
    yield lambda: quantize.awq(weight, absmean, gram, bits=4), room + "awq: group_size is 128, which does not divide"
    yield lambda: quantize.awq(weight, absmean, gram, bits=1, group_size=2), room + "awq: bits is 1, but must be from 2"
    yield lambda: quantize.awq(weight, absmean, gram, bits=4, group_size="tensor"), room + 'awq: group_size is "tensor"'
    yield (
        lambda: quantize.awq(weight, -absmean, gram, **options),
        room + "awq: activation_absmean has 4 NaN, infinite or",
    )
    yield lambda: quantize.awq(weight * torch.nan, absmean, gram, **options), room + "awq: weight has 8 NaN or infinite"
    yield lambda: quantize.awq(weight, absmean, gram * torch.inf, **options), room + "awq: gram has"
    yield lambda: quantize.awq_scale([], absmean, gram, **options), room + "awq_scale: weights is empty"
    yield (
        lambda: quantize.awq_scale([weight, weight[:, :3]], absmean, gram, **options),
        (room + r"awq_scale: gram is of 4 features, but weights\[1\] has 3 input features"),
    )
    yield lambda: quantize.awq_scaled(weight, 0 * absmean, gram, **options), room + "awq_scaled: scale has 4 NaN"


@pytest.mark.parametrize("case", range(len(list(refusals()))))
def test_bad_arguments_are_named(case):
    call, message = list(refusals())[case]
    with pytest.raises(ValueError, match=message):
        call()


# The method.


@pytest.mark.parametrize("options", [{}, {"search_clip": True}, {"symmetric": True}])
def test_linears_on_one_input_share_their_scale(tiny_model, statistics, options):
    prepared = hemostat.prepare(tiny_model, "awq", statistics, group_size=16, **options)
    damaged, weights = dict(prepared.at(3).linears()), dict(tiny_model.linears())
    for block in range(len(tiny_model.blocks)):
        name = f"model.layers.{block}."
        for shared in (["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
                       ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]):  # fmt: skip
            names = [name + linear for linear in shared]
            found = statistics[names[0]]
            levels = {"bits": 3, "group_size": 16, "symmetric": "symmetric" in options}
            scale = quantize.awq_scale([weights[n] for n in names], found.absmean, found.gram, **levels)
            for n in names:
                clip = "search_clip" in options and not n.endswith(("q_proj", "k_proj"))
                expected = quantize.awq_scaled(weights[n], scale, found.gram, search_clip=clip, **levels)
                torch.testing.assert_close(damaged[n], expected)
                assert not torch.equal(damaged[n], weights[n])


def test_only_chosen_linears_change_and_share(tiny_model, statistics):
    prepared = hemostat.prepare(tiny_model, "awq", statistics, group_size=16, include="*.0.self_attn.[qk]_proj")
    before, after = dict(tiny_model.linears()), dict(prepared.at(2).linears())
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert changed == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 128}, "group_size = 128 does not divide the 32 input features"),
        ({"group_size": "tensor"}, "group_size must be row or a positive integer, got 'tensor'"),
        ({"group_size": "many"}, "group_size must be row, tensor or a positive integer, got 'many'"),
        ({"group_size": 16, "include": "nothing"}, "leave no linear layer"),
    ],
)
def test_bad_options_are_refused(tiny_model, statistics, options, message):
    with pytest.raises(ValueError, match=f"hemostat.prepare.awq.: .*{message}"):
        hemostat.prepare(tiny_model, "awq", statistics, **options)
