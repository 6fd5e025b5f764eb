"""How scans end, by themselves or not: with what is kept, and one line about it."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from own_method import MINE
from progress_lines import without_progress
from scan_store import kept

from hemostat.report import Report

pytestmark = pytest.mark.integration


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin whose function of severity does something first."""
    file = tmp_path / "mine.py"

    def write(line):
        file.write_text(MINE.format(line=line), encoding="utf-8")
        return file

    return write


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
