"""Ends scans at random moments, changes what they are to measure, resumes them, lets their disks run full, and checks
that nothing was lost and nothing done twice.

    python tests/python/kill_and_resume.py --times 50

Each story is a new directory in which scans of the reference model begin, of random methods and severities, are ended
by SIGKILL or SIGTERM, and are resumed, until one that nobody disturbs measures everything. Its table has to be that of
a scan that began in an empty directory, and no trial that was finished may be measured again. A disk that runs full, of
a file system where the rights allow to make one and else by a limit on file sizes, has to end a scan with what it kept.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SCAN = ["scan", "reference", "--windows", "8", "--calibration-windows", "8", "--localize", "1"]
METHODS = ["magnitude", "wanda", "rtn:group_size=64", "drop_layers", "temperature"]
JOINT = ["--joint", "wanda,rtn:group_size=64"]
EVERYTHING = ["--methods", ",".join(METHODS), *JOINT, "--points", "3"]
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
DISKS = (150_000, 400_000, 1_500_000)  # bytes: full at an early trial, at a later one, and at the report


def scanning(
    log: Path, out: Path, resume: bool, what: Sequence[str] = EVERYTHING, limit: int | None = None
) -> subprocess.Popen:
    """A scan; `limit`: bytes of the largest file that it may write."""
    words = [*SCAN, *what, "--out", str(out), *(["--resume"] if resume else [])]
    return subprocess.Popen(
        [sys.executable, __file__, "--child", str(log), str(limit or 0), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def child(log: str, limit: str, words: list[str]) -> int:
    """The command line, telling the log of each trial that was measured before the store hears of it."""
    from hemostat._run import Run
    from hemostat.cli import main

    add = Run.add

    def telling(run, trial):
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{trial.method} {trial.severity!r}\n")
        add(run, trial)

    Run.add = telling
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
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
    assert process.returncode == 0, error
    return time.monotonic() - started, told(directory / "run")


def some(chance: random.Random) -> list[str]:
    """A part of everything that a scan may be asked for."""
    methods = chance.sample(METHODS, chance.randint(1, len(METHODS)))
    joint = JOINT if chance.random() < 0.4 else []
    return ["--methods", ",".join(methods), *joint, "--points", str(chance.choice([2, 3]))]


def resumed_to_its_end(log: Path, out: Path, whole: dict, kept: set[str]) -> None:
    """All that is kept is reused, and the table is that of a scan that nobody disturbed."""
    before = measured(log)
    process = scanning(log, out, resume=True)
    error = process.communicate()[1]
    assert process.returncode == 0, error
    again = kept & set(measured(log)[len(before) :])
    assert not again, f"measured again: {sorted(again)}"
    now = finished(out / "scan.db")
    assert now >= kept, f"lost: {sorted(kept - now)}"
    assert told(out) == whole, f"another table in {out}"
    assert len(now) == trials_of(whole)


def ended_and_resumed(
    directory: Path,
    moments: Sequence[float],
    whole: dict,
    signals: Sequence[int] = (signal.SIGKILL,),
    parts: Sequence[Sequence[str]] = (EVERYTHING,),
) -> list[int]:
    """Ends scans so many seconds after each beginning. Returns how many trials each end found finished."""
    directory.mkdir()
    out, log, found = directory / "run", directory / "log", []
    kept: set[str] = set()
    for attempt, moment in enumerate(moments):
        number, before = signals[attempt % len(signals)], measured(log)
        process = scanning(log, out, resume=True, what=parts[attempt % len(parts)])
        try:
            _, error = process.communicate(timeout=moment)
            assert process.returncode == 0, error
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            _, error = process.communicate()
            # 0: the signal came when it had done all; without a handler: before the program took signals.
            assert process.returncode in (0, -number, 128 + number), (process.returncode, error)
            if process.returncode == 128 + number:
                assert error.rstrip().endswith("--resume"), error
        again = kept & set(measured(log)[len(before) :])
        assert not again, f"measured again: {sorted(again)}"
        now = finished(out / "scan.db")
        assert now >= kept, f"lost: {sorted(kept - now)}"
        kept = now
        found.append(len(kept))
    resumed_to_its_end(log, out, whole, kept)
    return found


@contextlib.contextmanager
def disk(directory: Path, size: int) -> Iterator[Callable[[], None] | None]:
    """A file system of so many bytes there; what makes it larger. None: the rights don't allow it."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=100m", str(directory)], check=True)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def filled_and_resumed(directory: Path, size: int, whole: dict) -> str:
    """A scan on a disk that runs full. Returns what ended it."""
    place = directory / "disk"
    place.mkdir(parents=True)
    out, log = place / "run", directory / "log"
    with disk(place, size) as enlarge:
        process = scanning(log, out, resume=False, limit=None if enlarge else size)
        table, error = process.communicate()
        assert process.returncode == 2, (process.returncode, error)
        kept = finished(out / "scan.db")
        *_, end, count, again = error.splitlines() if kept else (*error.splitlines(), "", "")
        assert str(out) in end, error
        if kept:
            assert count == f"{len(kept)} of {trials_of(whole)} trials are kept in {out}; to go on:", error
            assert again.endswith("--resume"), error
        if len(kept) == trials_of(whole):
            assert re.search(r"^magnitude +0\.1 ", table, re.M), "the table was not printed"
        if enlarge:
            enlarge()
        resumed_to_its_end(log, out, whole, kept)
    return f"{len(kept)} trials kept, then {end.removeprefix('hemostat: ')}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(",")[0])
    parser.add_argument("--times", type=int, default=50, help="how many scans are ended [default: 50]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ends: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="kill-and-resume-") as directory:
        seconds, whole = undisturbed(Path(directory) / "undisturbed")
        print(f"a scan of {trials_of(whole)} trials takes {seconds:.1f} s undisturbed", flush=True)
        story = 0
        while ends.total() < options.times:
            count = min(chance.randint(1, 3), options.times - ends.total())
            moments = [chance.uniform(0, seconds) for _ in range(count)]
            signals = [chance.choice(SIGNALS) for _ in range(count)]
            parts = [some(chance) for _ in range(count)]
            found = ended_and_resumed(Path(directory) / str(story), moments, whole, signals, parts)
            ends.update(number.name for number in signals)
            how = ", ".join(f"{number.name} at {at:.2f} s" for number, at in zip(signals, moments, strict=True))
            print(f"{story + 1:3}: {how}; finished: {found}", flush=True)
            story += 1
        for size in DISKS:
            end = filled_and_resumed(Path(directory) / f"disk-{size}", size, whole)
            print(f"a disk of {size} bytes: {end}", flush=True)
    kinds = ", ".join(f"{count} by {name}" for name, count in sorted(ends.items()))
    print(f"{ends.total()} scans ended ({kinds}) in {story} directories, and {len(DISKS)} full disks:")
    print("nothing lost, the same table each time, no finished trial measured again")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], sys.argv[3], sys.argv[4:]))
    main()
