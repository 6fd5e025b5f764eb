"""The methods of room noise that hit memory and inputs: which layers share what, severities that nest, lost models."""

import json

import pytest
import torch

import hemostat


def words(tensor):
    return tensor.contiguous().view(torch.int32)


def test_inputs_that_are_shared_share_their_noise(tiny_model):
    noisy = hemostat.prepare(tiny_model, "activation_noise", seed=3).at(0.2)
    seeds = []
    for block in noisy.blocks:
        attention, mlp = block.attention, block.mlp
        assert attention.q.input.noise == mlp.down.input.noise == 0.2
        assert attention.q.input.noise_seed == attention.k.input.noise_seed == attention.v.input.noise_seed
        assert mlp.gate.input.noise_seed == mlp.up.input.noise_seed
        seeds += [linear.input.noise_seed for linear in (attention.q, attention.o, mlp.gate, mlp.down)]
    assert len(set(seeds)) == len(seeds) == 4 * len(tiny_model.blocks)
    other = hemostat.prepare(tiny_model, "activation_noise", seed=4).at(0.2)
    assert other.blocks[0].attention.q.input.noise_seed != noisy.blocks[0].attention.q.input.noise_seed


def test_activation_noise_leaves_weights_and_other_layers(tiny_model, tiny_tokens):
    prepared = hemostat.prepare(tiny_model, "activation_noise", include="*.o_proj")
    noisy = prepared.at(0.3)
    for (_, before), (_, after) in zip(tiny_model.linears(), noisy.linears(), strict=True):
        assert before.data_ptr() == after.data_ptr()
    assert noisy.blocks[0].attention.q.input.neutral and not noisy.blocks[0].attention.o.input.neutral
    before, after = tiny_model(tiny_tokens), noisy(tiny_tokens)
    assert 0 < (after - before).abs().max() < (prepared.at(1.0)(tiny_tokens) - before).abs().max()
    assert torch.equal(prepared.at(0.0)(tiny_tokens), before)


def test_faults_nest_and_differ_between_layers(tiny_model):
    prepared = hemostat.prepare(tiny_model, "bit_flip", seed=2)
    few, many = prepared.at(1e-5), prepared.at(1e-4)
    patterns = []
    for (_, whole), (_, mild), (_, severe) in zip(tiny_model.linears(), few.linears(), many.linears(), strict=True):
        flips, more = words(whole) ^ words(mild), words(whole) ^ words(severe)
        assert not (flips & ~more).any()
        patterns.append(more.flatten()[:256])
    assert sum(int((pattern != 0).sum()) for pattern in patterns) > 0
    assert len({tuple(pattern.tolist()) for pattern in patterns if pattern.any()}) > 1


def test_stuck_bits_of_floats_make_weights_smaller(tiny_model):
    damaged = hemostat.prepare(tiny_model, "stuck_at").at(0.1)
    for (_, before), (_, after) in zip(tiny_model.linears(), damaged.linears(), strict=True):
        assert (after.abs() <= before.abs()).all() and (after.abs() < before.abs()).any()


@pytest.mark.parametrize("method", ["bit_flip", "stuck_at"])
def test_faults_in_codes_stay_on_the_grid_of_rtn(tiny_model, method):
    options = {"value": 1} if method == "stuck_at" else {}
    prepared = hemostat.prepare(tiny_model, method, bits=4, **options)
    assert not prepared.axis.continuous_at_neutral
    damaged = prepared.at(0.05)
    for (_, before), (_, after) in zip(tiny_model.linears(), damaged.linears(), strict=True):
        packed = hemostat.quantize.rtn(before, bits=4, packed=True)
        codes = (after / packed.scale + packed.zero).round()
        torch.testing.assert_close((codes - packed.zero) * packed.scale, after)
        assert codes.min() >= 0 and codes.max() <= 15
        changed = (codes != packed.codes).float().mean()
        assert 0 < changed < 0.3
    assert prepared.at(0.0)(torch.arange(4)).equal(tiny_model(torch.arange(4)))


def test_axes_reach_as_far_as_the_damage_needs(tiny_model):
    def most(method, **options):
        axis = hemostat.prepare(tiny_model, method, **options).axis
        assert axis.maximum == 1 and axis.default_grid[-1] == axis.farthest
        return axis.farthest

    assert most("bit_flip") == most("stuck_at", value=1) == 1e-4
    assert most("bit_flip", bits=4) == most("stuck_at") == most("stuck_at", bits=8, value=1) == 0.1
    assert most("bit_flip", bit=3) == 1


@pytest.mark.integration
def test_a_model_that_is_lost_is_reported(trained):
    """Weights of 1e38 and NaN end a model, but no scan; JSON has null for what is no number."""
    report = hemostat.scan(
        trained.model,
        trained.tokens[:4],
        methods=["bit_flip:bit=30"],
        severities={"bit_flip:bit=30": [0.01, 1.0]},
    )
    json.dumps(report.to_dict(), allow_nan=False)
    perplexities = [trial["damage"]["perplexity"] for trial in report.trials]
    assert len(perplexities) == 2 and None in perplexities
    assert all(p is None or p > 2 * report.baseline["perplexity"] for p in perplexities)
    assert report.to_dict()["thresholds"][0]["zone"]["0.1"] in (None, 0.0)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("bit_flip", {"bits": 1}, r"prepare\(bit_flip\): option bits must be 0 or in 2 … 8, got 1"),
        ("bit_flip", {"bits": 9}, "option bits must be 0 or in 2 … 8, got 9"),
        ("bit_flip", {"bit": 32}, "option bit must be in -1 … 31, got 32"),
        ("bit_flip", {"bits": 4, "bit": 4}, "option bit must be in -1 … 3, got 4"),
        ("stuck_at", {"value": 2}, r"prepare\(stuck_at\): option value must be 0 or 1, got 2"),
    ],
)
def test_options_that_cannot_be(tiny_model, method, options, message):
    with pytest.raises(ValueError, match=message):
        hemostat.prepare(tiny_model, method, **options)
