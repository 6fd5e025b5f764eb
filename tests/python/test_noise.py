"""Room noise: reproducible, relative to the weight's own spread; faults of memory; noise on inputs."""

import pytest
import torch

from hemostat import noise, quantize

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def some_weight(device, *shape, dtype=torch.float32):
    return (0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.1).to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_is_the_formula(device, dtype):
    weight = some_weight(device, 33, 65, dtype=dtype)
    z = noise.direction([33, 65], seed=7, device=str(device))
    noisy = noise.gaussian(weight, sigma=0.3, seed=7)
    deviation = weight.double().std(correction=0)
    expected = weight.double() + 0.3 * deviation * z.double()
    assert noisy.dtype == dtype and noisy.is_contiguous()
    torch.testing.assert_close(noisy, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8)
    assert torch.equal(noise.apply(weight, z, sigma=0.3), noisy)


@pytest.mark.parametrize("dtype", DTYPES)
def test_isotropic_has_the_given_norm_along_the_direction(device, dtype):
    weight = some_weight(device, 33, 65, dtype=dtype)
    z = noise.direction([33, 65], seed=7, device=str(device)).double()
    noisy = noise.isotropic(weight, norm=1.5, seed=7)
    expected = weight.double() + 1.5 * z / z.norm()
    assert noisy.dtype == dtype and noisy.is_contiguous()
    torch.testing.assert_close(noisy, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-8)
    if dtype == torch.float32:
        assert float((noisy - weight).norm()) == pytest.approx(1.5, rel=1e-5)
    assert torch.equal(noise.isotropic(weight, norm=0.0), weight)
    assert torch.equal(noise.isotropic(weight[:, :0], norm=1.0), weight[:, :0])
    torch.testing.assert_close(
        noise.isotropic(weight.t(), norm=1.0), noise.isotropic(weight.t().contiguous(), norm=1.0)
    )


def test_direction_is_standard_normal():
    z = noise.direction([1000, 1000], seed=3).double()
    assert abs(float(z.mean())) < 5e-3
    assert abs(float(z.std()) - 1) < 5e-3
    assert abs(float(z.pow(4).mean()) - 3) < 0.05
    within = float((z.abs() < 1).double().mean())
    assert within == pytest.approx(0.682689, abs=3e-3)


def test_relative_size_of_the_noise(device):
    weight = some_weight(device, 500, 500)
    noisy = noise.gaussian(weight, sigma=0.2)
    assert float((noisy - weight).std() / weight.std()) == pytest.approx(0.2, rel=0.01)


def test_seeds_repeat_and_differ(device):
    weight = some_weight(device, 40, 50)
    first = noise.gaussian(weight, sigma=0.1, seed=1)
    assert torch.equal(first, noise.gaussian(weight, sigma=0.1, seed=1))
    assert not torch.equal(first, noise.gaussian(weight, sigma=0.1, seed=2))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    noise.gaussian(weight, sigma=0.1)
    assert torch.equal(state, torch.get_rng_state())


def test_threads_do_not_matter():
    weight = some_weight("cpu", 700, 900)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = noise.direction([700, 900], seed=5)
        torch.set_num_threads(max(2, before))
        many = noise.direction([700, 900], seed=5)
        assert torch.equal(one, many)
        assert torch.equal(noise.apply(weight, one, sigma=0.5), noise.apply(weight, many, sigma=0.5))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neutral_and_constant_change_nothing(device, dtype):
    weight = some_weight(device, 9, 11, dtype=dtype)
    assert torch.equal(noise.gaussian(weight, sigma=0.0), weight)
    constant = torch.full((30, 40), 0.1, device=device, dtype=dtype)
    assert torch.equal(noise.gaussian(constant, sigma=0.5), constant)
    one = torch.full((1, 1), 3.0, device=device, dtype=dtype)
    assert torch.equal(noise.gaussian(one, sigma=0.5), one)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
def test_empty(device, shape):
    assert noise.gaussian(torch.empty(shape, device=device), sigma=0.5).shape == shape


def test_strides_do_not_matter(device):
    base = some_weight(device, 40, 60)
    for view in (base.t(), base[::2, 1::3]):
        noisy = noise.gaussian(view, sigma=0.2)
        assert noisy.is_contiguous()
        torch.testing.assert_close(noisy, noise.gaussian(view.contiguous(), sigma=0.2))


def test_out_is_returned(device):
    weight = some_weight(device, 6, 8)
    expected = noise.gaussian(weight, sigma=0.3)
    out = torch.empty_like(weight)
    assert noise.gaussian(weight, sigma=0.3, out=out) is out
    assert torch.equal(out, expected)
    assert noise.gaussian(weight, sigma=0.3, out=weight) is weight
    assert torch.equal(weight, expected)


def test_the_noise_is_a_constant_to_autograd(device):
    weight = some_weight(device, 6, 8).requires_grad_()
    noise.gaussian(weight, sigma=0.3).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


# Activations.


@pytest.mark.parametrize("dtype", DTYPES)
def test_activation_noise_is_the_formula(device, dtype):
    x = some_weight(device, 3, 50, 40, dtype=dtype)
    x[0, 7] = 0.5  # a token without spread
    noisy = noise.activation_noise(x, sigma=0.3, seed=7)
    assert noisy.dtype == dtype and noisy.is_contiguous()
    # z from a token of known spread: features −1 and 1 in turn, whose std is 1.
    known = torch.ones(50, 40, device=device)
    known[:, ::2] = -1
    z = noise.activation_noise(known, sigma=1.0, seed=7).double() - known
    expected = x.double() + 0.3 * x.double().std(-1, correction=0, keepdim=True) * z
    torch.testing.assert_close(noisy, expected.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
    assert torch.equal(noisy[0, 7], x[0, 7])
    assert torch.equal(noise.activation_noise(x, sigma=0.0), x)


def test_activation_noise_is_standard_normal_and_independent(device):
    x = torch.ones(1000, 1000, device=device)
    x[:, ::2] = -1
    z = noise.activation_noise(x, sigma=1.0, seed=3).double() - x
    assert abs(float(z.mean())) < 5e-3
    assert abs(float(z.std()) - 1) < 5e-3
    assert abs(float(z.pow(4).mean()) - 3) < 0.05
    for a, b in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1]), (z, noise.activation_noise(x, sigma=1.0, seed=4) - x)):
        assert abs(float((a * b).mean())) < 5e-3


def test_activation_noise_belongs_to_a_position(device):
    x = some_weight(device, 4, 20, 16)
    whole = noise.activation_noise(x, sigma=0.2)
    for row in range(4):
        torch.testing.assert_close(noise.activation_noise(x[row], sigma=0.2), whole[row])
    torch.testing.assert_close(noise.activation_noise(x[:, :5], sigma=0.2), whole[:, :5])
    torch.testing.assert_close(noise.activation_noise(x[1, 0], sigma=0.2), whole[1, 0])
    torch.testing.assert_close(
        noise.activation_noise(x.transpose(0, 2), sigma=0.2),
        noise.activation_noise(x.transpose(0, 2).contiguous(), sigma=0.2),
    )


def test_activation_noise_is_a_constant_to_autograd(device):
    x = some_weight(device, 6, 8).requires_grad_()
    noise.activation_noise(x, sigma=0.3).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


# Faulty bits. Which bits they are: test_kernel_bit_faults.py.


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8])
def test_bit_flips_undo_themselves(device, dtype):
    weight = (1000 * some_weight(device, 33, 65)).abs().to(dtype)
    flipped = noise.bit_flip(weight, rate=0.03, seed=4)
    assert flipped.dtype == dtype and flipped.is_contiguous() and flipped.device == weight.device
    assert not torch.equal(flipped, weight)
    again = noise.bit_flip(flipped, rate=0.03, seed=4)
    assert torch.equal(again.view(torch.uint8), weight.view(torch.uint8))
    assert torch.equal(noise.bit_flip(weight, rate=0.0), weight)


def test_the_sign_and_the_exponent(device):
    weight = torch.tensor([[1.5, -0.75]], device=device)
    for dtype, sign, top in ((torch.float32, 31, 30), (torch.bfloat16, 15, 14), (torch.float16, 15, 14)):
        assert torch.equal(noise.bit_flip(weight.to(dtype), rate=1, bit=sign), -weight.to(dtype))
        assert noise.stuck_at(weight.to(dtype), rate=1, bit=top, value=1)[0, 1].abs() > 1e4
    # 1.5 · 2^0 has the exponent 01…1, which one more bit makes that of NaN.
    assert noise.bit_flip(weight, rate=1, bit=30)[0, 0].isnan()
    nothing = noise.stuck_at(weight, rate=1)
    assert torch.equal(nothing, torch.zeros_like(weight)) and not nothing.signbit().any()
    assert noise.stuck_at(weight, rate=1, value=1).isnan().all()


def test_any_value_is_taken(device):
    weight = torch.tensor([[float("nan"), float("inf"), -0.0, 1e-45]], device=device)
    assert torch.equal(noise.bit_flip(weight, rate=0).view(torch.int32), weight.view(torch.int32))
    assert torch.equal(noise.bit_flip(weight, rate=1).view(torch.int32), ~weight.view(torch.int32))


def test_codes_stay_within_their_bits(device):
    packed = quantize.rtn(some_weight(device, 30, 64), bits=4, packed=True)
    for bits in (4, 5):
        flipped = noise.bit_flip(packed.codes, rate=0.3, bits=bits)
        assert flipped.dtype == torch.uint8
        assert int(flipped.max()) == 2**bits - 1
    assert torch.equal(noise.bit_flip(packed.codes, rate=1, bits=4), 15 - packed.codes)
    assert torch.equal(noise.stuck_at(packed.codes, rate=1, bits=4, bit=3), packed.codes % 8)
    assert torch.equal(noise.bit_flip(packed.codes, rate=0.3), noise.bit_flip(packed.codes, rate=0.3, bits=8))


def test_stuck_bits_are_those_that_flip(device):
    weight = some_weight(device, 50, 60)
    flipped, before = noise.bit_flip(weight, rate=0.02, seed=9).view(torch.int32), weight.view(torch.int32)
    low = noise.stuck_at(weight, rate=0.02, seed=9).view(torch.int32)
    high = noise.stuck_at(weight, rate=0.02, seed=9, value=1).view(torch.int32)
    assert torch.equal(low, before & flipped)
    assert torch.equal(high, before | flipped)


def test_faults_write_to_out_and_read_any_strides(device):
    base = some_weight(device, 40, 60)
    for operator in (noise.bit_flip, noise.stuck_at):
        for view in (base.t(), base[::2, 1::3], base[:1].expand(4, 60)):
            before, damaged = view.clone(), operator(view, rate=0.01)
            assert torch.equal(view, before)
            assert torch.equal(damaged.view(torch.int32), operator(view.contiguous(), rate=0.01).view(torch.int32))
        weight, expected = base.clone(), operator(base, rate=0.01)
        out = torch.empty_like(weight)
        assert operator(weight, rate=0.01, out=out) is out
        assert torch.equal(out.view(torch.int32), expected.view(torch.int32))
        assert operator(weight, rate=0.01, out=weight) is weight
        assert torch.equal(weight.view(torch.int32), expected.view(torch.int32))
        assert not operator(base.clone().requires_grad_(), rate=0.01).requires_grad
        assert operator(base[:, :0], rate=0.5).shape == (40, 0)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "gaussian: sigma is -1", lambda w: noise.gaussian(w, sigma=-1)),
        (ValueError, "gaussian: sigma is inf", lambda w: noise.gaussian(w, sigma=float("inf"))),
        (ValueError, "isotropic: norm is -1", lambda w: noise.isotropic(w, norm=-1)),
        (ValueError, "isotropic: norm is nan", lambda w: noise.isotropic(w, norm=float("nan"))),
        (ValueError, "isotropic: seed is -1", lambda w: noise.isotropic(w, norm=1, seed=-1)),
        (ValueError, "isotropic: weight has 32 NaN", lambda w: noise.isotropic(w / 0, norm=1)),
        (ValueError, "gaussian: seed is -1", lambda w: noise.gaussian(w, sigma=0.1, seed=-1)),
        (ValueError, "direction: seed is -1", lambda w: noise.direction([2], seed=-1)),
        (ValueError, r"direction: sizes are \[2, -1\]", lambda w: noise.direction([2, -1])),
        (ValueError, r"weight has shape \[8\]", lambda w: noise.gaussian(w[0], sigma=0.1)),
        (TypeError, "weight is int64", lambda w: noise.gaussian(w.long(), sigma=0.1)),
        (ValueError, "weight has 32 NaN or infinite entries", lambda w: noise.gaussian(w / 0, sigma=0.1)),
        (ValueError, r"direction has shape \[4\]", lambda w: noise.apply(w, w[:, 0], sigma=0.1)),
        (TypeError, "direction must be float32", lambda w: noise.apply(w, w.half(), sigma=0.1)),
        (ValueError, "activation_noise: sigma is -1", lambda w: noise.activation_noise(w, sigma=-1)),
        (ValueError, "activation_noise: sigma is nan", lambda w: noise.activation_noise(w, sigma=float("nan"))),
        (ValueError, "activation_noise: seed is -1", lambda w: noise.activation_noise(w, sigma=1, seed=-1)),
        (ValueError, "activation_noise: input is a scalar", lambda w: noise.activation_noise(w[0, 0], sigma=1)),
        (ValueError, "activation_noise: input has 32 NaN", lambda w: noise.activation_noise(w / 0, sigma=1)),
        (TypeError, "activation_noise: input is int64", lambda w: noise.activation_noise(w.long(), sigma=1)),
        (ValueError, "bit_flip: rate is 1.5, but must be from 0 to 1", lambda w: noise.bit_flip(w, rate=1.5)),
        (ValueError, "stuck_at: rate is nan", lambda w: noise.stuck_at(w, rate=float("nan"))),
        (ValueError, "stuck_at: value is 2, but must be 0 or 1", lambda w: noise.stuck_at(w, rate=0.1, value=2)),
        (ValueError, "bit_flip: bit is 32, but must be from 0 to 31", lambda w: noise.bit_flip(w, rate=0.1, bit=32)),
        (ValueError, "bit_flip: bit is -1", lambda w: noise.bit_flip(w, rate=0.1, bit=-1)),
        (ValueError, "bit is 4, .* 0 to 3", lambda w: noise.bit_flip(w.byte(), rate=0.1, bits=4, bit=4)),
        (ValueError, "bits is 4, but is for uint8 codes", lambda w: noise.bit_flip(w, rate=0.1, bits=4)),
        (ValueError, "bits is 9, but must be from 1 to 8", lambda w: noise.bit_flip(w.byte(), rate=0.1, bits=9)),
        (ValueError, "bit_flip: seed is -1", lambda w: noise.bit_flip(w, rate=0.1, seed=-1)),
        (ValueError, r"bit_flip: weight has shape \[8\]", lambda w: noise.bit_flip(w[0].byte(), rate=0.1)),
        (TypeError, "bit_flip: weight is int64", lambda w: noise.bit_flip(w.long(), rate=0.1)),
        (TypeError, "out is float16, but must be float32", lambda w: noise.bit_flip(w, rate=0.1, out=w.half())),
        (ValueError, "out has shape", lambda w: noise.gaussian(w, sigma=0.1, out=w[:2])),
    ],
)
def test_bad_input(device, error, message, call):
    weight = torch.ones(4, 8, device=device)
    with pytest.raises(error, match=message):
        call(weight)
    assert bool((weight == 1).all())
