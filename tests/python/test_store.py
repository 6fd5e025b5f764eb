"""The scan store: exact damage, resumed and shared runs, and files that are no store."""

import hashlib
import json
import math
import shutil
import sqlite3
import subprocess
import sys
import threading

import kill_and_resume
import pytest
import torch

import hemostat
from hemostat import _C
from hemostat._checked_scan import CheckedScan
from hemostat._identity import differences, digest
from hemostat._run import Run
from hemostat._store import Store, snapshot

pytestmark = pytest.mark.integration

METHODS = ["magnitude", "wanda", "drop_layers"]
SETTINGS = {"seed": 0, "methods": {"magnitude": {}}}


def scan(model, tokens, **options):
    options = {"methods": METHODS, "points": 3} | options
    return hemostat.scan(model, tokens[4:], tokens[:4], **options)


def rows(path, query, *values):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def told(report):
    """What a report says, but for when and how long."""
    document = report.to_dict()
    for name in ("date", "seconds", "resumed", "machine", "methods", "command"):
        del document["provenance"][name]
    return document


PROTOCOL = hemostat.GenerationProtocol(prompts=2, prompt_length=4, new_tokens=4)


class Interruption(Exception):
    pass


def interrupted_after(trials):
    """A progress function that ends a scan when so many trials are done."""

    def progress(stage, done, total):
        if stage == "trials" and done >= trials:
            raise Interruption

    return progress


@pytest.fixture(scope="module")
def whole(tiny_model, tiny_tokens):
    return scan(tiny_model, tiny_tokens)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scan.db"


def damage_with(tiny_model, tiny_tokens, **fields):
    damage = hemostat.compare(tiny_model, hemostat.prepare(tiny_model, "magnitude").at(0.5), tiny_tokens)
    return hemostat.Damage.from_dict(damage.to_dict(windows=True, finite=False) | fields)


class TestExactness:
    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"perplexity": math.inf, "nll": 709.8, "delta_nll": 0.1 + 0.2},
            {
                "nll": math.nan,
                "perplexity": math.nan,
                "delta_nll": -math.inf,
                "delta_nll_interval": [math.nan, math.inf],
            },
            {"index": None, "bits_per_byte": math.nan, "index_source": "calibration tokens"},
            {"window_nll": [math.nan, 5e-324, -0.0, 1.7976931348623157e308, math.inf, 1 / 3] + [2.5] * 4},
        ],
    )
    def test_damage_comes_back_bit_for_bit(self, tiny_model, tiny_tokens, path, fields):
        damage = damage_with(tiny_model, tiny_tokens, **fields)
        floor = hemostat.NoiseFloor("bfloat16", math.nan, math.inf, 0.1)
        with Store(path) as store:
            run = Run(store, SETTINGS, {}, {})
            run.keep_baseline(damage, floor)
            run.add(hemostat.Trial("magnitude", 0.1 + 0.2, damage, 1 / 3, 1e-300))
        with Store(path) as store:
            run = Run(store, SETTINGS, {}, {})
            trial = run.trial("magnitude", 0.30000000000000004)
            baseline, again = run.baseline
            assert run.trial("magnitude", 0.3) is None
        assert (trial.severity, trial.seconds, trial.seconds_prepare) == (0.30000000000000004, 1 / 3, 1e-300)
        for found in (trial.damage, baseline):
            assert repr(found.to_dict(windows=True, finite=False)) == repr(damage.to_dict(windows=True, finite=False))
        assert repr(again) == repr(floor) and math.isnan(again.delta_nll) and again.kl == math.inf

    def test_what_is_stored_is_plain_json(self, tiny_model, tiny_tokens, path):
        def forbidden(constant):
            raise AssertionError(f"{constant} is no JSON")

        damage = damage_with(tiny_model, tiny_tokens, perplexity=math.inf, nll=math.nan)
        with Store(path) as store:
            run = Run(store, SETTINGS, {}, {})
            run.keep_baseline(damage, hemostat.NoiseFloor("bfloat16", 0.0, 0.0, 1.0))
            run.add(hemostat.Trial("magnitude", 0.5, damage))
        ((text,),) = rows(path, "SELECT damage FROM trials")
        fields = json.loads(text, parse_constant=forbidden)
        assert (fields["perplexity"], fields["nll"]) == ("Infinity", "NaN")
        assert [float(value) for value in fields["window_nll"]] == damage.window_nll
        assert rows(path, "SELECT json_extract(damage, '$.kl.mean') FROM trials") == [(damage.kl.mean,)]

    def test_generation_and_localization_come_back(self, tiny_model, tiny_tokens, path):
        options = {
            "methods": ["temperature", "rtn"],
            "points": 2,
            "localize_windows": 2,
            "generation": PROTOCOL,
        }
        expected = scan(tiny_model, tiny_tokens, **options)
        scan(tiny_model, tiny_tokens, store=path, **options)
        again = scan(tiny_model, tiny_tokens, store=path, **options)
        assert "generation" in again.trials[0]["damage"]
        assert [entry["method"] for entry in again.to_dict()["localizations"]] == ["rtn"]
        assert told(again) == told(expected)


class TestStore:
    def test_a_trial_is_kept_at_once(self, tiny_model, tiny_tokens, path):
        kept = []

        def progress(stage, done, total):
            if stage == "trials":
                kept.append((done, len(rows(path, "SELECT 1 FROM trials")) if path.exists() else 0))
            assert path.exists() == (done > 0 and stage == "trials")  # it appears with the first trial

        scan(tiny_model, tiny_tokens, store=path, progress=progress)
        total = len(METHODS) * 3 - 1  # of four layers, at most two are dropped
        assert sorted(set(kept)) == [(count, count) for count in range(total + 1)]
        assert rows(path, "PRAGMA journal_mode") == [("wal",)]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert [file.name for file in path.parent.iterdir()] == ["scan.db"]

    def test_gives_what_a_scan_without_it_gives(self, tiny_model, tiny_tokens, path, whole):
        assert told(scan(tiny_model, tiny_tokens, store=path)) == told(whole)

    def test_a_scan_that_fails_before_its_first_trial_leaves_nothing(self, tiny_model, tiny_tokens, path):
        name, weight = tiny_model.linears()[0]
        poisoned = tiny_model.replace({name: torch.full_like(weight, math.nan)})
        with pytest.raises(hemostat.NumericalError, match="the baseline is not finite on window 1: .*NaN"):
            scan(poisoned, tiny_tokens, store=path)
        assert list(path.parent.iterdir()) == []

    def test_waits_for_another_that_writes(self, tiny_model, tiny_tokens, path):
        scan(tiny_model, tiny_tokens, store=path, methods="magnitude")
        writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        writer.execute("BEGIN IMMEDIATE")
        release = threading.Timer(2, lambda: writer.execute("COMMIT"))  # longer than SQLite is told to wait
        release.start()
        try:
            scan(tiny_model, tiny_tokens, store=path, methods="rtn")
        finally:
            release.join()
            writer.close()
        assert len(rows(path, "SELECT 1 FROM trials")) == 6


class TestResuming:
    @pytest.mark.parametrize("finished", [1, 3, 4, 7])
    def test_gives_what_an_uninterrupted_scan_gives(self, tiny_model, tiny_tokens, path, whole, finished):
        with pytest.raises(Interruption):
            scan(tiny_model, tiny_tokens, store=path, progress=interrupted_after(finished))
        before = rows(path, "SELECT * FROM trials ORDER BY id")
        assert len(before) == finished
        counts = []
        report = scan(tiny_model, tiny_tokens, store=path, progress=lambda stage, done, _: counts.append((stage, done)))
        assert told(report) == told(whole)
        assert rows(path, "SELECT * FROM trials ORDER BY id")[:finished] == before
        assert report.provenance["resumed"] == finished
        assert next(done for stage, done in counts if stage == "trials") == finished
        for mine, theirs in zip(report.curves, whole.curves, strict=True):
            first, second = hemostat.find_threshold(mine), hemostat.find_threshold(theirs)
            assert first.zone_details(0.05).interval == second.zone_details(0.05).interval

    def test_measures_only_what_remains(self, tiny_model, tiny_tokens, path):
        applied = []

        @hemostat.method("counted", axis=hemostat.Axis(name="x", default_grid=[0.2, 0.5, 0.8]), needs=["absmax"])
        def counted(model, statistics):
            def at(severity):
                applied.append(severity)
                return hemostat.prepare(model, "magnitude").at(severity)

            return at

        options = {"store": path, "methods": ["counted", "magnitude"]}
        with pytest.raises(Interruption):
            scan(tiny_model, tiny_tokens, progress=interrupted_after(2), **options)
        assert applied == [0.2, 0.5]
        scan(tiny_model, tiny_tokens, **options)
        assert applied == [0.2, 0.5, 0.8]
        stages = []
        scan(tiny_model, tiny_tokens, progress=lambda stage, *_: stages.append(stage), **options)
        assert applied == [0.2, 0.5, 0.8]
        assert set(stages) == {"trials"}  # no baseline, no noise floor, no statistics

    def test_statistics_only_for_methods_that_remain(self, tiny_model, tiny_tokens, path):
        options = {"store": path, "methods": ["wanda", "magnitude"]}
        with pytest.raises(Interruption):
            scan(tiny_model, tiny_tokens, progress=interrupted_after(4), **options)
        stages = []
        scan(tiny_model, tiny_tokens, progress=lambda stage, *_: stages.append(stage), **options)
        assert set(stages) == {"baseline", "trials"}  # the noise floor is known

    def test_a_localization_that_is_missing_is_made_up_for(self, tiny_model, tiny_tokens, path):
        options = {"methods": ["rtn", "magnitude"], "points": 2, "localize_windows": 2}
        expected = scan(tiny_model, tiny_tokens, **options)

        def progress(stage, done, total):
            if stage == "localize":
                raise Interruption

        with pytest.raises(Interruption):
            scan(tiny_model, tiny_tokens, store=path, progress=progress, **options)
        assert rows(path, "SELECT count(*) FROM localizations") == [(0,)]
        assert told(scan(tiny_model, tiny_tokens, store=path, **options)) == told(expected)
        stages = set()
        scan(tiny_model, tiny_tokens, store=path, progress=lambda stage, *_: stages.add(stage), **options)
        assert stages == {"trials"}

    def test_records_who_measured(self, tiny_model, tiny_tokens, path, monkeypatch):
        with pytest.raises(Interruption):
            scan(tiny_model, tiny_tokens, store=path, progress=interrupted_after(2))
        monkeypatch.setattr("hemostat._checked_scan.machine_facts", lambda model: {"system": "elsewhere"})
        provenance = scan(tiny_model, tiny_tokens, store=path).provenance
        assert provenance["machine"] == {"system": "elsewhere"}
        (other,) = provenance["other_sessions"]
        assert other["trials"] == 2 and other["machine"]["system"] != "elsewhere"
        again = scan(tiny_model, tiny_tokens, store=path).provenance
        assert again["resumed"] == 8
        assert {**again, "resumed": 0} == {**provenance, "resumed": 0}  # reporting is no session


class TestSettings:
    def test_what_all_trials_depend_on_makes_others(self, tiny_model, tiny_tokens, path, whole):
        scan(tiny_model, tiny_tokens, store=path)
        before = rows(path, "SELECT * FROM trials")
        name, weight = tiny_model.linears()[0]
        others = [
            (tiny_model.replace({name: weight * 1.01}), tiny_tokens, {}),
            (tiny_model, tiny_tokens.flip(0), {}),
            (tiny_model, tiny_tokens, {"seed": 1}),
            (tiny_model, tiny_tokens, {"bootstrap_samples": 100}),
            (tiny_model, tiny_tokens, {"methods": ["wanda:m=4"]}),
            (tiny_model, tiny_tokens, {"generation": PROTOCOL}),
            (tiny_model.to(torch.bfloat16), tiny_tokens, {}),
            (hemostat.prepare(tiny_model, "activation").at(8), tiny_tokens, {}),
            (hemostat.prepare(tiny_model, "activation").at(4), tiny_tokens, {}),
        ]
        for model, tokens, options in others:
            report = scan(model, tokens, store=path, **options)
            assert report.provenance["resumed"] == 0, options
        with Store(path) as store:
            assert len(store.runs()) == len({digest(run.settings) for run in store.runs()}) == len(others) + 1
        assert rows(path, "SELECT * FROM trials")[: len(before)] == before
        assert told(scan(tiny_model, tiny_tokens, store=path)) == told(whole)

    def test_what_changes_no_number_is_none_of_them(self, tiny_model, tiny_tokens, path):
        scan(tiny_model, tiny_tokens, store=path)
        for options in ({"batch": 2}, {"memory_budget": 0}, {"methods": METHODS[::-1]}, {"progress": False}):
            assert scan(tiny_model, tiny_tokens, store=path, **options).provenance["resumed"] == 8

    def test_the_source_of_ones_own_method_is_one_of_them(self, tiny_model, tiny_tokens, path):
        def define(factor):
            source = (
                "import hemostat\n"
                "@hemostat.method('own', axis=hemostat.Axis(name='x', default_grid=[0.5]))\n"
                "def own(model, statistics):\n"
                f"    return lambda s: model.replace({{n: w * (1 - s * {factor}) for n, w in model.linears()}})\n"
            )
            namespace = {"__name__": "__main__"}
            exec(compile(source, "typed at a prompt", "exec"), namespace)

        settings = []
        for factor in (0.5, 0.5, 0.9):
            define(factor)
            settings.append(CheckedScan(tiny_model, tiny_tokens, None, methods="own").settings)
        assert settings[0] == settings[1] != settings[2]
        assert differences(settings[0], settings[2], ["own"]) == ["its source changed"]

    def test_differences_name_both_values(self):
        there = {"seed": 0, "methods": {"wanda": {"options": {"m": 0}}, "rtn": {"options": {"group_size": "64"}}}}
        here = {"seed": 1, "methods": there["methods"] | {"rtn": {"options": {"group_size": "128"}}}, "device": "cuda"}
        assert differences(there, there, ["wanda", "rtn"]) == []
        assert differences(there, here, ["wanda"]) == ["the device was none and is cuda", "the seed was 0 and is 1"]
        assert differences(there, here, ["rtn"])[2:] == ["group_size was 64 and is 128"]
        assert differences(there, there, ["svd"]) == ["there is none of svd"]


SHARING = """
import sys
import torch
import hemostat

model = hemostat.Model.load(sys.argv[1])
tokens = torch.randint(0, 256, (10, 32), generator=torch.Generator().manual_seed(1))
report = hemostat.scan(model, tokens[4:], tokens[:4], methods=["magnitude", "wanda", "drop_layers"], points=3,
                       seed=int(sys.argv[3]), store=sys.argv[2])
report.to_json(sys.argv[4])
"""


def test_a_scan_that_is_ended_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seconds, whole = kill_and_resume.undisturbed(tmp_path / "undisturbed")
    moments = [seconds * share for share in (0.7, 0.8)]
    parts = [["--methods", "magnitude,rtn:group_size=64", "--points", "2"], kill_and_resume.EVERYTHING]
    found = kill_and_resume.ended_and_resumed(tmp_path / "ended", moments, whole, kill_and_resume.SIGNALS, parts)
    assert found == sorted(found)
    kill_and_resume.filled_and_resumed(tmp_path / "full", 200_000, whole)


class TestSharing:
    def test_scans_at_the_same_time(self, tiny_checkpoint, whole, path, tmp_path):
        seeds = [0, 0, 0, 1]
        running = [
            subprocess.Popen(
                [sys.executable, "-c", SHARING, tiny_checkpoint, path, str(seed), tmp_path / f"{i}.json"],
                stderr=subprocess.PIPE,
                text=True,
            )
            for i, seed in enumerate(seeds)
        ]
        errors = [process.communicate()[1] for process in running]
        assert [process.returncode for process in running] == [0] * 4, errors
        reports = [hemostat.Report.load(tmp_path / f"{i}.json") for i in range(4)]
        for report in reports[:3]:
            assert report.trials == whole.trials
            assert report.thresholds == whole.thresholds
            assert report.baseline == whole.baseline
        assert reports[3].provenance["settings"] != whole.provenance["settings"]
        assert rows(path, "SELECT count(*) FROM trials GROUP BY run ORDER BY run") == [(8,), (8,)]
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]

    def test_a_trial_that_another_finished_meanwhile_is_taken(self, tiny_model, tiny_tokens, path):
        def other_scan(stage, done, total):
            if stage == "trials" and done == 1:
                scan(tiny_model, tiny_tokens, store=path)

        report = scan(tiny_model, tiny_tokens, store=path, progress=other_scan)
        assert report.provenance["resumed"] == 7
        assert len(rows(path, "SELECT 1 FROM trials")) == 8
        assert rows(path, "SELECT count(*) FROM sessions") == [(2,)]

    def test_the_first_result_is_kept(self, tiny_model, tiny_tokens, path):
        first, second = (damage_with(tiny_model, tiny_tokens, nll=value) for value in (1.0, 2.0))
        with Store(path) as one, Store(path) as other:
            runs = [Run(store, SETTINGS, {}, {}) for store in (one, other)]
            for run, damage in zip(runs, (first, second), strict=True):
                run.keep_baseline(damage, hemostat.NoiseFloor("bfloat16", 0.0, 0.0, 1.0))
                run.add(hemostat.Trial("magnitude", 0.5, damage))
            assert [run.trial("magnitude", 0.5).damage.nll for run in runs] == [1.0, 1.0]
            assert [run.baseline[0].nll for run in runs] == [1.0, 1.0]
            assert [run.resumed() for run in runs] == [0, 1]


class TestOtherFiles:
    def refused(self, model, tokens, path, message, error=ValueError):
        before = path.read_bytes() if path.is_file() else None

        def work(*_):
            raise AssertionError("work began")

        with pytest.raises(error, match=message):
            scan(model, tokens, store=path, progress=work)
        if before is not None:
            assert path.read_bytes() == before

    def test_no_database(self, tiny_model, tiny_tokens, path):
        path.write_text("Dear diary, today I pruned a model, and it did not like that at all.\n" * 20)
        self.refused(tiny_model, tiny_tokens, path, f"{path} is not a scan store: file is not a database")

    def test_another_programs_database(self, tiny_model, tiny_tokens, path):
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.close()
        self.refused(tiny_model, tiny_tokens, path, "is another program's database")
        assert rows(path, "SELECT name FROM sqlite_master") == [("recipes",)]

    def test_another_schema(self, tiny_model, tiny_tokens, path):
        scan(tiny_model, tiny_tokens, store=path)
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 7")
        connection.close()
        self.refused(tiny_model, tiny_tokens, path, "has schema version 7, but this hemostat takes 1")

    def test_a_damaged_store(self, tiny_model, tiny_tokens, path):
        scan(tiny_model, tiny_tokens, store=path)
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a scan store"):
            scan(tiny_model, tiny_tokens, store=path)

    def test_a_directory(self, tiny_model, tiny_tokens, tmp_path):
        self.refused(tiny_model, tiny_tokens, tmp_path, "unable to open", OSError)

    def test_no_such_directory(self, tiny_model, tiny_tokens, tmp_path):
        self.refused(tiny_model, tiny_tokens, tmp_path / "no" / "scan.db", "no directory", FileNotFoundError)

    def test_an_empty_file_is_one_whose_maker_was_killed(self, tiny_model, tiny_tokens, path, whole):
        path.touch()
        assert told(scan(tiny_model, tiny_tokens, store=path)) == told(whole)

    def test_a_database_without_tables_likewise(self, tiny_model, tiny_tokens, path, whole):
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        assert told(scan(tiny_model, tiny_tokens, store=path)) == told(whole)


def test_a_snapshot_leaves_the_store_as_it_is(tiny_model, tiny_tokens, tmp_path):
    """Also where a killed scan left trials in the file beside it."""
    live, killed = tmp_path / "live", tmp_path / "killed"
    live.mkdir(), killed.mkdir()

    def progress(stage, done, total):
        if stage == "trials" and done == 3:
            for file in live.iterdir():
                shutil.copy(file, killed)

    scan(tiny_model, tiny_tokens, store=live / "scan.db", progress=progress)
    assert (killed / "scan.db-wal").stat().st_size > 0

    def state():
        return {f.name: (f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).digest()) for f in killed.iterdir()}

    before = state()
    checked = CheckedScan(tiny_model, tiny_tokens[4:], tiny_tokens[:4], methods=METHODS, points=3)
    with snapshot(killed / "scan.db") as copy, Store(copy) as store:
        assert checked.in_store(store).count() == 3
        assert isinstance(checked.in_store(store).trial("magnitude", 0.1), _C.Trial)
    assert state() == before
