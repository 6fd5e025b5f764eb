"""Scans that go on: what is reused and what is said of it, and how they end."""

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import former_store
import pytest
import torch
from progress_lines import without_progress

import hemostat
from hemostat._checked_scan import CheckedScan
from hemostat.cli import main
from hemostat.report import Report

pytestmark = pytest.mark.integration

TEXT = "The quick brown fox jumps over the lazy dog. " * 20  # 14 windows of 64
MINE = """\
import hemostat


@hemostat.method("mine", axis=hemostat.Axis(name="x", default_grid=[0.25, 0.5]))
def mine(model, statistics):
    def at(severity):
        {line}
        return model.replace({{name: weight * (1 - severity) for name, weight in model.linears()}})

    return at
"""


@pytest.fixture
def text(tmp_path):
    file = tmp_path / "eval.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin whose function of severity does something first."""
    file = tmp_path / "mine.py"

    def write(line):
        file.write_text(MINE.format(line=line), encoding="utf-8")
        return file

    return write


@pytest.fixture
def scan(run, tiny_checkpoint, text):
    def call(*arguments, checkpoint=tiny_checkpoint, of=text):
        return run("scan", checkpoint, "--text", of, "--localize", 0, "--out", "run", *arguments)

    return call


def kept():
    connection = sqlite3.connect("run/scan.db")
    with contextlib.closing(connection):
        return [(method, severity) for method, severity in connection.execute("SELECT method, severity FROM trials")]


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
        other = tmp_path / "other.txt"
        other.write_text(TEXT.swapcase())
        code, out, err = scan("--methods", "magnitude", "--points", 1, "--resume", of=other)
        assert (code, out) == (2, "")
        assert re.match(f"hemostat: --out run holds a scan of another text: {text} .*, but {other} .* here", err)
        text.write_text(TEXT.upper())  # under the same name
        assert scan("--methods", "magnitude", "--points", 1, "--resume")[0] == 2
        text.write_text(TEXT)
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


class TestEnds:
    @pytest.mark.parametrize(
        ("line", "message", "code"),
        [
            ("raise RuntimeError('no such luck')", "RuntimeError: no such luck", 2),
            ("raise KeyError('x')", "KeyError: 'x'", 2),
            ("import torch; torch.ones(2) @ torch.ones(3)", "RuntimeError: ", 2),
            ("1 / 0", "ZeroDivisionError: division by zero", 1),
            ("raise MemoryError", "out of memory", 1),
            ("raise SystemExit(0)", "SystemExit: 0", 2),
            ("import nothing_of_this_name", "ModuleNotFoundError: ", 2),
            ("raise KeyboardInterrupt", "interrupted", 130),
        ],
    )
    def test_with_what_is_kept_and_how_to_go_on(self, scan, plugin, line, message, code):
        file = plugin(line)
        arguments = ["--plugin", file, "--methods", "magnitude,mine", "--points", 2]
        found, out, err = scan(*arguments)
        assert (found, out) == (code, "")
        first, second, third = err.splitlines()
        where = "" if code == 130 else f"{re.escape(str(file))}, line 7: "
        assert re.match(f"hemostat: {where}{re.escape(message)}", first)
        assert second == "2 of 4 trials are kept in run; to go on:"
        assert shlex.split(third)[-1] == "--resume"
        assert os.listdir("run") == ["scan.db"]
        plugin("pass")  # mended
        found, _, err = scan(*arguments, "--resume")
        assert (found, err) == (0, "reusing 2 of 4 trials; measuring 2: mine 0.25 0.5")

    def test_a_fault_of_ours_takes_one_line_too(self, scan, monkeypatch):
        def broken(*_, **__):
            raise RuntimeError("it cannot be\nException raised from here:\nframe #0")

        monkeypatch.setattr("hemostat._scan.report_of", broken)
        code, _, err = scan("--methods", "magnitude", "--points", 1)
        assert code == 1
        assert err.splitlines()[0] == "hemostat: RuntimeError: it cannot be (HEMOSTAT_TRACEBACK=1 shows where)"
        monkeypatch.setenv("HEMOSTAT_TRACEBACK", "1")
        assert "in broken" in scan("--methods", "magnitude", "--points", 1, "--resume")[2]

    @pytest.mark.parametrize(
        "line",
        [
            "[weight.mul_(0.9) for _, weight in model.linears()]",
            "model.embedding.data[3] = 0",
            "model.final_norm.weight.numpy()[0] += 1",
            "model.blocks[0].attention.rope.inverse_frequencies.mul_(2)",
            "model.embedding.mul_(2); raise RuntimeError",
        ],
    )
    def test_before_anything_poisoned_is_kept(self, scan, plugin, line):
        file = plugin(line)
        code, _, err = scan("--plugin", file, "--methods", "magnitude,mine,rtn", "--points", 1)
        assert code == 2
        assert re.match(
            rf"hemostat: hemostat.method 'mine' \({re.escape(str(file))}, line 4\) changed .* in place",
            err,
        )
        assert kept() == [("magnitude", 0.5)]
        plugin("pass")
        code, _, err = scan("--plugin", file, "--methods", "magnitude,mine,rtn", "--points", 1, "--resume")
        assert (code, err) == (0, "reusing 1 of 3 trials; measuring 2: mine 0.5, rtn 5")

    def test_a_full_disk_at_report_time(self, scan, monkeypatch):
        def full(self, path):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Report, "to_json", full)
            code, out, err = scan("--methods", "magnitude", "--points", 2)
        assert code == 2
        assert re.search(r"^magnitude +0\.1 ", out, re.M)
        first, second, _ = err.splitlines()
        assert first == "hemostat: run/report.json could not be written: No space left on device"
        assert second == "2 of 2 trials are kept in run; to go on:"
        code, again, err = scan("--methods", "magnitude", "--points", 2, "--resume")
        assert (code, err) == (0, "reusing 2 of 2 trials")
        assert again.startswith(out)
        assert Path("run/report.json").exists()


def started(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "hemostat", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class TestProcesses:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_a_signal_ends_with_what_is_kept(self, tiny_checkpoint, text, plugin, tmp_path, number):
        arguments = ["scan", tiny_checkpoint, "--text", text, "--plugin", plugin("import time; time.sleep(60)")]
        arguments += ["--methods", "magnitude,mine", "--points", 2, "--localize", 0, "--out", tmp_path / "run"]
        # Where the tests run in the background of a shell, it is ignored, and so it would be in what they start.
        process = started(arguments, preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))
        for line in process.stderr:
            if line.startswith("2 of 4: "):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        code = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}[number]
        assert (process.returncode, out) == (code, "")
        first, second, third = err.splitlines()
        assert first == ("hemostat: interrupted" if code == 130 else f"hemostat: ended by {number.name}")
        assert second == f"2 of 4 trials are kept in {tmp_path / 'run'}; to go on:"
        assert third.endswith("--resume")

    def test_one_scan_at_a_time_works_in_a_directory(self, tiny_checkpoint, text, plugin, tmp_path):
        ready, out = tmp_path / "ready", tmp_path / "run"
        file = plugin(
            f"import pathlib, time; [time.sleep(0.05) for _ in iter(pathlib.Path({str(ready)!r}).exists, True)]"
        )
        common = ["--text", text, "--plugin", file, "--localize", 0, "--points", 2, "--out", out]
        first = started(["scan", tiny_checkpoint, *common, "--methods", "mine"])
        for line in first.stderr:
            if line.startswith("baseline"):
                break
        for extra in ([], ["--resume"]):
            second = started(["scan", tiny_checkpoint, *common, "--methods", "magnitude", *extra])
            told, err = second.communicate(timeout=60)
            assert (second.returncode, told) == (2, "")
            assert err.startswith(f"hemostat: --out {out}: another scan is at work in it; wait until it ends, or ")
        ready.touch()
        assert first.communicate(timeout=60)[0]
        assert first.returncode == 0
        assert [trial["method"] for trial in Report.load(out).trials] == ["mine", "mine"]
        third = started(["scan", tiny_checkpoint, *common, "--methods", "magnitude", "--resume"])
        assert "reusing 0 of 2" in third.communicate(timeout=60)[1]

    def test_a_disk_that_is_full_while_trials_are_stored(self, tiny_checkpoint, text, tmp_path):
        import resource

        arguments = ["scan", tiny_checkpoint, "--text", text, "--methods", "magnitude,rtn", "--localize", 0]
        arguments += ["--out", tmp_path / "run"]
        full = started(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000)))
        _, err = full.communicate(timeout=60)
        assert full.returncode == 2
        first, second, _ = without_progress(err).splitlines()
        assert re.match(rf"hemostat: hemostat\.scan: store {tmp_path}/run/scan\.db: ", first)
        count = int(second.split()[0])
        assert count > 0
        resumed = started([*arguments, "--resume"])
        _, err = resumed.communicate(timeout=60)
        assert resumed.returncode == 0
        assert err.startswith(f"reusing {count} of ")

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
    def test_what_a_stream_cannot_show_is_replaced(self, tiny_checkpoint, text, tmp_path, encoding):
        script = f"""
            from hemostat.cli import main
            checkpoint, text = {str(tiny_checkpoint)!r}, {str(text)!r}
            for command in (
                ["scan", checkpoint, "--text", text, "--methods", "magnitude", "--points", "2", "--out", "run"],
                ["report", "run"],
                ["compare", checkpoint, checkpoint, "--text", text, "--windows", "2"],
                ["localize", checkpoint, "--text", text, "--method", "rtn", "--severity", "3", "--windows", "2"],
                ["methods"],
                ["scan", "nowhere-\\u0394", "--text", text],
            ):
                print(command[0], main(command))
        """
        script = "\n".join(line[12:] for line in script.splitlines())
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True)
        out = done.stdout.decode(encoding)
        assert done.returncode == 0, done.stderr
        for command in ("scan 0", "report 0", "compare 0", "localize 0", "methods 0", "scan 2"):
            assert command in out.splitlines(), done.stderr
        assert re.search(r"^perplexity .*\?", out, re.M)
        assert b"Traceback" not in done.stderr

    @pytest.mark.parametrize("arguments", [["methods"], ["--help"], ["scan", "--help"]])
    def test_a_closed_pipe_ends_quietly(self, arguments):
        reader, writer = os.pipe()
        os.close(reader)
        process = subprocess.Popen(
            [sys.executable, "-m", "hemostat", *arguments], stdout=writer, stderr=subprocess.PIPE
        )
        os.close(writer)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0

    def test_a_closed_pipe_does_not_keep_a_scan_from_its_report(self, tiny_checkpoint, text, tmp_path):
        reader, writer = os.pipe()
        os.close(reader)
        arguments = ["scan", tiny_checkpoint, "--text", text, "--methods", "magnitude", "--points", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "hemostat", *map(str, arguments), "--out", "run"],
            cwd=tmp_path,
            stdout=writer,
            stderr=writer,
        )
        os.close(writer)
        assert process.wait(timeout=60) == 0
        assert sorted(os.listdir(tmp_path / "run")) == ["report.html", "report.json", "scan.db"]


class TestUserCode:
    AXIS = hemostat.Axis(name="x", default_grid=[0.3, 0.6])

    def method(self, name, at, needs=()):
        @hemostat.method(name, axis=self.AXIS, needs=needs)
        def function(model, statistics):
            return lambda severity: at(model, statistics) or model

    def test_is_watched_wherever_it_is_called(self, tiny_checkpoint, tiny_tokens):
        self.method("spoils", lambda model, statistics: [model.embedding.mul_(2), None][1])
        for call in (
            lambda model: hemostat.prepare(model, "spoils").at(0.5),
            lambda model: hemostat.sweep(model, "spoils", tiny_tokens),
            lambda model: hemostat.localize(model, "spoils", tiny_tokens, severity=0.5),
            lambda model: hemostat.surface(model, ["magnitude", "spoils"], tiny_tokens, severities=[[0.5], [0.5]]),
        ):
            model = hemostat.Model.load(tiny_checkpoint)
            with pytest.raises(ValueError, match="'spoils'.* changed model.embed_tokens.weight in place"):
                call(model)

    def test_may_not_add_to_statistics(self, tiny_model, tiny_tokens):
        name = tiny_model.linears()[0][0]
        self.method("adds", lambda model, statistics: statistics[name].add(torch.ones(1, 32)), needs=["absmax"])
        statistics = hemostat.collect(tiny_model, tiny_tokens, "adds")
        with pytest.raises(ValueError, match="'adds'.* changed the statistics of .*k_proj and 2 more"):
            hemostat.prepare(tiny_model, "adds", statistics).at(0.5)

    def test_may_not_change_the_tokens(self, tiny_model, tiny_tokens, tmp_path):
        tokens = tiny_tokens.clone()
        self.method("rewrites", lambda model, statistics: [tokens[5].zero_(), None][1])
        with pytest.raises(ValueError, match="beside the trial of rewrites changed evaluation in place"):
            hemostat.scan(
                tiny_model, tokens[4:], tokens[:4], methods="magnitude,rewrites", points=1, store=tmp_path / "s"
            )
        with contextlib.closing(sqlite3.connect(tmp_path / "s")) as connection:
            assert connection.execute("SELECT method FROM trials").fetchall() == [("magnitude",)]
        tokens = tiny_tokens.clone()
        with pytest.raises(ValueError, match="hemostat.sweep: .* changed tokens in place"):
            hemostat.sweep(tiny_model, "rewrites", tokens)

    def test_may_do_all_else(self, tiny_model, tiny_tokens):
        def at(model, statistics):
            changed = {name: weight.clone().mul_(0.5) for name, weight in model.linears()}
            return model.replace(changed)

        self.method("proper", at)
        assert len(hemostat.sweep(tiny_model, "proper", tiny_tokens).damages) == 2
        assert CheckedScan(tiny_model, tiny_tokens, None, methods="proper").trials == [("proper", 0.3), ("proper", 0.6)]
