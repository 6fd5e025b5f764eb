"""What a method of one's own may do, and what it may not: change in place what it is lent."""

import contextlib
import sqlite3

import pytest
import torch

import hemostat
from hemostat._checked_scan import CheckedScan

AXIS = hemostat.Axis(name="x", default_grid=[0.3, 0.6])


def method(name, at, needs=()):
    @hemostat.method(name, axis=AXIS, needs=needs)
    def function(model, statistics):
        return lambda severity: at(model, statistics) or model


def test_a_method_is_watched_wherever_it_is_called(tiny_checkpoint, tiny_tokens):
    method("spoils", lambda model, statistics: [model.embedding.mul_(2), None][1])
    for call in (
        lambda model: hemostat.prepare(model, "spoils").at(0.5),
        lambda model: hemostat.sweep(model, "spoils", tiny_tokens),
        lambda model: hemostat.localize(model, "spoils", tiny_tokens, severity=0.5),
        lambda model: hemostat.surface(model, ["magnitude", "spoils"], tiny_tokens, severities=[[0.5], [0.5]]),
    ):
        model = hemostat.Model.load(tiny_checkpoint)
        with pytest.raises(ValueError, match="'spoils'.* changed model.embed_tokens.weight in place"):
            call(model)


def test_a_method_may_not_add_to_statistics(tiny_model, tiny_tokens):
    name = tiny_model.linears()[0][0]
    method("adds", lambda model, statistics: statistics[name].add(torch.ones(1, 32)), needs=["absmax"])
    statistics = hemostat.collect(tiny_model, tiny_tokens, "adds")
    with pytest.raises(ValueError, match="'adds'.* changed the statistics of .*k_proj and 2 more"):
        hemostat.prepare(tiny_model, "adds", statistics).at(0.5)


def test_a_method_may_not_change_the_tokens(tiny_model, tiny_tokens, tmp_path):
    tokens = tiny_tokens.clone()
    method("rewrites", lambda model, statistics: [tokens[5].zero_(), None][1])
    with pytest.raises(ValueError, match="beside the trial of rewrites changed evaluation in place"):
        hemostat.scan(tiny_model, tokens[4:], tokens[:4], methods="magnitude,rewrites", points=1, store=tmp_path / "s")
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as connection:
        assert connection.execute("SELECT method FROM trials").fetchall() == [("magnitude",)]
    tokens = tiny_tokens.clone()
    with pytest.raises(ValueError, match="hemostat.sweep: .* changed tokens in place"):
        hemostat.sweep(tiny_model, "rewrites", tokens)


def test_a_method_may_do_all_else(tiny_model, tiny_tokens):
    def at(model, statistics):
        changed = {name: weight.clone().mul_(0.5) for name, weight in model.linears()}
        return model.replace(changed)

    method("proper", at)
    assert len(hemostat.sweep(tiny_model, "proper", tiny_tokens).damages) == 2
    assert CheckedScan(tiny_model, tiny_tokens, None, methods="proper").trials == [("proper", 0.3), ("proper", 0.6)]
