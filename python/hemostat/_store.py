"""Where a scan keeps its trials as they finish: one SQLite file, which scans may share, also at the same time."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hemostat import _C

__all__ = ["Run", "Store", "differences", "digest"]

APPLICATION = int.from_bytes(b"hemo", "big")
VERSION = 1  # of the schema

# Numbers that JSON cannot spell are strings: "NaN", "Infinity", "-Infinity". Times are ISO 8601, UTC.
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,      -- SHA-256 of the settings
    settings TEXT NOT NULL,           -- JSON: all that decides on the numbers
    facts TEXT NOT NULL,              -- JSON: what else a report says of the run
    baseline TEXT NOT NULL,           -- JSON: the unchanged model's damage
    noise_floor TEXT NOT NULL         -- JSON
);
CREATE TABLE sessions (               -- one program's work on a run
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs,
    started TEXT NOT NULL,
    seconds REAL NOT NULL,            -- until its last trial
    facts TEXT NOT NULL               -- JSON: command, versions, machine
);
CREATE TABLE trials (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs,
    session INTEGER NOT NULL REFERENCES sessions,
    method TEXT NOT NULL,             -- canonical spec, of two in order "first@severity > second"
    severity REAL NOT NULL,
    damage TEXT NOT NULL,             -- JSON, each window's NLL among it
    seconds REAL NOT NULL,
    seconds_prepare REAL NOT NULL,
    finished TEXT NOT NULL,
    UNIQUE (run, method, severity)
);
CREATE TABLE localizations (
    run INTEGER NOT NULL REFERENCES runs,
    method TEXT NOT NULL,
    localization TEXT NOT NULL,       -- JSON
    finished TEXT NOT NULL,
    PRIMARY KEY (run, method)
);
"""

PATIENCE = 300.0  # seconds to wait for another program that holds the file; each holds it for milliseconds

T = TypeVar("T")
Settings = dict[str, Any]


class Store:
    """One file of runs. It appears with the first trial, so a scan that fails before leaves nothing.

    Args:
        path: Where; None: in memory, for as long as the store is open.

    Raises:
        FileNotFoundError: The path's directory does not exist.
        ValueError: The file is no scan store, is damaged, or is of another schema.
        OSError: The file can't be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        self.path = None if path is None else Path(path).absolute()
        self._connection: sqlite3.Connection | None = None
        if self.path is not None and not self.path.parent.is_dir():
            raise FileNotFoundError(f"hemostat.scan: store {path}: there is no directory {self.path.parent}")
        self.read(lambda _: None)  # an existing file is looked at now

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the work on the file; SQLite's own two beside it go where nobody else works on it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, settings: Settings, facts: Mapping[str, Any], session: Mapping[str, Any]) -> Run:
        """The run of these settings; there need be none yet."""
        return Run(self, settings, facts, session)

    def runs(self) -> list[Settings]:
        """The settings of each run that is held."""
        rows = self.read(lambda connection: connection.execute("SELECT settings FROM runs ORDER BY id").fetchall())
        return [_value(text) for (text,) in rows or []]

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What the work gives; None while there is no store yet."""
        return self._patiently(lambda: work(connection) if (connection := self._opened(create=False)) else None)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Does all of the work or nothing; it may be called again where another program was in the way."""

        def transaction() -> T:
            connection = self._opened(create=True)
            with _transaction(connection):
                return work(connection)

        return self._patiently(transaction)

    def _patiently(self, work: Callable[[], T]) -> T:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                # Rare moments of another program's opening, closing or recovery don't wait for SQLite's own timeout.
                if "lock" in str(error) and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise OSError(f"hemostat.scan: store {self.path}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise ValueError(f"hemostat.scan: store {self.path} is not a scan store: {error}") from None

    def _opened(self, create: bool) -> sqlite3.Connection | None:
        if self._connection is None and (create or (self.path is not None and self.path.exists())):
            connection = sqlite3.connect(self.path or ":memory:", timeout=0.5, isolation_level=None)
            try:
                if self._holds_schema(connection) or (create and self._make_schema(connection)):
                    connection.execute("PRAGMA synchronous = FULL")  # a trial outlives a power failure too
                    connection.execute("PRAGMA foreign_keys = ON")
                    self._connection = connection
            finally:
                if self._connection is None:
                    connection.close()
        return self._connection

    def _holds_schema(self, connection: sqlite3.Connection) -> bool:
        """False where the file is empty, as one is whose maker was killed."""
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        if application != APPLICATION:
            if application or version or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise ValueError(f"hemostat.scan: store {self.path} is another program's database")
            return False
        if version != VERSION:
            raise ValueError(
                f"hemostat.scan: store {self.path} has schema version {version}, but this hemostat takes {VERSION}"
            )
        return True

    def _make_schema(self, connection: sqlite3.Connection) -> bool:
        connection.execute("PRAGMA journal_mode = WAL")
        with _transaction(connection):
            if not self._holds_schema(connection):  # another program may have made it meanwhile
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
        return True


@dataclass(frozen=True)
class Session:
    """One program's work on a run: what it was, and how many of the run's trials are its own."""

    facts: Mapping[str, Any]
    seconds: float
    trials: int
    finished: str  # its last trial


class Run:
    """The trials of one scan's settings.

    Args:
        store: Where they are kept.
        settings: All that decides on the numbers; runs of equal settings are one.
        facts: What else a report says of the run. The first session's are kept.
        session: What a report says of this program's work: ``command``, ``versions``, ``machine``.
    """

    def __init__(self, store: Store, settings: Settings, facts: Mapping[str, Any], session: Mapping[str, Any]):
        self.store = store
        self.digest = digest(settings)
        self._settings, self._facts, self._session_facts = settings, facts, session
        self._baseline: tuple[_C.Damage, _C.NoiseFloor] | None = None
        self._session: int | None = None
        self._started, self._clock = _now(), time.monotonic()

    @property
    def baseline(self) -> tuple[_C.Damage, _C.NoiseFloor] | None:
        """The unchanged model's damage and the noise floor, where a session has measured them."""
        row = self._row("SELECT baseline, noise_floor FROM runs WHERE digest = ?")
        return (_damage(row[0]), _C.NoiseFloor(**_value(row[1]))) if row else self._baseline

    @property
    def facts(self) -> dict[str, Any]:
        """What a report says of the run."""
        row = self._row("SELECT facts FROM runs WHERE digest = ?")
        return _value(row[0]) if row else dict(self._facts)

    def keep_baseline(self, damage: _C.Damage, noise_floor: _C.NoiseFloor) -> None:
        """To be stored with the first trial."""
        self._baseline = damage, noise_floor

    def trial(self, method: str, severity: float) -> _C.Trial | None:
        """The finished trial, this session's or another's."""
        row = self._row(f"SELECT {_TRIAL} {_OF_RUN} AND method = ? AND severity = ?", method, severity)
        return _trial(row) if row else None

    def trials(self) -> dict[tuple[str, float], _C.Trial]:
        """Every finished trial by its method and severity."""
        trials = map(_trial, self._rows(f"SELECT {_TRIAL} {_OF_RUN} ORDER BY trials.id"))
        return {(trial.method, trial.severity): trial for trial in trials}

    def count(self) -> int:
        """Trials that are finished."""
        row = self._row(f"SELECT count(*) {_OF_RUN}")
        return row[0] if row else 0

    def resumed(self) -> int:
        """Those of them that another session ran."""
        row = self._row(f"SELECT count(*) {_OF_RUN} AND session IS NOT ?", self._session)
        return row[0] if row else 0

    def add(self, trial: _C.Trial) -> None:
        """Stores a finished trial at once. The first of equal ones is kept."""

        def insert(connection: sqlite3.Connection) -> int:
            run = self._run(connection)
            session = self._session
            if session is None:
                values = run, self._started, _text(self._session_facts)
                insertion = "INSERT INTO sessions (run, started, seconds, facts) VALUES (?, ?, 0, ?)"
                session = connection.execute(insertion, values).lastrowid
            connection.execute(
                "INSERT OR IGNORE INTO trials (run, session, method, severity, damage, seconds, seconds_prepare, "
                "finished) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run, session, trial.method, trial.severity, _text(trial.damage.to_dict(windows=True, finite=False)))
                + (trial.seconds, trial.seconds_prepare, _now()),
            )
            seconds = time.monotonic() - self._clock
            connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", (seconds, session))
            return session

        self._session = self.store.write(insert)

    def localization(self, method: str) -> _C.Localization | None:
        """Where a method bleeds, this session's finding or another's; one without sites: it can't be localized."""
        query = "SELECT localization FROM localizations JOIN runs ON run = runs.id WHERE digest = ? AND method = ?"
        row = self._row(query, method)
        return _C.Localization.from_dict(_value(row[0])) if row else None

    def add_localization(self, localization: _C.Localization) -> None:
        """Stores where a method bleeds at once. The first of equal ones is kept."""
        text = _text(localization.to_dict(complete=True))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO localizations (run, method, localization, finished) VALUES (?, ?, ?, ?)",
                (self._run(connection), localization.method, text, _now()),
            )

        self.store.write(insert)

    def sessions(self) -> list[Session]:
        """Those that ran trials which are kept, the one with the latest trial last."""
        rows = self._rows(
            f"SELECT sessions.facts, sessions.seconds, count(*), max(finished) {_OF_RUN} "
            "GROUP BY sessions.id ORDER BY max(finished), sessions.id"
        )
        return [Session(_value(facts), seconds, trials, finished) for facts, seconds, trials, finished in rows]

    def _run(self, connection: sqlite3.Connection) -> int:
        """This run's row; makes it where it is missing."""
        found = connection.execute("SELECT id FROM runs WHERE digest = ?", (self.digest,)).fetchone()
        if found:
            return found[0]
        damage, noise_floor = self._baseline
        return connection.execute(
            "INSERT INTO runs (digest, settings, facts, baseline, noise_floor) VALUES (?, ?, ?, ?, ?)",
            (self.digest, _text(self._settings), _text(self._facts))
            + (_text(damage.to_dict(windows=True, finite=False)), _text(_floor_fields(noise_floor))),
        ).lastrowid

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self.store.read(lambda c: c.execute(query, (self.digest, *values)).fetchall()) or []

    def _row(self, query: str, *values: Any) -> Any:
        return self.store.read(lambda c: c.execute(query, (self.digest, *values)).fetchone())


_TRIAL = "method, severity, damage, trials.seconds, seconds_prepare"
_OF_RUN = (
    "FROM trials JOIN runs ON trials.run = runs.id JOIN sessions ON trials.session = sessions.id WHERE runs.digest = ?"
)


def digest(settings: Settings) -> str:
    """SHA-256 of the settings, in whatever order they are."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def differences(there: Settings, here: Settings) -> list[str]:
    """A phrase for each setting that differs, with both values."""
    found = []
    for name in dict.fromkeys([*there, *here]):
        first, second = there.get(name), here.get(name)
        if first == second:
            continue
        if name not in ("methods", "joint") or set(first or ()) != set(second or ()):
            verb = "are" if name == "methods" else "is"
            found.append(f"{name.replace('_', ' ')} {verb} {_said(name, first)} there, but {_said(name, second)} here")
            continue
        for method in first:
            for detail in dict.fromkeys([*first[method], *second[method]]):
                values = first[method].get(detail), second[method].get(detail)
                if values[0] != values[1]:
                    said, verb = [_said(detail, value) for value in values], "are" if detail == "severities" else "is"
                    found.append(f"{detail} of {method} {verb} {said[0]} there, but {said[1]} here")
    return found


def _said(name: str, value: Any) -> str:
    if name in ("model", "source") and value:
        return f"SHA-256 {value[:12]}…"
    if isinstance(value, Mapping) and "sha256" in value:
        return f"{value['windows']} windows of {value['length']} tokens, SHA-256 {value['sha256'][:12]}…"
    if isinstance(value, Mapping | list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


@contextlib.contextmanager
def snapshot(path: Path) -> Iterator[Path]:
    """A copy of a store to look into, since even reading one writes beside it.

    Raises:
        OSError: The file could not be read.
    """
    files = [path, path.with_name(path.name + "-wal")]

    def state() -> list[tuple[int, int] | None]:
        stats = [file.stat() if file.exists() else None for file in files]
        return [(stat.st_mtime_ns, stat.st_size) if stat else None for stat in stats]

    with tempfile.TemporaryDirectory(prefix="hemostat-") as scratch:
        while True:
            before = state()
            for file in files:
                copy = Path(scratch) / file.name
                copy.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(file, copy)
            if state() == before:  # else a scan wrote meanwhile, and the two need not belong together
                break
        yield Path(scratch) / path.name


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def _trial(row: tuple[str, float, str, float, float]) -> _C.Trial:
    method, severity, damage, seconds, seconds_prepare = row
    return _C.Trial(method, severity, _damage(damage), seconds, seconds_prepare)


def _damage(text: str) -> _C.Damage:
    return _C.Damage.from_dict(_value(text))


def _floor_fields(floor: _C.NoiseFloor) -> dict[str, Any]:
    return {name: getattr(floor, name) for name in ("against", "delta_nll", "kl", "top1_agreement")}


# A double's shortest decimal form gives back the same double; only these have none in JSON.
_SPELLING = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _text(value: Any) -> str:
    return json.dumps(_spelled(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _spelled(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {name: _spelled(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled(item) for item in value]
    return value


def _value(text: str) -> Any:
    return _numbers(json.loads(text))


def _numbers(value: Any) -> Any:
    if isinstance(value, str):
        return _SPELLING.get(value, value)
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return value
