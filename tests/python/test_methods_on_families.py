"""Every registered method on every family: it runs, or says in a sentence why not."""

from __future__ import annotations

import collections
import re

import pytest
import torch
from families import CASES, checkpoint

import hemostat

pytest.importorskip("transformers")

# One case of each family; among them parallel and post-norm blocks, and dense ones beside such with experts.
FAMILIES = [
    "llama",
    "mistral",
    "ministral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3-partial",
    "olmo2",
    "smollm3",
    "granite",
    "gpt2",
    "opt",
    "opt-post-norm",
    "gpt_neox",
    "mixtral",
    "qwen3_moe-sparse-step",
    "olmoe",
    "gpt_oss",
]
MIXTURES = ["mixtral", "qwen3_moe-sparse-step", "olmoe", "gpt_oss"]
METHODS = [method for method in hemostat.methods() if method.kind != "user"]
GROUPED = {"gptq": "group_size", "awq": "group_size", "nf4": "block_size", "fp4": "block_size"}
TOKENS = torch.randint(3, 97, (6, 24), generator=torch.Generator().manual_seed(3))

# What refuses, and how it begins to say why: layers so small have rows of 24 and 48 inputs.
REFUSALS = {
    "gguf": "input features, but blocks take a multiple of 32",
    "mxfp4": "its block size = 32 does not divide",
    "nvfp4": "its block size = 16 does not divide",
    "insert_identity": "has a norm on its residual stream",
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory) -> hemostat.Model:
    directory = tmp_path_factory.mktemp("family") / "checkpoint"
    checkpoint(CASES[request.param], directory)
    return hemostat.Model.load(directory)


def options_of(method: hemostat.Method) -> dict[str, object]:
    return {GROUPED[method.name]: 8} if method.name in GROUPED else {}


def test_every_method_runs_or_says_why_not(model):
    statistics = hemostat.collect(model, TOKENS, needs=[method.name for method in METHODS], progress=False)
    logits = model(TOKENS)
    for method in METHODS:
        try:
            prepared = hemostat.prepare(model, method.name, statistics, **options_of(method))
            axis = prepared.axis
            assert torch.allclose(prepared.at(axis.neutral)(TOKENS), logits, rtol=1e-4, atol=1e-4), method.name
            for severity in (axis.default_grid[0], axis.default_grid[-1]):
                damaged = prepared.at(severity)
                faults = method.name == "bit_flip"  # a high bit of an exponent makes what it falls on infinite
                assert faults or damaged(TOKENS).isfinite().all(), (method.name, severity)
                assert faults or all(tensor.isfinite().all() for tensor in damaged.tensors().values()), method.name
        except ValueError as error:
            assert method.name in REFUSALS and REFUSALS[method.name] in str(error), (method.name, str(error))
            assert "layer" in str(error), str(error)


@pytest.mark.parametrize("spec, severity", [("wanda", 0.5), ("gptq:group_size=8", 4)])
def test_calibration_block_by_block(model, spec, severity):
    damaged = hemostat.prepare(model, spec, calibration=TOKENS, propagate=True).at(severity)
    assert damaged(TOKENS).isfinite().all()
    assert not torch.equal(damaged(TOKENS), model(TOKENS))


@pytest.mark.parametrize("model", MIXTURES, indirect=True)
class TestExperts:
    def test_each_has_statistics_of_its_own_tokens(self, model):
        statistics = hemostat.collect(model, TOKENS, needs=["column_norm"], progress=False)
        linears = model.linears()
        reached = collections.Counter()  # by block
        for name, role in zip(linears.names, linears.roles, strict=True):
            if ".experts." in name and role == "up":
                reached[block_of(name)] += statistics[name].count
        choices = {block.origin: TOKENS.numel() * block.experts.top_k for block in model.blocks if len(block.experts)}
        assert reached == choices

    def test_one_that_no_token_reaches_harms_nothing(self, model):
        everything = model.linears(include=["*"])
        router = next(name for name, role in zip(everything.names, everything.roles, strict=True) if role == "router")
        # All rows but two are the opposite of what all tokens have in common, so that the other two are chosen.
        inputs = hemostat.collect(model, TOKENS, needs=["mean"], include=[router], progress=False)[router]
        weight = -100 * inputs.mean.expand_as(dict(everything)[router]).clone()
        weight[: model.blocks[block_of(router)].experts.top_k] *= -1
        starved = model.replace({router: weight})
        statistics = hemostat.collect(starved, TOKENS, needs=["column_norm", "gram"], progress=False)
        unread = [name for name, inputs in statistics.items() if inputs.count == 0]
        assert unread
        for spec, severity in (("wanda", 0.5), ("sparsegpt", 0.5), ("gptq:group_size=8", 3)):
            damaged = hemostat.prepare(starved, spec, statistics).at(severity)
            assert damaged(TOKENS).isfinite().all(), spec
            for name in unread:
                assert dict(damaged.linears())[name].isfinite().all(), (spec, name)

    def test_localize_names_them(self, model):
        damaged = hemostat.prepare(model, "rtn").at(2)
        localization = hemostat.localize(model, damaged, TOKENS, linears=True, progress=False)
        assert any("experts.1." in site.name for site in localization.sites)


def block_of(name: str) -> int:
    return int(re.search(r"\.(\d+)\.", name).group(1))
