"""Room decode: temperature."""

import pytest
import torch

from hemostat import decode

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def some_logits(device, *shape, dtype=torch.float32):
    return (5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.1, 0.7, 1, 3.0])
def test_temperature_divides_in_float32(device, dtype, temperature):
    logits = some_logits(device, 3, 1000, dtype=dtype)
    scaled = decode.temperature(logits, temperature)
    assert scaled.dtype == dtype
    torch.testing.assert_close(scaled, (logits.float() / temperature).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
    out = torch.empty_like(logits)
    assert decode.temperature(logits, temperature, out=out) is out
    assert torch.equal(out, scaled)


def test_one_changes_nothing(device):
    logits = some_logits(device, 2, 50)
    logits[0, 3] = float("-inf")
    assert torch.equal(decode.temperature(logits, 1.0), logits)


def test_temperature_matches_transformers(device):
    generation = pytest.importorskip("transformers", reason="compares with transformers' warper")
    logits = some_logits(device, 4, 100)
    logits[1, 7] = float("-inf")
    warper = generation.TemperatureLogitsWarper(0.6)
    torch.testing.assert_close(decode.temperature(logits, 0.6), warper(None, logits))


def test_hotter_is_flatter(device):
    logits = some_logits(device, 1, 100)

    def entropy(temperature):
        return float(torch.distributions.Categorical(logits=decode.temperature(logits, temperature)).entropy())

    entropies = [entropy(temperature) for temperature in (0.2, 0.5, 1.0, 2.0, 5.0)]
    assert entropies == sorted(entropies)


def test_in_place_gradients_strides_and_empty(device):
    logits = some_logits(device, 4, 6)
    expected = logits / 2
    assert torch.equal(decode.temperature(logits.t(), 2.0), expected.t())
    assert decode.temperature(logits[:0], 2.0).shape == (0, 6)
    assert decode.temperature(logits, 2.0, out=logits) is logits
    assert torch.equal(logits, expected)
    logits.requires_grad_()
    decode.temperature(logits, 2.0).sum().backward()
    assert torch.equal(logits.grad, torch.full_like(logits, 0.5))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "temperature is 0, but must be positive and finite", lambda x: decode.temperature(x, 0)),
        (ValueError, "temperature is -1", lambda x: decode.temperature(x, -1)),
        (ValueError, "temperature is nan", lambda x: decode.temperature(x, float("nan"))),
        (ValueError, "temperature is inf", lambda x: decode.temperature(x, float("inf"))),
        (TypeError, "logits is int64", lambda x: decode.temperature(x.long(), 1.0)),
        (TypeError, "out is float16", lambda x: decode.temperature(x, 2.0, out=x.half())),
        (ValueError, "out has shape", lambda x: decode.temperature(x, 2.0, out=x[:1])),
        (
            ValueError,
            "out overlaps logits in part",
            lambda x: decode.temperature(x[:1], 2.0, out=x.view(1, -1)[:, 1:9]),
        ),
    ],
)
def test_bad_input(device, error, message, call):
    logits = torch.ones(2, 8, device=device)
    with pytest.raises(error, match=message):
        call(logits)
    assert bool((logits == 1).all())
