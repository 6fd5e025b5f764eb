"""Two runs side by side: differences, their intervals, and what keeps them from being compared."""

from __future__ import annotations

import copy
import json
import re

import pytest
from report_documents import BITS, document, method

from hemostat.cli import main
from hemostat.report import Report

LENGTHS = (-0.4, -0.1, 0.1, 0.4)  # what each of four windows' losses add to the mean


def run(losses, labels=("rtn",), windows=False, change=None):
    """Each label's ΔNLL by bits, each with an interval of ± a tenth; windows: with each window's numbers."""
    points = [(bits, loss, 0.1) for bits, loss in losses.items()]
    given = document(*(method(label, BITS, points) for label in labels), windows=4 if windows else 40)
    if windows:
        given["baseline"]["window_nll"] = [3 + length for length in LENGTHS]
        for trial in given["trials"]:
            trial["windows"] = {"nll": [3 + trial["damage"]["delta_nll"] + 2 * length for length in LENGTHS]}
    if change:
        change(given)
    return Report(given)


class TestDifferences:
    def test_are_this_run_minus_the_other(self):
        rows = run({8: 0.1, 4: 0.9}).compare(run({8: 0.1, 4: 0.4})).to_dict()["trials"]
        assert [row["difference"] for row in rows] == pytest.approx([0.0, 0.5])
        assert rows[1]["delta_nll"] == 0.9 and rows[1]["delta_nll_other"] == 0.4
        # of two independent estimates, each ± 0.1
        assert (rows[1]["difference_low"], rows[1]["difference_high"]) == pytest.approx(
            (0.5 - 0.1 * 2**0.5, 0.5 + 0.1 * 2**0.5)
        )

    def test_are_counted_where_the_interval_leaves_out_zero(self):
        comparison = run({8: 0.1, 5: 0.3, 4: 0.9}).compare(run({8: 0.2, 5: 0.9, 4: 0.4}), ("new", "old"))
        assert comparison.headline() == (
            "Of 3 severities measured in both runs, new bleeds less than old at 1, and more at 1."
        )
        less, more, same = comparison.findings()
        assert less[0].claim == "less at 1 of 3 severities"
        assert "Most at 5 bits: +0.30 nats against +0.90 in old, a difference of −0.60 (−0.74 … −0.46)." in (
            less[0].evidence
        )
        assert more[0].claim == "more at 1 of 3 severities" and same == []

    def test_within_both_intervals_are_none(self):
        less, more, same = run({4: 0.4}).compare(run({4: 0.45})).findings()
        assert not less and not more
        assert same[0].claim == "no difference shown" and "0.05 nats, within the intervals" in same[0].evidence
        assert "It is safe up to 15.5 bits instead of 15.6 bits at 0.02, 14.8 bits instead of" in same[0].evidence

    def test_of_a_run_with_itself_are_none(self):
        report = run({8: 0.1, 4: 0.4}, windows=True)
        comparison = report.compare(report)
        assert comparison.findings()[2][0].claim == "the same numbers" and comparison.warnings == []
        for row in comparison.to_dict()["trials"]:
            assert row["difference"] == row["difference_low"] == row["difference_high"] == 0

    def test_on_the_same_windows_are_paired(self):
        comparison = run({4: 0.4}, windows=True).compare(run({4: 0.39}, windows=True))
        assert comparison.paired and comparison.to_dict()["paired"] and "paired bootstrap" in comparison.table()
        (row,) = comparison.to_dict()["trials"]
        # Every window differs by as much, however far windows lie from each other.
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((0.01, 0.01), abs=1e-9)
        assert "more at 1" in comparison.headline()

    @pytest.mark.parametrize("field", ["sha256", "windows", "length"])
    def test_on_other_windows_are_not(self, field):
        def change(given):
            given["provenance"]["evaluation"][field] = "xx" if field == "sha256" else 5

        other = run({4: 0.39}, windows=True, change=change)
        comparison = run({4: 0.4}, windows=True).compare(other)
        assert not comparison.paired and comparison.to_dict()["trials"][0]["difference_low"] < -0.1
        assert "independent" in comparison.table()

    def test_without_windows_say_that_they_are_wider(self):
        def change(given):
            given["provenance"]["evaluation"]["windows"] = 4

        comparison = run({4: 0.4}, windows=True).compare(run({4: 0.4}, change=change), ("new", "old"))
        assert not comparison.paired
        assert any("old has no numbers by window" in warning for warning in comparison.warnings)

    def test_of_what_is_not_finite_are_unknown(self):
        row = run({4: None}).compare(run({4: 0.4})).to_dict()["trials"][0]
        assert row["difference"] is None and row["difference_low"] is None

    def test_are_of_what_both_measured(self):
        comparison = run({8: 0.1, 4: 0.4}, ("rtn", "awq")).compare(run({4: 0.4, 3: 0.9}, ("rtn", "gptq")), ("a", "b"))
        assert [row["severity"] for row in comparison.to_dict()["trials"]] == [4]
        assert comparison.to_dict()["only"] == {"a": ["awq"], "b": ["gptq"]}
        assert run({8: 0.1}).compare(run({4: 0.1})).headline() == "The two runs have no severity in common."


class TestWarnings:
    @pytest.mark.parametrize(
        ("part", "field", "value", "warning"),
        [
            (None, "protocol", "Another.", "protocols differ"),
            ("evaluation", "sha256", "xx", "evaluated different tokens: some"),
            ("model", "sha256", "xx", "measured different weights"),
            ("model", "dtype", "bfloat16", "number formats differ (float32 and bfloat16)"),
            ("calibration", "sha256", "xx", "calibrated on different tokens"),
            ("versions", "hemostat", "2", "versions of hemostat differ (0 and 2)"),
        ],
    )
    def test_name_what_differs(self, part, field, value, warning):
        def change(given):
            provenance = given["provenance"]
            (provenance if part is None else provenance[part])[field] = value

        losses = {4: 0.4}
        warnings = run(losses, windows=True).compare(run(losses, windows=True, change=change)).warnings
        assert len(warnings) == 1 and warning in warnings[0]

    def test_say_how_much_text_each_evaluated(self):
        def change(given):
            given["provenance"]["evaluation"] |= {"windows": 5, "sha256": "xx"}

        warning = run({4: 0.4}).compare(run({4: 0.4}, change=change)).warnings[0]
        assert "(40 windows of 512 tokens and 5 windows of 512 tokens)" in warning

    def test_are_those_of_each_run_too(self):
        def change(given):
            given["provenance"]["warnings"] = ["Take care."]

        warnings = run({4: 0.4}, windows=True).compare(run({4: 0.4}, windows=True, change=change), ("a", "b")).warnings
        assert warnings == ["b: Take care."]

    def test_come_before_everything(self, tmp_path):
        def change(given):
            given["provenance"]["protocol"] = "Another."

        comparison = run({4: 0.4}).compare(run({4: 0.4}, change=change))
        assert comparison.table().startswith("Warning: The protocols differ")
        comparison.to_html(tmp_path / "comparison.html")
        page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
        assert page.index("The protocols differ") < page.index('class="headline"') < page.index("What bleeds less")


class TestForms:
    def test_the_table_has_both_runs(self):
        lines = run({8: 0.1, 4: 0.9}).compare(run({8: 0.1, 4: 0.4}), ("new", "old")).table().splitlines()
        rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
        assert ["rtn", "8 bits", "+0.1000", "+0.1000", "+0.0000", "-0.1414 … +0.1414"] in rows
        assert ["4 bits", "+0.9000", "+0.4000", "+0.5000", "+0.3586 … +0.6414", "more"] in rows
        assert rows[-1] == ["0.1", "12 bits", "12 bits"]

    def test_a_data_frame_has_a_row_a_severity(self):
        frame = run({8: 0.1, 4: 0.9}).compare(run({8: 0.1, 4: 0.4})).to_dataframe()
        assert frame["severity"].tolist() == [8, 4]
        assert frame["difference"].tolist() == pytest.approx([0.0, 0.5])

    def test_json_holds_it(self):
        comparison = run({8: 0.1, 4: None}).compare(run({8: 0.1, 4: 0.4}))
        assert json.loads(json.dumps(comparison.to_dict(), allow_nan=False))["names"] == ["this run", "the other"]

    def test_names_are_escaped(self, tmp_path):
        run({4: 0.4}).compare(run({4: 0.4}), ("<i>a</i>", "</script>")).to_html(tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert "<i>a" not in page.split("<script", 1)[0] and "&lt;i&gt;a" in page
        assert json.loads(re.search(r'id="names">(.*?)</script>', page, re.S)[1]) == ["<i>a</i>", "</script>"]


@pytest.mark.integration
class TestCommand:
    @pytest.fixture
    def scans(self, tmp_path):
        for name, loss in (("old", 0.4), ("new", 0.9)):
            (tmp_path / name).mkdir()
            run({8: 0.1, 4: loss}).to_json(tmp_path / name / "report.json")
        return tmp_path

    def test_writes_one_report_anew(self, scans, capsys):
        for place in (scans / "new", scans / "new" / "report.json"):
            assert main(["report", str(place)]) == 0
            out = capsys.readouterr().out
            report = Report.load(scans / "new")
            assert out == f"{report.table()}\n\n{report.summary()}\n\n{scans / 'new' / 'report.html'}\n"
            assert "How model bleeds" in (scans / "new" / "report.html").read_text(encoding="utf-8")
            (scans / "new" / "report.html").unlink()

    def test_compares_two(self, scans, capsys):
        assert main(["report", str(scans / "new"), "--against", str(scans / "old")]) == 0
        out = capsys.readouterr().out
        assert "new bleeds less than old at 0, and more at 1." in out
        assert out.splitlines()[-1] == str(scans / "new" / "comparison.html")
        assert "new against old" in (scans / "new" / "comparison.html").read_text(encoding="utf-8")

    def test_tells_runs_of_one_name_apart(self, scans, capsys):
        twin = scans / "elsewhere" / "new"
        twin.mkdir(parents=True)
        run({8: 0.1}).to_json(twin / "report.json")
        assert main(["report", str(scans / "new"), "--against", str(twin), "--out", str(scans / "page.html")]) == 0
        assert str(twin) in capsys.readouterr().out and (scans / "page.html").is_file()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["missing"], "there is no"),
            (["empty"], "has no report.json"),
            (["new", "--against", "missing"], "there is no"),
            (["new", "--out", "missing/page.html"], "there is no directory"),
        ],
    )
    def test_says_what_is_missing(self, scans, capsys, monkeypatch, arguments, message):
        (scans / "empty").mkdir()
        monkeypatch.chdir(scans)
        assert main(["report", *arguments]) == 2
        output = capsys.readouterr()
        assert message in output.err and output.out == "" and len(output.err.splitlines()) == 1

    def test_changes_no_number(self, scans):
        before = copy.deepcopy(Report.load(scans / "new").to_dict())
        main(["report", str(scans / "new"), "--against", str(scans / "old")])
        assert Report.load(scans / "new").to_dict() == before
