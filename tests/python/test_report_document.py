"""What scans write is what reports read: one document, typed, made here by real scans."""

from __future__ import annotations

import copy
import json
import re
import shlex

import pytest
import typer
from report_documents import SPARSITY, document, method

import hemostat
from hemostat import cli
from hemostat._provenance import shared_windows
from hemostat.report import Report
from hemostat.report._document import Document
from hemostat.report._verdict import verdict

pytestmark = pytest.mark.integration

METHODS = ["magnitude", "wanda", "rtn:group_size=64", "drop_layers"]


@pytest.fixture(scope="module")
def report(trained):
    return hemostat.scan(
        trained.model,
        trained.tokens[4:12, :128],
        trained.tokens[:4, :128],
        methods=METHODS,
        joint=[("wanda", "rtn:group_size=64")],
        severities={"magnitude": [0.1, 0.3, 0.6], "wanda": [0.1, 0.3, 0.6], "rtn:group_size=64": [8, 3]},
        points=3,
        localize_windows=1,
        progress=False,
    )


@pytest.fixture(scope="module")
def given(report):
    return report.to_dict()


class TestScans:
    def test_know_what_their_methods_change_and_need(self, given):
        facts = {method["label"]: method for method in given["provenance"]["methods"]}
        for label in METHODS:
            registered = next(m for m in hemostat.methods() if m.name == label.partition(":")[0])
            assert facts[label]["kind"] == registered.kind and facts[label]["needs"] == sorted(registered.needs)

    def test_are_read_back_whole(self, report, given):
        again = Document.from_json(json.loads(json.dumps(given)))
        assert again.to_json() == given
        assert Report(given).table() == report.table()
        assert Report(given).summary() == report.summary()
        assert Report(given).summary(0.1, by="kl") == report.summary(0.1, by="kl")
        assert Report(given).to_dataframe("zones").equals(report.to_dataframe("zones"))

    def test_keep_each_windows_numbers(self, report, given):
        assert len(given["baseline"]["window_nll"]) == 8
        for trial, damage in zip(given["trials"], (d for curve in report.curves for d in curve.damages), strict=True):
            assert trial["windows"]["nll"] == damage.window_nll

    def test_say_one_zone_everywhere(self, report, given, tmp_path):
        table = report.table()
        report.to_html(tmp_path / "report.html")
        page = re.sub(r"<script.*?</script>", "", (tmp_path / "report.html").read_text(encoding="utf-8"), flags=re.S)
        for curve, entry in zip(report.curves, given["thresholds"], strict=True):
            threshold = hemostat.find_threshold(curve)
            for name in ("0.02", "0.05", "0.1"):
                zone, edge = entry["zone"][name], entry["edge"][name]
                assert zone == threshold.zone(float(name)) and edge == threshold.edge(float(name))
                assert entry["edge_interval"][name] == list(threshold.edge_interval(float(name)))
        for v in (verdict(report.document, tolerance) for tolerance in (0.02, 0.05, 0.1)):
            for reach in v.reaches:
                zone = reach.curve.zone(v.tolerance)
                if reach.safe:  # every severity that is called safe lies in the zone, none that is not does
                    assert reach.curve.distance(zone.severity) >= reach.curve.distance(reach.safe.severity)
                for trial in filter(None, (reach.open, reach.unsafe)):
                    assert zone.severity is None or (
                        reach.curve.distance(zone.severity) < reach.curve.distance(trial.severity)
                    )
            for finding in v.safe:
                zone = finding.curve.zone(v.tolerance)
                assert finding.claim == finding.curve.up_to(zone.severity)
                assert finding.claim in page and finding.curve.zone_text(v.tolerance) in table

    def test_of_the_unchanged_model_are_safe_and_silent(self, trained):
        damage = hemostat.compare(trained.model, trained.model, trained.tokens[:4])
        assert hemostat.judge(damage, 0.001) == "safe"

    def test_a_baseline_no_better_than_counting_words_gives_no_zone(self, tiny_model, tiny_tokens):
        found = hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=2, progress=False)
        assert found.baseline["index"] is None
        assert found.provenance["warnings"][0].startswith("The unchanged model is no better")
        assert set(found.thresholds[0]["zone"].values()) == {None}
        assert found.summary().startswith("No severity is called safe")


class TestCalibration:
    def test_on_what_is_evaluated_is_said_first(self, trained, tmp_path):
        def scan(evaluation, calibration):
            return hemostat.scan(trained.model, evaluation, calibration, methods="magnitude", points=1, progress=False)

        text = trained.tokens[:, :128]
        same = scan(text[:3], text[:3])
        assert same.table().startswith(
            "Warning: The calibration text is the evaluated one: methods that need statistics"
        )
        same.to_html(tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert page.index("The calibration text is the evaluated one") < page.index('class="headline"')
        part = scan(text[:3], text[2:6]).provenance["warnings"]
        assert part == [
            "1 of 4 calibration windows hold evaluated text: methods that need statistics have seen what they are "
            "measured on, which flatters them."
        ]
        assert scan(text[:3], text[3:6]).provenance["warnings"] == []

    def test_is_seen_wherever_windows_begin(self, trained):
        text = trained.tokens[:3]
        row = text.reshape(1, -1)
        assert shared_windows(row[:, 50 : 50 + 2 * 256].reshape(2, 256), text) == 2
        assert shared_windows(row[:, : 3 * 128].reshape(3, 128), text) == 3
        assert shared_windows(trained.tokens[3:], text) == 0
        short = text[:, :16]
        assert shared_windows(short[:2], short) == 2 and shared_windows(trained.tokens[3:, :16], short) == 0
        assert shared_windows(short, text) == shared_windows(text[:0], text) == shared_windows(text, text[:0]) == 0


class TestOlder:
    @pytest.fixture
    def older(self, given):
        """As the version before wrote it."""
        found = copy.deepcopy(given)
        del found["provenance"]["warnings"], found["baseline"]["window_nll"], found["baseline"]["index"]
        for facts in found["provenance"]["methods"]:
            del facts["kind"], facts["needs"]
        later = {"acceptance", "acceptance_interval", "top1_agreement_interval", "volume", "silent"}
        later |= {"direction", "direction_interval", "delta_nll_unchanged"}
        for trial in found["trials"]:
            del trial["windows"], trial["damage"]["kl"]["mean_interval"]
            trial["damage"] = {name: value for name, value in trial["damage"].items() if name not in later}
        for entry in found["thresholds"]:
            entry |= {"zone": entry.pop("edge"), "zone_censored": entry.pop("edge_censored")}
            entry["zone_interval"] = entry.pop("edge_interval")
        for surface in found["surfaces"]:
            for facts in surface["methods"]:
                del facts["kind"], facts["needs"]
        return found

    def test_is_read(self, older, report):
        again = Report(older)
        assert again.table() == report.table()  # zones by the intervals that it has, edges with theirs
        told, before = (each.summary().partition("\nWhat to do\n")[0] for each in (again, report))
        assert told == before  # what to do compares methods window by window
        assert again.provenance["methods"] == report.provenance["methods"]
        assert [entry["zone"] for entry in again.thresholds] == [entry["zone"] for entry in report.thresholds]

    def test_a_method_that_nobody_knows_any_more_has_no_kind(self, older):
        text = json.dumps(older).replace('"magnitude"', '"forgotten"')
        again = Report(json.loads(text))
        assert again.provenance["methods"][0]["kind"] is None and again.provenance["methods"][0]["needs"] is None
        assert "forgotten" in again.summary() and "--method forgotten" not in again.summary()

    def test_compares_unpaired_and_says_so(self, older, report):
        comparison = report.compare(Report(older), ("new", "old"))
        assert not comparison.paired and any("old has no numbers by window" in w for w in comparison.warnings)
        assert report.compare(report).paired


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda d: d.pop("baseline"), "the report has no baseline"),
            (lambda d: d["baseline"].pop("perplexity"), "baseline has no perplexity"),
            (lambda d: d["baseline"].update(noise_floor=3), "baseline.noise_floor is 3, but must be an object"),
            (lambda d: d["baseline"]["noise_floor"].pop("against"), "baseline.noise_floor"),
            (lambda d: d["provenance"].pop("date"), "provenance has no date"),
            (lambda d: d["provenance"].update(methods={}), "provenance.methods is {}, but must be a list"),
            (
                lambda d: d["provenance"]["evaluation"].update(windows="4"),
                'evaluation.windows is "4", but must be an int',
            ),
            (lambda d: d["provenance"]["methods"][0].pop("axis"), r"provenance.methods\[0\] has no axis"),
            (lambda d: d["provenance"]["methods"][0]["axis"].update(neutral="x"), r"provenance.methods\[0\].axis"),
            (lambda d: d["provenance"]["methods"][0].update(needs="gram"), 'needs is "gram", but must be a list'),
            (lambda d: d["trials"][1].pop("severity"), r"trials\[1\] has no severity"),
            (lambda d: d["trials"][1].update(severity=True), r"trials\[1\].severity is true, but must be a number"),
            (lambda d: d["trials"][1]["damage"].pop("kl"), r"trials\[1\].damage: there is no field kl"),
            (lambda d: d["trials"][1]["damage"].update(delta_nll="x"), r"trials\[1\].damage: .*delta_nll"),
            (lambda d: d.update(localizations=[{"method": "wanda"}]), r"localizations\[0\] has no options"),
            (lambda d: d.update(trials=[3]), r"trials\[0\] is 3, but must be an object"),
            (lambda d: d.update(surfaces=[{}]), r"surfaces\[0\] has no methods"),
        ],
    )
    def test_name_the_field_of_the_entry(self, change, sentence, tmp_path):
        found = document(method("wanda", SPARSITY, [(0.1, 0.01, 0.005), (0.5, 0.5, 0.05)]))
        found["thresholds"] = []
        change(found)
        (tmp_path / "report.json").write_text(json.dumps(found))
        with pytest.raises(ValueError, match=f"report.json is not a report.json: .*{sentence}"):
            Report.load(tmp_path)


def commands(report):
    return [found.command for found in verdict(report.document, 0.05).actions if found.command]


def parsed(command):
    """By the real command line, without running it."""
    words = shlex.split(command)
    assert words[0] == "hemostat"
    group = typer.main.get_command(cli.app)
    subcommand = group.commands[words[1]]
    return words[1], subcommand.make_context(words[1], words[2:]).params


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """The reference model from the command line, without a look at its layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("advice"))
        methods = "magnitude@0.1,0.3,wanda@0.1,0.3,rtn:group_size=64@8,3"
        options = ["--windows", "6", "--calibration-windows", "8", "--localize", "0"]
        assert cli.main(["scan", "reference", "--methods", methods, *options, "--out", "run"]) == 0
        yield Report.load("run")


class TestAdvice:
    def test_of_a_real_scan_says_what_to_type(self, report, scanned):
        for each in (report, scanned):
            said = each.summary()
            assert "hemostat apply" in said and re.search(r"Use (wanda|magnitude) up to sparsity", said)
            assert "At equal sparsity" in said
        assert "Find out where it bleeds" in scanned.summary() and "hemostat localize reference" in scanned.summary()
        assert "Find out where it bleeds" not in report.summary()

    def test_each_command_parses(self, report, scanned):
        found = [parsed(command) for each in (report, scanned) for command in commands(each)]
        assert {verb for verb, _ in found} == {"apply", "localize", "scan"}
        applied = [parsed(command)[1] for command in commands(scanned) if command.startswith("hemostat apply")]
        assert applied
        for options in applied:
            assert options["checkpoint"] == "reference" and options["text"] is None
            assert options["calibration_windows"] == (8 if options["method"] == "wanda" else 128)

    def test_each_command_runs(self, scanned, capsys):
        found = commands(scanned)
        assert found
        for command in found:
            words = shlex.split(command)[1:]
            # A grid takes minutes: its plan is made of the same arguments, by the same code.
            assert cli.main([*words, "--plan"] if words[0] == "scan" else words) == 0, command
        capsys.readouterr()
