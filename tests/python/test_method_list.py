"""Lists of methods as one types them, with options and severities."""

import pytest

import hemostat
from hemostat._method_list import split_joint, split_methods


@pytest.mark.parametrize(
    ("given", "specs"),
    [
        ("wanda", ["wanda"]),
        ("wanda, magnitude", ["wanda", "magnitude"]),
        (["wanda", "magnitude,rtn"], ["wanda", "magnitude", "rtn"]),
        ("wanda,rtn:group_size=64,symmetric=true,svd", ["wanda", "rtn:group_size=64,symmetric=true", "svd"]),
        (["rtn:group_size=64", "rtn:group_size=128,"], ["rtn:group_size=64", "rtn:group_size=128"]),
    ],
)
def test_a_comma_parts_methods_or_options(given, specs):
    assert split_methods(given) == [(spec, None) for spec in specs]


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ("rtn@4,3", [("rtn", (4, 3))]),
        ("rtn @ 4 , 3 ,wanda", [("rtn", (4, 3)), ("wanda", None)]),
        (
            "rtn:group_size=64@4,3,wanda@.5,1e-1,magnitude",
            [("rtn:group_size=64", (4, 3)), ("wanda", (0.5, 0.1)), ("magnitude", None)],
        ),
        ("rtn:group_size=64,symmetric=true@4,svd", [("rtn:group_size=64,symmetric=true", (4,)), ("svd", None)]),
        (["rtn@4", "wanda@0.5"], [("rtn", (4,)), ("wanda", (0.5,))]),
    ],
)
def test_severities_follow_an_at(given, listed):
    assert split_methods(given) == listed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("symmetric=true", "the option 'symmetric=true' before any method"),
        (["rtn:group_size=64", "symmetric=true"], "the option 'symmetric=true' before any method"),
        ("rtn@4,symmetric=true", "the option 'symmetric=true' after the severities of rtn"),
        ("rtn@4,symmetric=true@3", "the option 'symmetric=true' after the severities of rtn"),
        ("0.5,wanda", "the severity 0.5 without a method"),
        ("wanda,0.5", "the severity 0.5 without a method"),
        (["wanda@0.4", "0.5"], "the severity 0.5 without a method"),
        ("rtn@", "'rtn@'; after the @ it takes numbers"),
        ("rtn@four", "'rtn@four'; after the @ it takes numbers"),
        ("rtn@4@3", "'rtn@4@3'; after the @ it takes numbers"),
        ("@4", "'@4', which names no method"),
        (" , ", "methods is empty"),
    ],
)
def test_refusals(given, message):
    with pytest.raises(ValueError, match=message):
        split_methods(given)


@pytest.mark.integration
def test_a_scan_takes_the_severities_of_its_list(tiny_model, tiny_tokens):
    report = hemostat.scan(tiny_model, tiny_tokens, methods="rtn@4,3,magnitude", severities=[0.25, 0.5])
    assert [(trial["method"], trial["severity"]) for trial in report.trials] == [
        ("rtn", 4),
        ("rtn", 3),
        ("magnitude", 0.25),
        ("magnitude", 0.5),
    ]


@pytest.mark.integration
def test_a_pair_takes_the_severities_of_its_list(tiny_model, tiny_tokens):
    report = hemostat.scan(tiny_model, tiny_tokens, joint=["magnitude@0.25,rtn@4,3"])
    assert report.surfaces[0]["severities"] == [[0, 0.25], [16, 4, 3]]
    assert [spec for spec, _ in split_joint(["magnitude@0.25,rtn@4,3"])[0]] == ["magnitude", "rtn"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": "rtn@4", "severities": {"rtn": [3]}}, "severities of rtn are given twice"),
        ({"methods": "rtn@4", "joint": ["magnitude,rtn@3"]}, "severities of rtn are listed twice, and differ"),
        ({"methods": "rtn@17"}, "17"),
    ],
)
def test_severities_that_contradict_or_are_out_of_range(tiny_model, tiny_tokens, given, message):
    with pytest.raises(ValueError, match=message):
        hemostat.scan(tiny_model, tiny_tokens, **given)
