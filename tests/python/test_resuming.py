"""Scans that go on: what is reused, what is said of it, and what is damaged."""

import contextlib
import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import former_store
import pytest
from own_method import MINE
from scan_store import kept

import hemostat
from hemostat.cli import main
from hemostat.report import Report

pytestmark = pytest.mark.integration


def changed(*statements):
    connection = sqlite3.connect("run/scan.db")
    with contextlib.closing(connection):
        for statement in statements:
            connection.execute(statement)
        connection.commit()


class TestWhatIsReused:
    def scan(self, model, tokens, path, calibration=None, **options):
        """The report, and how many trials were measured for it."""
        report = hemostat.scan(
            model, tokens[4:], tokens[:4] if calibration is None else calibration, store=path, **options
        )
        return report, len(report.trials) - report.provenance["resumed"]

    def test_a_method_and_severities_that_are_added(self, tiny_model, tiny_tokens, tmp_path):
        path = tmp_path / "scan.db"
        first, measured = self.scan(tiny_model, tiny_tokens, path, methods="magnitude", points=3)
        assert measured == 3
        more, measured = self.scan(tiny_model, tiny_tokens, path, methods="wanda,magnitude", points=3)
        assert measured == 3
        assert more.trials[3:] == first.trials
        finer, measured = self.scan(tiny_model, tiny_tokens, path, methods="magnitude", points=5)
        assert measured == 2  # 0.3 and 0.7 between 0.1, 0.5 and 0.9
        fresh = hemostat.scan(tiny_model, tiny_tokens[4:], tiny_tokens[:4], methods="magnitude", points=5)
        assert finer.trials == fresh.trials
        assert finer.thresholds == fresh.thresholds
        fewer, measured = self.scan(tiny_model, tiny_tokens, path, methods="wanda", points=2)
        assert (measured, len(fewer.trials)) == (0, 2)

    def test_pairs_and_single_methods_share_trials(self, tiny_model, tiny_tokens, tmp_path):
        path = tmp_path / "scan.db"
        self.scan(tiny_model, tiny_tokens, path, methods="magnitude,rtn", points=2)
        joint, _ = self.scan(tiny_model, tiny_tokens, path, joint=["magnitude,rtn"], points=2)
        assert joint.provenance["resumed"] == 4
        alone, measured = self.scan(tiny_model, tiny_tokens, path, methods="rtn", points=2)
        assert measured == 0

    def test_other_windows_are_other_trials(self, tiny_model, tiny_tokens, tmp_path):
        path = tmp_path / "scan.db"
        few, _ = self.scan(tiny_model, tiny_tokens[:8], path, methods="magnitude", points=2)
        many, measured = self.scan(tiny_model, tiny_tokens, path, methods="magnitude", points=2)
        assert measured == 2
        assert many.baseline["windows"] == 6
        again, measured = self.scan(tiny_model, tiny_tokens[:8], path, methods="magnitude", points=2)
        assert measured == 0
        assert again.trials == few.trials

    def test_calibration_is_what_its_methods_depend_on(self, trained, tmp_path):
        """And the index of all, which is computed anew."""
        path, tokens, other = tmp_path / "scan.db", trained.tokens[:8, :128], trained.tokens[8:11, :128]
        options = {"methods": "magnitude,wanda", "severities": [0.2, 0.5]}
        self.scan(trained.model, tokens, path, **options)
        again, measured = self.scan(trained.model, tokens, path, calibration=other, **options)
        assert measured == 2
        fresh = hemostat.scan(trained.model, tokens[4:], other, **options)
        assert again.trials == fresh.trials
        assert again.trials[0]["damage"]["index"] > 0

    def test_generation_is_what_its_methods_depend_on(self, tiny_model, tiny_tokens, tmp_path):
        path = tmp_path / "scan.db"
        protocol = hemostat.GenerationProtocol(prompts=2, prompt_length=4, new_tokens=4)
        options = {"methods": "temperature,magnitude", "points": 1}
        self.scan(tiny_model, tiny_tokens, path, **options)
        assert self.scan(tiny_model, tiny_tokens, path, generation=protocol, **options)[1] == 2
        assert self.scan(tiny_model, tiny_tokens, path, generation=protocol, **options)[1] == 0
        assert self.scan(tiny_model, tiny_tokens, path, generation=True, **options)[1] == 1  # temperature was so before

    def test_a_localization_at_another_severity_is_another(self, trained, tmp_path):
        options = {"methods": "magnitude", "localize_windows": 1}
        path, tokens = tmp_path / "scan.db", trained.tokens[:6, :128]
        self.scan(trained.model, tokens, path, severities=[0.7], **options)
        again, _ = self.scan(trained.model, tokens, path, severities=[0.5, 0.7], **options)
        fresh = hemostat.scan(trained.model, tokens[4:], tokens[:4], severities=[0.5, 0.7], **options)
        assert again.to_dict()["localizations"] == fresh.to_dict()["localizations"]
        stages = []
        back = hemostat.scan(
            trained.model,
            tokens[4:],
            tokens[:4],
            severities=[0.7],
            store=path,
            progress=lambda stage, *_: stages.append(stage),
            **options,
        )
        assert back.to_dict()["localizations"][0]["severity"] == 0.7
        assert set(stages) == {"trials"}

    @pytest.mark.parametrize(
        ("change", "same"),
        [
            (lambda config: {"transformers_version": "9.9.9"} | config, True),
            (lambda config: dict(reversed(config.items())), True),
            (
                lambda config: (
                    {key: value for key, value in config.items() if key != "dtype"} | {"torch_dtype": "float32"}
                ),
                True,
            ),
            (lambda config: config | {"rms_norm_eps": 1e-3}, False),
            (lambda config: config | {"rope_theta": 500.0}, False),
        ],
    )
    def test_a_config_that_says_the_same_is_the_same_model(self, tiny_checkpoint, tiny_tokens, tmp_path, change, same):
        copy, path = tmp_path / "copy", tmp_path / "scan.db"
        shutil.copytree(tiny_checkpoint, copy)
        self.scan(hemostat.Model.load(copy), tiny_tokens, path, methods="magnitude", points=1)
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(change(config), indent=7))
        assert self.scan(hemostat.Model.load(copy), tiny_tokens, path, methods="magnitude", points=1)[1] == (not same)

    def test_what_a_method_of_ones_own_uses_is_its_source(self, tiny_model, tiny_tokens, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        path, helper = tmp_path / "scan.db", tmp_path / "helper_of_mine.py"
        (tmp_path / "method_of_mine.py").write_text(MINE.format(line="severity = helper_of_mine.half(severity)"))
        with (tmp_path / "method_of_mine.py").open("a") as file:
            file.write("\n\nimport helper_of_mine\n")

        def measured(text):
            helper.write_text(text)
            for name in ("helper_of_mine", "method_of_mine"):
                sys.modules.pop(name, None)
            shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
            __import__("method_of_mine")
            return self.scan(tiny_model, tiny_tokens, path, methods="mine,magnitude", points=2)[1]

        assert measured("def half(x):\n    return x / 2\n") == 4
        assert measured("def half(x):\n    return x / 2\n") == 0
        assert measured("def half(x):\n    return x / 4\n") == 2

    def test_what_a_closure_holds_is_its_source(self, tiny_model, tiny_tokens, tmp_path):
        def define(factor):
            @hemostat.method("held", axis=hemostat.Axis(name="x", default_grid=[0.5]))
            def held(model, statistics):
                return lambda s: model.replace({n: w * (1 - factor * s) for n, w in model.linears()})

        counts = []
        for factor in (0.5, 0.5, 0.75):
            define(factor)
            counts.append(self.scan(tiny_model, tiny_tokens, tmp_path / "scan.db", methods="held")[1])
        assert counts == [1, 0, 1]


class TestWhatIsSaid:
    def test_of_methods_and_severities_that_are_added(self, scan):
        assert scan("--methods", "magnitude", "--points", 2)[0] == 0
        code, _, err = scan("--methods", "magnitude,rtn", "--points", 3, "--resume")
        assert (code, err) == (0, "reusing 2 of 6 trials; measuring 4: magnitude 0.5, rtn 8 5 2")
        code, out, err = scan("--methods", "magnitude,rtn", "--points", 3, "--resume")
        assert (code, err) == (0, "reusing 6 of 6 trials")
        assert scan("--methods", "magnitude,rtn", "--points", 3, "--resume", "--plan")[1].endswith(err + "\n")
        assert len(kept()) == 6

    def test_of_a_joint_grid(self, scan):
        scan("--methods", "magnitude", "--points", 1)
        err = scan("--joint", "magnitude,rtn", "--points", 1, "--resume")[2]
        assert err == "reusing 1 of 3 trials; measuring 2: rtn 5, 1 of magnitude, then rtn"

    def test_of_more_windows_other_types_and_calibration(self, scan, tmp_path):
        calibration = tmp_path / "calibration.txt"
        calibration.write_text("Sphinx of black quartz, judge my vow. " * 20)
        methods = ["--methods", "magnitude,wanda", "--points", 1, "--resume"]
        assert scan(*methods, "--windows", 5)[::2] == (
            0,
            "reusing 0 of 2 trials; measuring 2: magnitude 0.5, wanda 0.5",
        )
        code, out, err = scan(*methods, "--windows", 8)
        assert code == 0
        assert "8 windows of 64 tokens" in out
        assert re.search(
            "^2 kept trials of magnitude, wanda are not used: the evaluated text was 5 windows .* and is 8 windows",
            err,
            re.M,
        )
        assert scan(*methods, "--windows", 5)[2] == "reusing 2 of 2 trials"
        code, _, err = scan(*methods, "--windows", 5, "--dtype", "bfloat16")
        assert code == 0
        assert "the dtype was float32 and is bfloat16" in err
        code, _, err = scan(*methods, "--windows", 5, "--length", 32)
        assert code == 0
        assert "windows of 64 tokens" in err and "windows of 32 tokens" in err
        code, _, err = scan(*methods, "--windows", 5, "--calibration-windows", 1)
        assert "reusing 1 of 2 trials; measuring 1: wanda 0.5" in err
        assert "1 kept trial of wanda is not used: the calibration text was 2 windows" in err
        code, _, err = scan(*methods, "--calibration", calibration)  # the evaluated windows begin elsewhere then
        assert code == 0

    def test_another_model_is_refused(self, scan, tiny_model, tiny_checkpoint, tmp_path):
        scan("--methods", "magnitude", "--points", 1)
        before = kept()
        hemostat.prepare(tiny_model, "magnitude").at(0.5).save(tmp_path / "other")
        for extra in ([], ["--plan"]):
            code, out, err = scan("--methods", "rtn", "--resume", *extra, checkpoint=tmp_path / "other")
            assert (code, out) == (2, "")
            assert re.match(
                f"hemostat: --out run holds a scan of another model: {tiny_checkpoint} .*{tmp_path}/other ", err
            )
            assert len(err.splitlines()) == 1
        assert kept() == before

    def test_another_text_is_refused(self, scan, text, tmp_path):
        scan("--methods", "magnitude", "--points", 1)
        other, content = tmp_path / "other.txt", text.read_text()
        other.write_text(content.swapcase())
        code, out, err = scan("--methods", "magnitude", "--points", 1, "--resume", of=other)
        assert (code, out) == (2, "")
        assert re.match(f"hemostat: --out run holds a scan of another text: {text} .*, but {other} .* here", err)
        text.write_text(content.upper())  # under the same name
        assert scan("--methods", "magnitude", "--points", 1, "--resume")[0] == 2
        text.write_text(content)
        assert scan("--methods", "magnitude", "--points", 1, "--resume")[2] == "reusing 1 of 1 trials"

    def test_a_missing_and_an_empty_directory(self, scan):
        for made in (False, True):
            if made:
                Path("run").mkdir()
            assert scan("--methods", "magnitude", "--points", 1, "--resume")[::2] == (
                0,
                "reusing 0 of 1 trials; measuring 1: magnitude 0.5",
            )
            shutil.rmtree("run")

    def test_a_line_a_trial_where_there_is_no_terminal(self, tiny_checkpoint, text, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        main(["scan", str(tiny_checkpoint), "--text", str(text), "--methods", "rtn,magnitude", "--points", "2"])
        lines = capsys.readouterr().err.splitlines()
        assert "baseline: 12 windows" in lines
        (first,) = [line for line in lines if line.startswith("1 of 4: ")]
        assert re.fullmatch(r"1 of 4: rtn at 8: ΔNLL [+-]\d\.\d{4}; .* gone, about .* left", first)
        assert re.search(r"^4 of 4: magnitude at 0\.9: ΔNLL \S+; [\d.]+ s gone$", "\n".join(lines), re.M)


class TestAFormerStore:
    @pytest.fixture
    def former(self, tmp_path):
        former_store.files(tmp_path)
        (tmp_path / "workplace" / "run").mkdir()
        former_store.store(tmp_path / "workplace" / "run" / "scan.db")
        return [*former_store.arguments(tmp_path), "--out", "run", "--resume"]

    def test_goes_on(self, run, former):
        before = kept()
        code, out, err = run(*former)
        assert (code, err) == (0, "reusing 20 of 20 trials")
        assert kept() == before
        report = Report.load("run/report.json")
        assert report.provenance["resumed"] == 20
        assert [entry["method"] for entry in report.to_dict()["localizations"]] == ["magnitude", "wanda", "mine"]
        code, _, err = run(*former, "--methods", "svd")
        assert (code, err) == (0, "reusing 20 of 23 trials; measuring 3: svd 0.1 0.5 0.9")

    def test_knows_a_mended_method_and_another_model(self, run, former, tmp_path):
        (tmp_path / "former.py").write_text(former_store.PLUGIN.replace("1 - severity", "1 - severity / 2"))
        code, _, err = run(*former)
        assert code == 0
        assert err.splitlines() == [
            "reusing 18 of 20 trials; measuring 2: mine 0.25 0.5",
            "2 kept trials of mine are not used: its source changed",
        ]
        assert run(*former)[2] == "reusing 20 of 20 trials"
        config = tmp_path / "former" / "config.json"
        config.write_text(config.read_text().replace('"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-03'))
        code, _, err = run(*former)
        assert code == 2
        assert "another model" in err


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE trials SET damage = '{oops' WHERE severity = 0.5",
            "UPDATE trials SET damage = '' WHERE severity = 0.5",
            """UPDATE trials SET damage = '{"windows": 4}' WHERE severity = 0.5""",
            """UPDATE trials SET damage = replace(damage, '"windows":12', '"windows":"x"') WHERE severity = 0.5""",
            "UPDATE trials SET damage = '[1]' WHERE severity = 0.5",
            "UPDATE trials SET damage = CAST(x'7b22ff' AS TEXT) WHERE severity = 0.5",
            "UPDATE trials SET seconds = 'long' WHERE severity = 0.5",
            "UPDATE trials SET severity = 'often' WHERE severity = 0.5",
        ],
    )
    def test_a_damaged_trial_alone_is_measured_again(self, scan, damage):
        arguments = ["--methods", "magnitude", "--points", 3, "--resume"]
        _, out, _ = scan(*arguments)
        before = Report.load("run/report.json")
        changed(damage)
        code, plan, _ = scan(*arguments, "--plan")
        assert code == 0 and "the trial of magnitude at " in plan
        code, again, err = scan(*arguments)
        assert (code, again) == (0, out)
        assert re.match(
            r"run/scan\.db: the trial of magnitude at (0\.5|often) is damaged \(.+\); it is measured again\n", err
        )
        assert err.endswith("reusing 2 of 3 trials; measuring 1: magnitude 0.5")
        assert Report.load("run/report.json").trials == before.trials
        assert scan(*arguments)[2] == "reusing 3 of 3 trials"

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("UPDATE sessions SET facts = '{'", ""),
            ("DELETE FROM sessions", ""),
            ("UPDATE runs SET facts = 'nothing'", ""),
            ("UPDATE runs SET settings = '{'", ""),
            ("UPDATE runs SET baseline = '{}'", "run/scan.db: the baseline is damaged; it is measured again\n"),
            ("UPDATE runs SET noise_floor = ''", "run/scan.db: the baseline is damaged; it is measured again\n"),
        ],
    )
    def test_what_else_is_damaged_costs_no_trial(self, scan, damage, said):
        arguments = ["--methods", "magnitude", "--points", 2, "--resume"]
        scan(*arguments)
        before = Report.load("run/report.json")
        changed(damage)
        code, _, err = scan(*arguments)
        assert (code, err) == (0, said + "reusing 2 of 2 trials")
        again = Report.load("run/report.json")
        assert (again.trials, again.baseline) == (before.trials, before.baseline)
        assert scan(*arguments)[2] == "reusing 2 of 2 trials"

    def test_what_can_be_read_of_a_damaged_file_is_kept(self, scan):
        arguments = ["--methods", "magnitude,wanda,rtn", "--resume"]
        scan(*arguments)
        content, total = bytearray(Path("run/scan.db").read_bytes()), len(kept())
        content[-8192:-4096] = b"\xff" * 4096
        Path("run/scan.db").write_bytes(content)
        code, plan, _ = scan(*arguments, "--plan")
        assert code == 0 and "run/scan.db is damaged" in plan
        code, _, err = scan(*arguments)
        assert code == 0
        read = int(re.match(r"run/scan\.db is damaged \(.+\): (\d+) of its trials could be read; ", err)[1])
        assert 0 < read < total
        assert f"reusing {read} of {total} trials" in err
        assert Path("run/scan.db.damaged").read_bytes() == content
        assert scan(*arguments)[2] == f"reusing {total} of {total} trials"

    def test_python_warns_of_it(self, tiny_model, tiny_tokens, tmp_path):
        path = tmp_path / "scan.db"
        first = hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=2, store=path)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE trials SET damage = '{' WHERE severity = 0.1")
            connection.commit()
        with pytest.warns(UserWarning, match=f"{path}: the trial of magnitude at 0.1 is damaged"):
            again = hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=2, store=path)
        assert again.trials == first.trials
