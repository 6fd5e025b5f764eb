"""Where a scan keeps its trials as they finish: one SQLite file, which scans may share, also at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hemostat._identity import Settings, digest

__all__ = ["KeptRun", "Store", "salvage", "snapshot"]

APPLICATION = int.from_bytes(b"hemo", "big")
VERSION = 1  # of the schema

# A trial is kept with the run that measured it, and serves each run that agrees on all that it depends on (_identity).
# Numbers that JSON cannot spell are strings: "NaN", "Infinity", "-Infinity". Times are ISO 8601, UTC.
SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,      -- SHA-256 of the settings
    settings TEXT NOT NULL,           -- JSON: all that decides on the numbers
    facts TEXT NOT NULL,              -- JSON: what else a report says of the run
    baseline TEXT NOT NULL,           -- JSON: the unchanged model's damage
    noise_floor TEXT NOT NULL         -- JSON, null: unknown
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


@dataclass(frozen=True)
class KeptRun:
    """What a store knows of a scan: its row, all that decides on its numbers, and what a report said of it."""

    id: int
    settings: Settings
    facts: Mapping[str, Any]


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

    def runs(self) -> list[KeptRun]:
        """Each run that is held, but for those whose settings are damaged."""
        query = "SELECT id, digest, settings, facts FROM runs ORDER BY id"
        rows = self.read(lambda connection: connection.execute(query).fetchall()) or []
        runs = [(row, name, _object(settings), _object(facts)) for row, name, settings, facts in rows]
        return [
            KeptRun(row, settings, facts or {})
            for row, name, settings, facts in runs
            if settings is not None and digest(settings) == name
        ]

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
                connection.text_factory = lambda text: text.decode(
                    "utf-8", "replace"
                )  # what is damaged is told as such
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


def salvage(path: Path) -> tuple[str, int] | None:
    """Where a store's file is damaged, makes a whole one of the rows that can be read; the damaged one stays beside it
    as ``….damaged``. Nobody else may be at work on it.

    Returns:
        tuple[str, int]: What SQLite says, and how many trials could be read. None: the file is whole, or no store.
    """
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as damaged:
        try:
            ((application,),) = damaged.execute("PRAGMA application_id")
            if application != APPLICATION:
                return None
            ((said,),) = damaged.execute("PRAGMA quick_check(1)")
        except sqlite3.OperationalError:
            return None  # it is locked, or can't be opened: that is told elsewhere
        except sqlite3.DatabaseError as error:
            said = str(error)
        if said == "ok":
            return None
        mended = path.with_name(path.name + ".mended")
        mended.unlink(missing_ok=True)
        with Store(mended) as store:
            store.write(lambda connection: None)
            store.read(lambda connection: connection.execute("PRAGMA foreign_keys = OFF"))  # a session may be lost
            trials = store.write(lambda connection: _copy_readable(damaged, connection, path.stat().st_size))
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{path}.damaged{suffix}")
    os.replace(mended, path)
    return " ".join(said.split()), trials


def _copy_readable(damaged: sqlite3.Connection, whole: sqlite3.Connection, size: int) -> int:
    """Row by row, since a damaged page takes those beside it from whoever reads them together. The count of trials."""
    count = 0
    for table in ("runs", "sessions", "trials", "localizations"):
        for row in range(1, min(size // 16, 100_000)):  # no row is smaller
            try:
                found = damaged.execute(f"SELECT * FROM {table} WHERE rowid = ?", (row,)).fetchone()
                if found:
                    places = ", ".join("?" * len(found))
                    whole.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", found)
                    count += table == "trials"
            except sqlite3.Error:
                continue
    return count


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


def _object(text: Any) -> dict[str, Any] | None:
    """What JSON says, where it is a whole object."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError):
        return None
    return value if isinstance(value, dict) else None
