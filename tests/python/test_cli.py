"""The command line: what it prints, writes and answers to bad input."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from progress_lines import without_progress

import hemostat

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"


def refused(result, message):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("hemostat")
    assert re.search(message, err), err
    assert os.listdir() == []


class TestScan:
    def test_prints_a_table_and_writes_a_report(self, run, tiny_checkpoint, text):
        code, out, err = run(
            "scan",
            tiny_checkpoint,
            "--text",
            text,
            "--methods",
            "wanda,rtn:group_size=16",
            "--points",
            2,
            "--out",
            "run",
        )
        assert (code, err) == (0, "")
        assert re.search(r"^wanda +0\.1 ", out, re.M)
        assert re.search(r"^rtn:group_size=16 +8 bits", out, re.M)
        assert sorted(os.listdir("run")) == ["report.html", "report.json", "scan.db"]
        report = json.loads(Path("run/report.json").read_text(encoding="utf-8"))
        assert report.keys() == {"provenance", "baseline", "trials", "thresholds", "localizations"}
        assert [trial["severity"] for trial in report["trials"]] == [0.1, 0.9, 8, 2]
        assert report["trials"][2]["options"] == {"group_size": 16}
        assert report["provenance"]["evaluation"]["windows"] == 12
        assert report["provenance"]["evaluation"]["text"] == str(text)
        assert report["provenance"]["calibration"]["windows"] == 2
        assert "first fifth" in report["provenance"]["calibration"]["source"]

    def test_gives_what_python_gives(self, run, tiny_checkpoint, text, tmp_path):
        calibration = tmp_path / "calibration.txt"
        calibration.write_text("Sphinx of black quartz, judge my vow. " * 20)
        arguments = ["--text", text, "--calibration", calibration, "--calibration-windows", 3, "--windows", 5]
        code, *_ = run("scan", tiny_checkpoint, *arguments, "--methods", "wanda", "--out", "run")
        assert code == 0
        model = hemostat.Model.load(tiny_checkpoint)
        expected = hemostat.scan(
            model,
            hemostat.data.tokens(model, text)[:5],
            hemostat.data.tokens(model, calibration)[:3],
            methods="wanda",
        )
        found = hemostat.Report.load("run/report.json")
        assert found.trials == expected.trials
        assert found.thresholds == expected.thresholds

    def test_methods_list_severities(self, run, tiny_checkpoint, text):
        listed = ["--methods", "rtn:group_size=16@4,3,magnitude@0.25", "--localize", 0]
        assert run("scan", tiny_checkpoint, "--text", text, *listed, "--out", "run")[0] == 0
        trials = [(trial["method"], trial["severity"]) for trial in hemostat.Report.load("run/report.json").trials]
        assert trials == [("rtn", 4), ("rtn", 3), ("magnitude", 0.25)]

    def test_methods_is_repeatable(self, run, tiny_checkpoint, text):
        options = ["--methods", "rtn:group_size=16,symmetric=true", "--methods", "magnitude", "--points", 1]
        assert run("scan", tiny_checkpoint, "--text", text, *options, "--out", "run")[0] == 0
        labels = [method["label"] for method in hemostat.Report.load("run/report.json").provenance["methods"]]
        assert labels == ["rtn:group_size=16,symmetric=true", "magnitude"]

    def test_joint_adds_a_grid(self, run, tiny_checkpoint, text):
        options = ["--joint", "wanda,rtn:group_size=16", "--joint", "rtn,magnitude", "--points", 1, "--localize", 0]
        code, out, _ = run("scan", tiny_checkpoint, "--text", text, *options, "--out", "run")
        assert code == 0
        assert "wanda, then rtn:group_size=16: ΔNLL" in out
        report = hemostat.Report.load("run/report.json")
        labels = [method["label"] for method in report.provenance["methods"]]
        assert labels == ["wanda", "rtn:group_size=16", "rtn", "magnitude"]
        assert [entry["severities"] for entry in report.surfaces] == [[[0, 0.5], [16, 5]], [[16, 5], [0, 0.5]]]
        assert run("scan", tiny_checkpoint, "--text", text, *options, "--out", "run", "--resume", "--plan")[0] == 0
        code, again, _ = run("scan", tiny_checkpoint, "--text", text, *options, "--out", "run", "--resume")
        assert (code, again) == (0, out)
        code, again, _ = run("report", "run")
        assert code == 0 and "Two methods together" in again

    def test_joint_takes_two_methods(self, run, tiny_checkpoint, text):
        result = run("scan", tiny_checkpoint, "--text", text, "--joint", "wanda")
        refused(result, "joint has wanda, but takes two methods at a time")

    def test_without_out_takes_a_free_directory(self, run, tiny_checkpoint, text):
        for _ in range(2):
            assert run("scan", tiny_checkpoint, "--text", text, "--methods", "magnitude", "--points", 1)[0] == 0
        assert sorted(os.listdir()) == ["tiny-scan", "tiny-scan-2"]

    def test_plan_does_nothing(self, run, tiny_checkpoint, text):
        code, out, err = run(
            "scan", tiny_checkpoint, "--text", text, "--methods", "wanda,rtn", "--points", 3, "--plan", "--out", "run"
        )
        assert (code, err) == (0, "")
        assert re.search(r"^wanda +3 +0\.1 +0\.5 +0\.9$", out, re.M)
        assert "6 trials, each on 12 windows of 64 tokens" in out
        assert os.listdir() == []

    def test_plan_counts_gradients(self, run, tiny_checkpoint, text):
        scan = ["scan", tiny_checkpoint, "--text", text, "--points", 1, "--plan", "--out", "run", "--methods"]
        code, out, err = run(*scan, "gradient:score=fisher")
        assert (code, err) == (0, "")
        assert re.search(r"^memory: .* of gradient_square, \S+ \S+ while gradients are collected", out, re.M)
        assert re.search(r"^time: .*statistics", out, re.M)
        assert "column_norm" not in out
        assert "gradients are collected" not in run(*scan, "wanda")[1]

    def test_a_method_of_the_users_own(self, run, tiny_checkpoint, text):
        code, out, err = run(
            "scan",
            tiny_checkpoint,
            *("--text", text, "--plugin", EXAMPLES / "plugin.py", "--methods", "short_mantissa,magnitude"),
            *("--points", 6, "--out", "run"),
        )
        assert (code, err) == (0, "")
        trials = [t for t in hemostat.Report.load("run/report.json").trials if t["method"] == "short_mantissa"]
        assert [trial["severity"] for trial in trials] == [8, 6, 4, 3, 2, 1]
        kls = [trial["damage"]["kl"]["mean"] for trial in trials]
        assert kls == sorted(kls)
        assert kls[-1] > 100 * kls[0] > 0

    def test_a_directory_that_holds_a_run_is_refused_and_kept(self, run, tiny_checkpoint, text):
        Path("run").mkdir()
        Path("run/report.json").write_text("{}")
        code, out, err = run("scan", tiny_checkpoint, "--text", text, "--methods", "magnitude", "--out", "run")
        assert (code, out) == (2, "")
        assert "--out run already holds a run (report.json)" in err
        assert Path("run/report.json").read_text() == "{}"
        assert os.listdir("run") == ["report.json"]

    def test_a_directory_with_other_files_is_used(self, run, tiny_checkpoint, text):
        Path("run").mkdir()
        Path("run/notes.txt").write_text("mine")
        arguments = ["--text", text, "--methods", "magnitude", "--points", 1, "--out", "run"]
        assert run("scan", tiny_checkpoint, *arguments)[0] == 0
        assert sorted(os.listdir("run")) == ["notes.txt", "report.html", "report.json", "scan.db"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--methods", "wandaa"], "wandaa"),
            (["--methods", "rtn:group_size=x"], "group_size"),
            (["--methods", "rtn:grp=3"], "grp"),
            (["--methods", "group_size=3"], "before any method"),
            (["--methods", "rtn@four"], "after the @ it takes numbers"),
            (["--methods", "0.5,wanda"], "without a method"),
            (["--methods", "rtn@17"], "17"),
            (["--methods", ","], "methods is empty"),
            (["--calibration", "missing.txt"], "--calibration: there is no file missing.txt"),
            (["--plugin", "missing.py"], "--plugin: there is no file missing.py"),
            (["--dtype", "int8"], "--dtype is 'int8', but takes float32, bfloat16, float16"),
            (["--windows", "0"], "--windows"),
            (["--points", "many"], "--points"),
            (["--length", "65"], "length is 65"),
            (["--device", "tpu"], "--device is 'tpu'"),
            (["--nonsense"], "--nonsense"),
            (["--out", "/proc/nothing/run"], "--out /proc/nothing/run"),
            (["extra"], "extra"),
        ],
    )
    def test_a_bad_option_is_named(self, run, tiny_checkpoint, text, options, message):
        refused(run("scan", tiny_checkpoint, "--text", text, "--out", "run", *options), message)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "bad.txt is empty"),
            (b"\xff", "bad.txt is not UTF-8"),
            (b"short", "bad.txt has 5 tokens"),
            (None, "bad.txt"),
        ],
    )
    def test_a_bad_text_is_named(self, run, tiny_checkpoint, tmp_path, content, message):
        bad = tmp_path / "bad.txt"
        if content is not None:
            bad.write_bytes(content)
        refused(run("scan", tiny_checkpoint, "--text", bad, "--methods", "magnitude", "--out", "run"), message)

    def test_one_window_needs_a_calibration_text(self, run, tiny_checkpoint, tmp_path):
        short = tmp_path / "short.txt"
        short.write_text("x" * 70)
        refused(run("scan", tiny_checkpoint, "--text", short, "--methods", "magnitude"), "short.txt has one window")

    def test_a_bad_checkpoint_is_named(self, run, text, tmp_path):
        (tmp_path / "empty").mkdir()
        refused(run("scan", tmp_path / "empty", "--text", text, "--methods", "magnitude"), "empty.*config.json")

    def test_text_is_asked_for(self, run, tiny_checkpoint):
        refused(run("scan", tiny_checkpoint, "--methods", "magnitude"), "--text is missing")

    @pytest.mark.parametrize(
        ("program", "message"),
        [
            ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
            ("def broken(:", "SyntaxError"),
            ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ],
    )
    def test_a_broken_plugin_is_named(self, run, tiny_checkpoint, text, tmp_path, program, message):
        plugin = tmp_path / "broken.py"
        plugin.write_text(program)
        refused(run("scan", tiny_checkpoint, "--text", text, "--plugin", plugin), f"broken.py(, line 1)?: {message}")

    def test_what_was_finished_before_a_failure_is_kept(self, run, tiny_checkpoint, text, tmp_path):
        plugin = tmp_path / "failing.py"
        plugin.write_text(
            "import hemostat\n"
            "@hemostat.method('failing', axis=hemostat.Axis(name='x', default_grid=[0.5]))\n"
            "def failing(model, statistics):\n"
            "    def at(severity):\n"
            "        raise ValueError('no such luck')\n"
            "    return at\n"
        )
        arguments = ["--text", text, "--plugin", plugin, "--points", 3, "--out", "run"]
        code, out, err = run("scan", tiny_checkpoint, *arguments, "--methods", "magnitude,failing")
        assert (code, out) == (2, "")
        first, second, third = err.splitlines()
        assert first == f"hemostat: {plugin}, line 5: ValueError: no such luck"
        assert second == "3 of 4 trials are kept in run; to go on:"
        assert shlex.split(third)[-1] == "--resume"
        assert os.listdir("run") == ["scan.db"]

    def test_a_method_that_fails_at_once_leaves_nothing(self, run, tiny_checkpoint, text, tmp_path):
        plugin = tmp_path / "failing.py"
        plugin.write_text(
            "import hemostat\n"
            "@hemostat.method('hopeless', axis=hemostat.Axis(name='x', default_grid=[0.5]))\n"
            "def hopeless(model, statistics):\n"
            "    raise ValueError('no such luck')\n"
        )
        arguments = ["--text", text, "--plugin", plugin, "--methods", "hopeless", "--out", "run"]
        refused(run("scan", tiny_checkpoint, *arguments), "no such luck")

    def test_nan_in_the_weights_ends_it_with_the_tensors_name(self, run, tiny_model, text, tmp_path):
        name, weight = tiny_model.linears()[0]
        weight = weight.clone()
        weight[0, 0] = torch.nan
        tiny_model.replace({name: weight}).save(tmp_path / "poisoned")
        arguments = ["--text", text, "--methods", "wanda", "--out", "run"]
        code, out, err = run("scan", tmp_path / "poisoned", *arguments)
        assert (code, out) == (1, "")
        assert f"{name}.weight has 1 NaN entry" in err
        assert os.listdir() == []


class TestCompare:
    def test_prints_what_separates_two_checkpoints(self, run, tiny_checkpoint, tiny_model, text, tmp_path):
        damaged = hemostat.prepare(tiny_model, "magnitude").at(0.5)
        damaged.save(tmp_path / "damaged")
        code, out, err = run("compare", tiny_checkpoint, tmp_path / "damaged", "--text", text, "--json")
        assert code == 0 and "no better than counting its tokens" in err  # random weights
        model = hemostat.Model.load(tiny_checkpoint)
        expected = hemostat.compare(model, hemostat.Model.load(tmp_path / "damaged"), hemostat.data.tokens(model, text))
        assert json.loads(out) == expected.to_dict()
        code, out, err = run("compare", tiny_checkpoint, tmp_path / "damaged", "--text", text)
        assert code == 0
        assert re.search(r"^perplexity .* → ", out, re.M)
        assert re.search("^14 windows of 64 tokens$", out, re.M)
        number = r"[-+]?\d[\d.]*(?: %)?"
        for name in ("ΔNLL", "KL.*mean", "acceptance", "top-1 agreement", "direction"):
            assert re.search(rf"^{name}.* {number} \({number} … {number}\)", out, re.M), name
        assert re.search(rf"^volume.* {100 * expected.volume:.1f} %$", out, re.M)

    def test_one_window_has_no_interval(self, run, tiny_checkpoint, tiny_model, text, tmp_path):
        hemostat.prepare(tiny_model, "magnitude").at(0.5).save(tmp_path / "damaged")
        code, out, err = run("compare", tiny_checkpoint, tmp_path / "damaged", "--text", text, "--windows", "1")
        assert code == 0 and "no better than counting its tokens" in err
        assert re.search("^one window of 64 tokens$", out, re.M)
        assert "…" not in out and "()" not in out

    def test_a_checkpoint_against_itself(self, run, tiny_checkpoint, text):
        out = json.loads(run("compare", tiny_checkpoint, tiny_checkpoint, "--text", text, "--json")[1])
        assert out["delta_nll"] == 0
        assert out["kl"]["max"] == 0
        assert out["top1_agreement"] == 1

    def test_bad_input_is_named(self, run, tiny_checkpoint, text, tmp_path):
        refused(run("compare", tiny_checkpoint, tmp_path / "nowhere", "--text", text), "nowhere")
        refused(run("compare", tiny_checkpoint, "--text", text), "DAMAGED")
        refused(run("compare", tiny_checkpoint, tiny_checkpoint), "--text")


class TestApply:
    def test_saves_a_checkpoint_that_loads(self, run, tiny_checkpoint, tiny_model, text):
        code, out, err = run(
            "apply", tiny_checkpoint, "--method", "wanda", "--severity", 0.5, "--text", text, "--out", "half"
        )
        assert (code, err) == (0, f"calibrating on 14 windows of {text}")
        assert "wanda at 0.5" in out
        saved = hemostat.Model.load("half")
        for name, weight in saved.linears():
            assert (weight == 0).float().mean().item() == pytest.approx(0.5, abs=0.02), name
        assert (saved.embedding == hemostat.Model.load(tiny_checkpoint).embedding).all()
        assert hemostat.data.tokens(saved, text).shape == (14, 64)

    def test_needs_no_text_without_statistics(self, run, tiny_checkpoint):
        assert run("apply", tiny_checkpoint, "--method", "rtn:group_size=16", "--severity", 4, "--out", "four")[0] == 0
        expected = hemostat.prepare(hemostat.Model.load(tiny_checkpoint), "rtn", group_size=16).at(4)
        for (name, found), (_, wanted) in zip(hemostat.Model.load("four").linears(), expected.linears(), strict=True):
            assert torch.equal(found, wanted), name

    def test_saves_and_loads_a_gguf_file(self, run, tiny_checkpoint, text):
        options = ["--method", "rtn:group_size=16", "--severity", 4]
        assert run("apply", tiny_checkpoint, *options, "--out", "four.gguf")[0] == 0
        assert run("apply", "four.gguf", *options, "--out", "four")[0] == 0
        from_file, from_directory = hemostat.Model.load("four.gguf"), hemostat.Model.load("four")
        expected = hemostat.prepare(hemostat.Model.load(tiny_checkpoint), "rtn", group_size=16).at(4)
        for (name, found), (_, wanted) in zip(from_file.linears(), expected.linears(), strict=True):
            assert torch.equal(found, wanted), name
        assert torch.equal(hemostat.data.tokens(from_directory, text), hemostat.data.tokens(from_file, text))

    def test_says_what_transformers_cannot_read(self, run, tiny_checkpoint):
        code, out, err = run("apply", tiny_checkpoint, "--method", "activation", "--severity", 4, "--out", "four")
        assert code == 0
        assert "hemostat.json" in err
        assert Path("four/hemostat.json").exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--method", "wanda", "--severity", "0.5"], "--text is missing: wanda needs"),
            (["--method", "magnitude", "--severity", "1.5"], "1.5"),
            (["--method", "magnitude", "--severity", "half"], "--severity"),
            (["--method", "nothing", "--severity", "0.5"], "nothing"),
            (["--severity", "0.5"], "--method"),
        ],
    )
    def test_bad_input_is_named(self, run, tiny_checkpoint, options, message):
        refused(run("apply", tiny_checkpoint, *options, "--out", "changed"), message)

    def test_an_existing_directory_is_kept(self, run, tiny_checkpoint):
        Path("mine").mkdir()
        Path("mine/notes.txt").write_text("mine")
        code, out, err = run("apply", tiny_checkpoint, "--method", "magnitude", "--severity", 0.5, "--out", "mine")
        assert (code, out) == (2, "")
        assert "--out mine exists already" in err
        assert os.listdir("mine") == ["notes.txt"]


class TestMethods:
    def test_lists_every_method_in_one_line_each(self, run):
        code, out, _ = run("methods")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == [method.name for method in hemostat.methods()]
        assert max(map(len, out.splitlines())) <= 80
        for method in hemostat.methods():
            if method.kind != "user":
                assert f" {method.description}\n" in out, f"{method.name}'s description is cut"

    def test_shows_the_page_of_each(self, run):
        for method in hemostat.methods():
            code, out, _ = run("methods", method.name)
            assert code == 0 and out.startswith(f"{method.name}: {method.description}\n")
            assert max(map(len, out.splitlines())) <= 80
            for option in method.options:
                assert re.search(rf"^  {option.name}=", out, re.M), option.name
            for need in method.needs:
                assert need in out

    def test_a_page_says_how_far_it_goes(self, run):
        out = run("methods", "rtn")[1]
        assert re.search(r"^Takes +2 … 8, continuous; unchanged at 16; damage grows as it falls$", out, re.M)
        assert "group_size=row" in out and "--methods rtn@" in out

    def test_an_unknown_one(self, run):
        refused(run("methods", "wandaa"), "wandaa")


class TestProgram:
    def test_the_installed_command(self, tiny_checkpoint, text, tmp_path):
        program = [sys.executable, "-m", "hemostat"]
        arguments = ["scan", str(tiny_checkpoint), "--text", str(text), "--methods", "magnitude", "--points", "1"]
        done = subprocess.run([*program, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, without_progress(done.stderr)) == (0, "")
        assert (tmp_path / "tiny-scan" / "report.html").exists()
        failed = subprocess.run(
            [*program, "scan", str(tmp_path / "nowhere"), "--text", str(text)], capture_output=True, text=True
        )
        assert failed.returncode == 2
        assert len(failed.stderr.splitlines()) == 1

    def test_help_and_version(self, run):
        for arguments in ([], ["--help"]):
            code, out, _ = run(*arguments)
            assert code == 0
            assert all(command in out for command in ("scan", "compare", "apply", "methods"))
        assert run("--version")[1].startswith("hemostat ")
