"""Every registered method on every family: it runs, or says in a sentence why not."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import pytest
import torch
from families import CASES, FAMILY_SIZES, Case, checkpoint
from small_models import SIZES

import hemostat
from hemostat._checked_scan import CheckedScan
from hemostat._plan import plan_memory, plan_text

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
METHODS = {method.name: method for method in hemostat.methods() if method.kind != "user"}
TOKENS = torch.randint(3, 97, (6, 24), generator=torch.Generator().manual_seed(3))

# Groups that divide layers so small, and faults that leave exponents alone, since those make weights infinite.
OPTIONS = {
    "gptq": "group_size=8",
    "awq": "group_size=8",
    "nf4": "block_size=8",
    "fp4": "block_size=8",
    "bit_flip": "bit=20",
}
HARSHEST = {"bit_flip": 1.0}  # in place of the default grid's, whose rates reach none of so few weights
SILENT = {"insert_identity", "temperature"}  # what they add is nothing, or comes after the logits

# What refuses which families, and what it says: rows of 24 and 48 inputs are not whole blocks, as GPT-2's of 32 and 128
# are.
REFUSALS = {
    "gguf": set(FAMILIES) - {"gpt2"},
    "mxfp4": set(FAMILIES) - {"gpt2"},
    "nvfp4": {"qwen3_moe-sparse-step"},
    "insert_identity": {"opt-post-norm"},
    "slicegpt": {"gemma2", "gemma3", "olmo2", "opt-post-norm", "gpt_neox", *MIXTURES},
}
REASONS = {
    "gguf": r"hemostat\.prepare\(gguf\): '.+' has \d+ input features, but blocks take a multiple of 32",
    "mxfp4": r"hemostat\.prepare\(mxfp4\): its block size = 32 does not divide the \d+ input features of '.+'; .+",
    "nvfp4": r"hemostat\.prepare\(nvfp4\): its block size = 16 does not divide the \d+ input features of '.+'; .+",
    "slicegpt": r"hemostat\.structured\.slicegpt: block \d .+, in which the residual stream cannot be turned",
    "insert_identity": r"hemostat\..*insert_identity.*: layer \d has a norm on its residual stream.+",
}
DIVISIBLE = {"intermediate_size": 64, "ffn_dim": 64, "moe_intermediate_size": 32, "head_dim": 16}


class Made(NamedTuple):
    model: hemostat.Model
    statistics: hemostat.Statistics  # all that any method needs
    logits: torch.Tensor


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a model once, with what is collected over it."""

    @functools.cache
    def made(family: str, divisible: bool = False) -> Made:
        directory = tmp_path_factory.mktemp("family") / "checkpoint"
        checkpoint(with_divisible_sizes(CASES[family]) if divisible else CASES[family], directory)
        model = hemostat.Model.load(directory)
        statistics = hemostat.collect(model, TOKENS, [spec_of(name) for name in METHODS], progress=False)
        return Made(model, statistics, model(TOKENS))

    return made


def with_divisible_sizes(case: Case) -> Case:
    """The case with rows that formats of blocks divide."""
    sizes = FAMILY_SIZES.get(case.model_type, SIZES) | case.fields
    return case._replace(fields=case.fields | {name: size for name, size in DIVISIBLE.items() if name in sizes})


def spec_of(method: str) -> str:
    return f"{method}:{OPTIONS[method]}" if method in OPTIONS else method


def exercise(name: str, made: Made) -> None:
    """A method from its neutral to its harshest severity."""
    method, (model, statistics, logits) = METHODS[name], made
    prepared = hemostat.prepare(model, spec_of(name), statistics)
    axis = prepared.axis
    assert torch.equal(prepared.at(axis.neutral)(TOKENS), logits), name
    for severity in (axis.default_grid[0], HARSHEST.get(name, axis.default_grid[-1])):
        damaged = prepared.at(severity)
        found = damaged(TOKENS)
        assert found.isfinite().all(), (name, severity)
        assert all(tensor.isfinite().all() for tensor in damaged.tensors().values()), (name, severity)
    assert torch.equal(found, logits) == (name in SILENT), name
    if method.on_linears and method.changes_weights:  # each of them, and no router or head
        before = dict(model.linears(include="*"))
        changed = {name for name, weight in damaged.linears(include="*") if not torch.equal(weight, before[name])}
        assert changed == set(model.linears().names), name


def test_no_family_is_left_out():
    assert {CASES[family].model_type for family in FAMILIES} == set(hemostat.families())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_runs_or_says_why_not(family, make):
    refused = {}
    for name in METHODS:
        try:
            exercise(name, make(family))
        except ValueError as error:
            refused[name] = str(error)
    assert refused.keys() == {name for name, families in REFUSALS.items() if family in families}, refused
    for name, reason in refused.items():
        assert re.fullmatch(REASONS[name], reason)


@pytest.mark.parametrize("family", FAMILIES)
def test_formats_of_blocks_take_rows_that_they_divide(family, make):
    for name in ("gguf", "mxfp4", "nvfp4"):
        exercise(name, make(family, divisible=True))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec, severity", [("wanda", 0.5), ("gptq:group_size=8", 4)])
def test_calibration_block_by_block(family, spec, severity, make):
    model, _, logits = make(family)
    prepared = hemostat.prepare(model, spec, calibration=TOKENS, propagate=True)
    assert torch.equal(prepared.at(prepared.axis.neutral)(TOKENS), logits)
    found = prepared.at(severity)(TOKENS)
    assert found.isfinite().all()
    assert not torch.equal(found, logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_localize_names_every_linear(family, make):
    model = make(family).model
    found = hemostat.localize(model, "rtn", TOKENS[:2], severity=2, linears=True, control=False, progress=False)
    sites = {site.name: site for site in found.sites}
    assert sites.keys() >= set(model.linears().names)
    assert any(".experts.1." in name for name in sites) == (family in MIXTURES)
    assert all(math.isfinite(site.delta_nll) for site in sites.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scans_plan_states_numbers(family, make):
    model = make(family).model
    specs = [spec_of(name) for name in METHODS if family not in REFUSALS.get(name, ())]
    unknown = [name for name in METHODS if name in specs and METHODS[name].needs and not METHODS[name].on_linears]
    for propagate in (False, True):
        checked = CheckedScan(model, TOKENS, None, methods=specs, points=2, localize_windows=1, propagate=propagate)
        memory = plan_memory(checked)
        assert memory.weights == model.bytes
        stated = [memory.baseline, *memory.statistics.values(), memory.collecting, memory.changed, memory.working]
        assert all(0 < count < math.inf for count in stated), stated
        text = plan_text(checked, (), resumes=False)
        assert f"{len(checked.trials)} trials, each on 5 windows of 24 tokens" in text
        last = (
            r"\nmemory: about [\d.]+ [KM]iB at once \(.+\)\ntime: about [\d.]+ \w+ \(.+\), and what (.+) takes itself$"
        )
        found = re.search(last, text)
        assert found, text
        assert found[1].split(", ") == unknown


class Routing(hemostat.Observer):
    """By block, which experts each token goes to and what reaches their router."""

    def __init__(self, model: hemostat.Model):
        super().__init__()
        self.routers = set(routers_of(model))
        self.chosen: dict[int, torch.Tensor] = {}
        self.inputs: dict[int, torch.Tensor] = {}
        model.forward(TOKENS, observer=self)

    def routing(self, block, experts, weights):
        self.chosen[block] = experts.clone()

    def linear_input(self, block, names, x):
        if self.routers & set(names):
            self.inputs[block] = x.flatten(0, -2).clone()

    def tokens_of(self, name: str) -> torch.Tensor:
        """What reaches the expert that a linear is part of."""
        block, expert = map(int, re.search(r"\.(\d+)\..*\.experts\.(\d+)\.", name).groups())
        return self.inputs[block][(self.chosen[block] == expert).any(1)]


def routers_of(model: hemostat.Model) -> list[str]:
    linears = model.linears(include="*")
    return [name for name, role in zip(linears.names, linears.roles, strict=True) if role == "router"]


@pytest.mark.parametrize("family", MIXTURES)
class TestExperts:
    def test_each_has_statistics_of_its_own_tokens(self, family, make):
        model, statistics, _ = make(family)
        routing, linears = Routing(model), model.linears()
        for name, role in zip(linears.names, linears.roles, strict=True):
            if ".experts." not in name:
                assert statistics[name].count == TOKENS.numel(), name
                continue
            tokens = routing.tokens_of(name)
            assert statistics[name].count == len(tokens), name
            if role in ("gate", "up") and len(tokens):
                torch.testing.assert_close(statistics[name].norm, tokens.square().mean(0).sqrt())

    @pytest.fixture
    def starved(self, family, make) -> tuple[hemostat.Model, set[str]]:
        """The model with experts in its first mixture that no token reaches, and the names of their linears."""
        model = make(family).model
        router = routers_of(model)[0]
        # The first experts win tokens on one side of a plane, the next those on the other; the last none.
        normal = 100 * hemostat.collect(model, TOKENS, "mean", include=router, progress=False)[router].mean
        top_k = next(block.experts.top_k for block in model.blocks if len(block.experts))
        weight = torch.zeros_like(model.linears(include="*")[router])
        weight[:top_k], weight[top_k : 2 * top_k] = normal, -normal
        model = model.replace({router: weight})
        routing = Routing(model)
        unread = {name for name in model.linears().names if ".experts." in name and not len(routing.tokens_of(name))}
        assert unread
        return model, unread

    def test_one_that_no_token_reaches_is_damaged_like_others(self, starved):
        model, unread = starved
        statistics = hemostat.collect(model, TOKENS, [spec_of(name) for name in METHODS], progress=False)
        assert {name for name, inputs in statistics.items() if inputs.count == 0} == unread
        before = model.linears()
        for method in METHODS.values():
            if not (method.on_linears and method.needs):
                continue
            prepared = hemostat.prepare(model, spec_of(method.name), statistics)
            damaged = prepared.at(0.5 if prepared.axis.neutral == 0 else 3)
            assert damaged(TOKENS).isfinite().all(), method.name
            after = damaged.linears()
            for name in unread:
                assert after[name].isfinite().all(), (method.name, name)
                assert not torch.equal(after[name], before[name]), (method.name, name)
                if prepared.axis.name == "sparsity" and method.name != "owl":  # which chooses each block's
                    assert (after[name] == 0).double().mean() == pytest.approx(0.5, abs=0.02), (method.name, name)

    @pytest.mark.parametrize("spec, severity", [("wanda", 0.5), ("gptq:group_size=8", 4)])
    def test_one_that_no_token_reaches_is_calibrated_block_by_block(self, spec, severity, starved):
        model, unread = starved
        damaged = hemostat.prepare(model, spec, calibration=TOKENS, propagate=True).at(severity)
        assert damaged(TOKENS).isfinite().all()
        assert all(damaged.linears()[name].isfinite().all() for name in unread)

    def test_one_that_no_token_reaches_costs_nothing(self, starved):
        model, unread = starved
        found = hemostat.localize(model, "rtn", TOKENS, severity=2, linears=True, control=False, progress=False)
        sites = {site.name: site for site in found.sites}
        assert all(sites[name].delta_nll == 0 for name in unread)
        assert any(site.delta_nll for name, site in sites.items() if ".experts." in name)
