"""Bytes of a model as its formats store it: what a damaged model weighs, and what it saves."""

import pytest

import hemostat
from hemostat import quantize


def linear_bytes(model, packed):
    """What the linears inside blocks take as `packed(name, weight)` stores them, and everything else as it is."""
    weights = dict(model.linears())
    dense = sum(weight.numel() * weight.element_size() for weight in weights.values())
    stored = sum(packed(name, weight).bits_per_weight * weight.numel() / 8 for name, weight in weights.items())
    return model.bytes - dense + stored


def gram_of(statistics):
    return lambda name: statistics[name].gram


@pytest.mark.parametrize(
    ("method", "severity", "packed"),
    [
        ("rtn", 4, lambda weight: quantize.rtn(weight, bits=4, packed=True)),
        ("rtn:group_size=16", 3, lambda weight: quantize.rtn(weight, bits=3, group_size=16, packed=True)),
        ("rtn:group_size=tensor", 2.5, lambda weight: quantize.rtn(weight, bits=2.5, group_size="tensor", packed=True)),
        ("rtn:symmetric=true", 8, lambda weight: quantize.rtn(weight, bits=8, symmetric=True, packed=True)),
        ("nf4:block_size=16", 4, lambda weight: quantize.nf4(weight, block_size=16, packed=True)),
        ("fp4:block_size=8", 4, lambda weight: quantize.fp4(weight, block_size=8, packed=True)),
        ("fp8", 8, lambda weight: quantize.fp8(weight, packed=True)),
        ("fp8:format=e5m2", 8, lambda weight: quantize.fp8(weight, format="e5m2", packed=True)),
        ("nvfp4", 4, lambda weight: quantize.nvfp4(weight, packed=True)),
        ("ternary", 1.58, lambda weight: quantize.ternary(weight, packed=True)),
        ("ternary:group_size=row", 1.58, lambda weight: quantize.ternary(weight, group_size=-1, packed=True)),
    ],
)
def test_a_rounded_model_takes_what_its_packed_form_takes(tiny_model, method, severity, packed):
    changed = hemostat.prepare(tiny_model, method).at(severity)
    assert changed.bytes == pytest.approx(linear_bytes(tiny_model, lambda _, weight: packed(weight)), rel=1e-12)
    assert changed.parameters == tiny_model.parameters
    linear = changed.blocks[0].attention.q
    assert linear.stored_bits == packed(linear.weight).bits_per_weight


@pytest.mark.parametrize("static_groups", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
def test_gptq_counts_which_group_each_feature_is_in(tiny_model, statistics, act_order, static_groups):
    options = dict(group_size=16, act_order=act_order, static_groups=static_groups)
    changed = hemostat.prepare(tiny_model, "gptq", statistics, **options).at(4)

    def packed(name, weight):
        return quantize.gptq(weight, statistics[name].gram, bits=4, packed=True, **options)

    assert changed.bytes == pytest.approx(linear_bytes(tiny_model, packed), rel=1e-12)


def test_awq_counts_its_input_scale(tiny_model, statistics):
    changed = hemostat.prepare(tiny_model, "awq", statistics, group_size="16").at(4)

    def packed(name, weight):
        found = statistics[name]
        return quantize.awq(weight, found.absmean, found.gram, bits=4, group_size=16, packed=True)

    assert changed.bytes == pytest.approx(linear_bytes(tiny_model, packed), rel=1e-12)


def test_what_is_pruned_is_stored_dense(tiny_model):
    assert hemostat.prepare(tiny_model, "magnitude").at(0.5).bytes == tiny_model.bytes


def test_a_later_change_leaves_the_format(tiny_model):
    rounded = hemostat.prepare(tiny_model, "rtn").at(4)
    assert rounded.bytes < tiny_model.bytes
    assert hemostat.prepare(rounded, "gaussian").at(0.1).bytes == tiny_model.bytes
    assert hemostat.prepare(rounded, "svd").at(0.5).bytes == hemostat.prepare(tiny_model, "svd").at(0.5).bytes


def test_dropped_blocks_are_saved(tiny_model):
    dropped = hemostat.prepare(tiny_model, "drop_layers").at(0.5)
    block = sum(w.numel() * w.element_size() for n, w in tiny_model.linears() if n.startswith("model.layers.1."))
    norms = 2 * tiny_model.config.hidden_size * 4
    assert tiny_model.bytes - dropped.bytes == 2 * (block + norms)


def test_gguf_packs(tiny_model):
    changed = hemostat.prepare(tiny_model, "gguf", exclude=["*.down_proj"]).at(8.5)
    assert changed.bytes < tiny_model.bytes
