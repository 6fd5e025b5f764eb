"""Kills scans at random moments, resumes them, and checks that nothing was lost and nothing done twice.

    python tests/python/kill_and_resume.py --times 50

Each time a new scan of the reference model is killed with SIGKILL, resumed, perhaps killed once more, and resumed to
its end. Its table has to be that of a scan that nobody killed, and no trial that was finished may be measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCAN = ["scan", "reference", "--windows", "8", "--calibration-windows", "8", "--points", "3", "--localize", "1"]
METHODS = ["--methods", "magnitude,wanda,rtn:group_size=64,drop_layers,temperature"]
METHODS += ["--joint", "wanda,rtn:group_size=64"]


def scanning(log: Path, out: Path, resume: bool) -> subprocess.Popen:
    words = [*SCAN, *METHODS, "--out", str(out), *(["--resume"] if resume else [])]
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(log), *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def child(log: str, words: list[str]) -> int:
    """The command line, telling the log of each trial that was measured before the store hears of it."""
    from hemostat._store import Run
    from hemostat.cli import main

    add = Run.add

    def telling(run, trial):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{trial.method} {trial.severity!r}\n")
        add(run, trial)

    Run.add = telling
    return main(words)


def finished(store: Path) -> set[str]:
    """The trials that a store holds, read as another program may: without writing to it."""
    if not store.exists():
        return set()
    connection = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
    try:
        return {
            f"{method} {severity!r}" for method, severity in connection.execute("SELECT method, severity FROM trials")
        }
    except sqlite3.OperationalError:  # killed before its tables were there
        return set()
    finally:
        connection.close()


def measured(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def told(out: Path) -> dict:
    """A report's numbers: all of it but when, where and by which command it was measured."""
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {name: document[name] for name in ("baseline", "trials", "thresholds", "localizations", "surfaces")}


def trials_of(whole: dict) -> int:
    """Those of each method, and the points of pairs where both do something."""
    rows = [row[1:] for surface in whole["surfaces"] for row in surface["damage"][1:]]
    return len(whole["trials"]) + sum(map(len, rows))


def undisturbed(directory: Path) -> tuple[float, dict]:
    """How long a scan takes, and what it tells."""
    directory.mkdir()
    started = time.monotonic()
    process = scanning(directory / "log", directory / "run", resume=False)
    error = process.communicate()[1]
    assert process.returncode == 0, error.decode()
    return time.monotonic() - started, told(directory / "run")


def killed_and_resumed(directory: Path, moments: list[float], whole: dict) -> list[int]:
    """Kills a scan so many seconds after each beginning. Returns how many trials each kill found finished."""
    directory.mkdir()
    out, log, found = directory / "run", directory / "log", []
    kept: set[str] = set()
    for attempt, moment in enumerate([*moments, None]):
        before = measured(log)
        process = scanning(log, out, resume=attempt > 0)
        try:
            error = process.communicate(timeout=moment)[1]
            assert process.returncode == 0, error.decode()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        again = kept & set(measured(log)[len(before) :])
        assert not again, f"measured again: {sorted(again)}"
        now = finished(out / "scan.db")
        assert now >= kept, f"lost: {sorted(kept - now)}"
        kept = now
        found.append(len(kept))
        if process.returncode == 0:
            break
    assert told(out) == whole, f"another table in {out}"
    assert len(kept) == trials_of(whole)
    return found[:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="how many scans are killed [default: 50]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as directory:
        seconds, whole = undisturbed(Path(directory) / "undisturbed")
        print(f"a scan of {trials_of(whole)} trials takes {seconds:.1f} s undisturbed", flush=True)
        for attempt in range(options.times):
            at = [moments.uniform(0, seconds) for _ in range(1 + attempt % 2)]
            found = killed_and_resumed(Path(directory) / str(attempt), at, whole)
            print(f"{attempt + 1:3}: {', '.join(f'{moment:.2f} s' for moment in at)}; finished: {found}", flush=True)
    print(f"{options.times} scans killed and resumed: the same table each time, no finished trial measured again")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], sys.argv[3:]))
    main()
