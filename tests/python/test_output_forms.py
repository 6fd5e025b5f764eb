"""Tables for other programs, and tolerances as one types them."""

import csv
import io

import pytest

import hemostat
from hemostat._output_forms import parse_tolerances
from hemostat.cli import main

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def scanned(tiny_checkpoint, tmp_path_factory):
    directory = tmp_path_factory.mktemp("forms")
    text = directory / "eval.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20, encoding="utf-8")
    arguments = [
        "--methods",
        "magnitude@0.1,0.5,rtn:group_size=16@4",
        "--localize",
        "1",
        "--out",
        str(directory / "run"),
    ]
    assert main(["scan", str(tiny_checkpoint), "--text", str(text), *arguments]) == 0
    return directory


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("given", "values", "by"),
    [
        (None, (0.02, 0.05, 0.1), "delta_nll"),
        (["0.03"], [0.03], "delta_nll"),
        (["0.03,0.3", "0.03"], [0.03, 0.3], "delta_nll"),
        (["kl=0.05,0.1"], [0.05, 0.1], "kl"),
        (["top1=0.02", "top1_agreement=0.1"], [0.02, 0.1], "top1_agreement"),
    ],
)
def test_tolerances(given, values, by):
    assert parse_tolerances(given) == (values, by)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["0"], "takes numbers above 0"),
        (["-0.1"], "takes numbers above 0"),
        (["nan"], "takes numbers above 0"),
        (["inf"], "takes numbers above 0"),
        (["kl="], "takes numbers above 0"),
        (["=0.1"], "kl=NUMBER"),
        (["loss=0.1"], "kl=NUMBER"),
        (["kl=0.1", "0.1"], "one criterion at a time"),
    ],
)
def test_tolerances_that_are_none(given, message, tiny_checkpoint, capsys):
    with pytest.raises(ValueError, match=message):
        parse_tolerances(given)
    assert main(["scan", str(tiny_checkpoint), "--text", "missing", *(f"--tolerance={each}" for each in given)]) == 2
    assert "--tolerance" in capsys.readouterr().err


def test_csv_has_every_number(scanned, capsys):
    assert main(["report", str(scanned / "run"), "--format", "csv"]) == 0
    found, expected = rows(capsys.readouterr().out), hemostat.Report.load(scanned / "run").trials
    assert [float(row["delta_nll"]) for row in found] == [trial["damage"]["delta_nll"] for trial in expected]
    assert [float(row["severity"]) for row in found] == [0.1, 0.5, 4]
    assert {"kl_mean", "acceptance", "volume", "bytes", "delta_nll_low"} <= found[0].keys()


@pytest.mark.parametrize(("part", "column", "count"), [("zones", "tolerance", 6), ("layers", "name", 10)])
def test_other_parts(scanned, capsys, part, column, count):
    assert main(["report", str(scanned / "run"), "--format", "csv", "--part", part]) == 0
    found = rows(capsys.readouterr().out)
    assert column in found[0] and len(found) >= count - 2


def test_markdown_is_a_table(scanned, capsys):
    assert main(["report", str(scanned / "run"), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert lines[0].startswith("| method | options | severity |") and set(lines[1]) <= set("| -")
    assert len(lines) == 2 + 3


def test_the_table_tells_zones_by_the_tolerance(scanned, capsys):
    assert main(["report", str(scanned / "run"), "--tolerance", "kl=0.5,1"]) == 0
    out = capsys.readouterr().out
    assert "a KL of" in out and " 0.5 " in out


def test_methods_for_other_programs(capsys):
    assert main(["methods", "--format", "csv"]) == 0
    found = rows(capsys.readouterr().out)
    assert [row["method"] for row in found] == [method.name for method in hemostat.methods()]
    assert main(["methods", "wanda", "--format", "markdown"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_compare_and_localize(scanned, tiny_checkpoint, capsys):
    text = ["--text", str(scanned / "eval.txt"), "--windows", "2", "--format", "csv"]
    assert main(["compare", str(tiny_checkpoint), str(tiny_checkpoint), *text]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert float(row["delta_nll"]) == 0 and float(row["acceptance"]) == 1
    assert main(["localize", str(tiny_checkpoint), "--method", "magnitude", "--severity", "0.5", *text]) == 0
    assert [row["block"] for row in rows(capsys.readouterr().out)] == ["0", "1", "2", "3"]


def test_sizes_stand_in_the_table(scanned, capsys):
    assert main(["report", str(scanned / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    baseline = hemostat.Report.load(scanned / "run").trials[0]["damage"]
    assert baseline["bytes"] == baseline["bytes_baseline"]
    (rounded,) = [line for line in lines if line.startswith("rtn:group_size=16 ") and "4 bits" in line]
    assert "kB, −" in rounded
