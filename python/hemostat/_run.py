"""The trials of one scan: those that its store has, whichever scan measured them, and those that it adds."""

from __future__ import annotations

import datetime
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hemostat import _C
from hemostat._exact_json import from_text, to_text
from hemostat._identity import Settings, baseline_differences, differences, digest, specs_of, translated
from hemostat._store import KeptRun, Store

__all__ = ["Run", "Session", "TrialName"]

TrialName = tuple[str, float]  # method and severity

UNKNOWN = {
    "command": None,
    "versions": {"hemostat": "unknown", "torch": "unknown", "python": "unknown"},
    "machine": {"system": "unknown", "processor": "unknown", "threads": 0},
}
# What reading a damaged row raises.
DAMAGED = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class Session:
    """One program's work: what it was, and how many of the scan's trials are its own."""

    facts: Mapping[str, Any]
    seconds: float
    trials: int
    finished: str  # its last trial


class Run:
    """One scan's trials in a store.

    A trial serves where all that it depends on is the same (:mod:`hemostat._identity`), so a scan of other methods,
    severities or texts finds what it shares with those before it.

    Args:
        store: Where they are kept.
        settings: All that decides on the numbers.
        facts: What else a report says of the scan.
        session: What a report says of this program's work: ``command``, ``versions``, ``machine``.
        planned: The scan's trials. None: those that the store has.
        former_model: What the model was known by in earlier forms of the store.
        unigram_nll: The unigram model's mean negative log-likelihood, for the index of trials that were measured
            beside other calibration text. None: they do not serve.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        facts: Mapping[str, Any],
        session: Mapping[str, Any],
        *,
        planned: Collection[TrialName] | None = None,
        former_model: str | None = None,
        unigram_nll: Callable[[], float] | None = None,
    ):
        self.store, self.facts = store, dict(facts)
        self.settings: Settings = json.loads(to_text(settings))  # as they come back
        self.digest = digest(self.settings)
        self._planned = planned
        self._session_facts = session
        self._former_model, self._unigram_nll = former_model, unigram_nll
        self._baseline: tuple[_C.Damage, _C.NoiseFloor | None] | None = None
        self._localizations: dict[str, _C.Localization] = {}
        self._session: int | None = None
        self._mended = False
        self._started, self._clock = _now(), time.monotonic()
        self._kept: dict[int, KeptRun] = {}
        self._differences: dict[tuple[int, tuple[str, ...]], list[str]] = {}

    @property
    def baseline(self) -> tuple[_C.Damage, _C.NoiseFloor | None] | None:
        """The unchanged model's damage and the noise floor, where a session has measured them."""
        for identifier, damage, noise_floor in self._rows("SELECT id, baseline, noise_floor FROM runs ORDER BY id"):
            kept = self._run_of(identifier)
            if kept and not baseline_differences(kept.settings, self.settings) and self._indexes(kept):
                try:
                    return self._damage(damage, kept), _floor(noise_floor)
                except DAMAGED:
                    continue  # it is measured anew
        return self._baseline

    def keep_baseline(self, damage: _C.Damage, noise_floor: _C.NoiseFloor | None) -> None:
        """To be stored with the first trial; at once where the store has others, since none need come."""
        self._baseline = damage, noise_floor
        if self._rows("SELECT 1 FROM runs"):
            self.store.write(self._own_run)

    def trial(self, method: str, severity: float) -> _C.Trial | None:
        """The finished trial, this session's or another's."""
        of_each_run = "WHERE run IN (SELECT id FROM runs) AND method = ? AND severity = ?"
        for row in self._trial_rows(of_each_run, method, severity):
            if not self._why_not(row):
                return self._trial(row)
        return None

    def trials(self) -> dict[TrialName, _C.Trial]:
        """Every finished trial of the scan by its method and severity."""
        return {name: self._trial(row) for name, row in self._finished().items()}

    def finished(self) -> Collection[TrialName]:
        """Their names."""
        return self._finished().keys()

    def count(self) -> int:
        """Trials that are finished."""
        return len(self._finished())

    def resumed(self) -> int:
        """Those of them that another session ran."""
        return sum(row.session != self._session for row in self._finished().values())

    def kept(self) -> list[KeptRun]:
        """The runs that the store has, in today's form."""
        self._read_runs()
        return list(self._kept.values())

    def unused(self) -> dict[TrialName, list[str]]:
        """What differs of kept trials that the scan has to measure anew."""
        finished, found = self._finished(), {}
        for row in self._trial_rows():
            name = (row.method, row.severity)
            if (self._planned is None or name in self._planned) and name not in finished:
                why = self._why_not(row)
                found[name] = min(why, found.get(name, why), key=len)  # of the nearest
        return found

    def mend(self) -> list[str]:
        """Takes out trials and localizations of this model and text that are damaged, so that they are measured anew; a
        phrase for each, the first time.
        """
        if self._mended:
            return []
        self._mended = True
        held = self._rows("SELECT id FROM runs WHERE digest = ?", self.digest)
        if held and held[0][0] not in (run.id for run in self.store.runs()):  # the digest says what they were
            text = to_text(self.settings)
            self.store.write(lambda c: c.execute("UPDATE runs SET settings = ? WHERE digest = ?", (text, self.digest)))
        told, trials, localizations = [], [], []
        runs = {run.id for run in self.kept() if not baseline_differences(run.settings, self.settings)}
        for row in self._trial_rows():
            if row.run not in runs:  # another version's, say, which knows it better
                continue
            try:
                if not isinstance(row.method, str) or not isinstance(row.severity, float | int):
                    raise KeyError("it has no method and severity")
                _trial(row, _damage(row.damage))
            except DAMAGED as error:
                trials.append((row.id,))
                told.append(f"the trial of {row.method} at {row.severity} is damaged ({_brief(error)})")
        for run, method, text in self._rows("SELECT run, method, localization FROM localizations"):
            try:
                if run in runs:
                    _C.Localization.from_dict(from_text(text))
            except DAMAGED as error:
                localizations.append((run, method))
                told.append(f"where {method} bleeds is damaged ({_brief(error)})")
        if told:

            def remove(connection: sqlite3.Connection) -> None:
                connection.executemany("DELETE FROM trials WHERE id = ?", trials)
                connection.executemany("DELETE FROM localizations WHERE run = ? AND method IS ?", localizations)

            self.store.write(remove)
        if self._finished() and self.baseline is None:
            told.append("the baseline is damaged")
        return told

    def add(self, trial: _C.Trial) -> None:
        """Stores a finished trial at once. The first of equal ones is kept."""

        def insert(connection: sqlite3.Connection) -> int:
            run = self._own_run(connection)
            session = self._session
            if session is None:
                values = run, self._started, to_text(self._session_facts)
                insertion = "INSERT INTO sessions (run, started, seconds, facts) VALUES (?, ?, 0, ?)"
                session = connection.execute(insertion, values).lastrowid
            connection.execute(
                "INSERT OR IGNORE INTO trials (run, session, method, severity, damage, seconds, seconds_prepare, "
                "finished) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run, session, trial.method, trial.severity, to_text(trial.damage.to_dict(windows=True, finite=False)))
                + (trial.seconds, trial.seconds_prepare, _now()),
            )
            seconds = time.monotonic() - self._clock
            connection.execute("UPDATE sessions SET seconds = ? WHERE id = ?", (seconds, session))
            return session

        self._session = self.store.write(insert)

    def known_localization(self, method: str, severity: float) -> _C.Localization | None:
        """Where a method bleeds at a severity, this session's finding or another's; one without sites: it can't be
        localized.
        """
        query = "SELECT run, localization FROM localizations WHERE method = ? ORDER BY finished"
        for run, text in self._rows(query, method):
            kept = self._run_of(run)
            same = kept and all(
                kept.settings.get(name) == self.settings.get(name) for name in ("calibration", "localize_windows")
            )
            if same and not self._differing(run, (method,)):
                found = _C.Localization.from_dict(from_text(text))
                if found.severity == severity:
                    self._localizations[method] = found
                    return found
        return None

    def localization(self, method: str) -> _C.Localization | None:
        """What this scan found, or found known, of where the method bleeds."""
        return self._localizations.get(method)

    def add_localization(self, localization: _C.Localization) -> None:
        """Stores where a method bleeds at once."""
        text = to_text(localization.to_dict(complete=True))

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO localizations (run, method, localization, finished) VALUES (?, ?, ?, ?)",
                (self._own_run(connection), localization.method, text, _now()),
            )

        self.store.write(insert)
        self._localizations[localization.method] = localization

    def sessions(self) -> list[Session]:
        """Those that ran trials of this scan, the one with the latest trial last."""
        rows: dict[int, list[_Row]] = {}
        for row in self._finished().values():
            rows.setdefault(row.session, []).append(row)
        known = {identifier: rest for identifier, *rest in self._rows("SELECT id, seconds, facts FROM sessions")}
        sessions = []
        for identifier, own in sorted(rows.items()):
            seconds, text = known.get(identifier, (0.0, None))
            try:
                facts = UNKNOWN | from_text(text)
            except DAMAGED:
                facts = UNKNOWN
            sessions.append(Session(facts, seconds, len(own), max(str(row.finished) for row in own)))
        return sorted(sessions, key=lambda session: session.finished)

    def _finished(self) -> dict[TrialName, _Row]:
        rows: dict[TrialName, _Row] = {}
        for row in self._trial_rows():
            name = (row.method, row.severity)
            if (self._planned is None or name in self._planned) and name not in rows and not self._why_not(row):
                rows[name] = row
        return rows

    def _run_of(self, identifier: int) -> KeptRun | None:
        if identifier not in self._kept:
            self._read_runs()
        return self._kept.get(identifier)

    def _read_runs(self) -> None:
        self._kept = {
            run.id: KeptRun(run.id, translated(run.settings, self.settings, self._former_model), run.facts)
            for run in self.store.runs()
        }

    def _why_not(self, row: _Row) -> list[str]:
        """What differs of all that a kept trial depends on."""
        if not isinstance(row.method, str):
            return ["it is damaged"]
        return self._differing(row.run, tuple(specs_of(row.method)))

    def _differing(self, run: int, specs: tuple[str, ...]) -> list[str]:
        if (run, specs) not in self._differences:
            kept = self._run_of(run)
            found = differences(kept.settings, self.settings, specs) if kept else ["what it was measured on is damaged"]
            if not found and not self._indexes(kept):
                found = ["the calibration text is another"]
            self._differences[run, specs] = found
        return self._differences[run, specs]

    def _indexes(self, kept: KeptRun) -> bool:
        """Whether the index of what that run measured is, or can be, this scan's."""
        same = kept.settings.get("calibration") == self.settings.get("calibration")
        return same or self._unigram_nll is not None

    def _trial(self, row: _Row) -> _C.Trial:
        return _trial(row, self._damage(row.damage, self._run_of(row.run)))

    def _damage(self, text: str, kept: KeptRun) -> _C.Damage:
        """As it was measured, but for the index where the unigram counts are of other text."""
        damage = _damage(text)
        if kept.settings.get("calibration") == self.settings.get("calibration"):
            return damage
        unigram_nll = self._unigram_nll()
        reach = unigram_nll - damage.nll_baseline
        index = damage.delta_nll / reach if reach > 0 else None
        fields = damage.to_dict(windows=True, finite=False) | {
            "index": 0.0 if index is not None and index < 0 else index,
            "index_source": "calibration tokens",
            "unigram_nll": unigram_nll,
        }
        return _C.Damage.from_dict(fields)

    def _own_run(self, connection: sqlite3.Connection) -> int:
        """This scan's row; makes it where it is missing, and writes it anew where it is damaged."""
        query = "SELECT id, settings, baseline, noise_floor FROM runs WHERE digest = ?"
        found = connection.execute(query, (self.digest,)).fetchone()
        if found and _readable_run(*found[1:]):
            return found[0]
        self._kept.clear(), self._differences.clear()  # they may be known otherwise then
        damage, noise_floor = self._baseline or self.baseline
        fields = {
            "settings": to_text(self.settings),
            "facts": to_text(self.facts),
            "baseline": to_text(damage.to_dict(windows=True, finite=False)),
            "noise_floor": to_text(_floor_fields(noise_floor)),
        }
        if found:
            changes = ", ".join(f"{name} = ?" for name in fields)
            connection.execute(f"UPDATE runs SET {changes} WHERE id = ?", (*fields.values(), found[0]))
            return found[0]
        insertion = f"INSERT INTO runs (digest, {', '.join(fields)}) VALUES (?, ?, ?, ?, ?)"
        return connection.execute(insertion, (self.digest, *fields.values())).lastrowid

    def _trial_rows(self, condition: str = "", *values: Any) -> list[_Row]:
        query = f"SELECT {', '.join(_Row._fields)} FROM trials {condition} ORDER BY id"
        return list(map(_Row._make, self._rows(query, *values)))

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self.store.read(lambda connection: connection.execute(query, values).fetchall()) or []


class _Row(NamedTuple):
    id: int
    run: int
    session: int
    method: str
    severity: float
    damage: str
    seconds: float
    seconds_prepare: float
    finished: str


def _trial(row: _Row, damage: _C.Damage) -> _C.Trial:
    return _C.Trial(row.method, row.severity, damage, row.seconds, row.seconds_prepare)


def _damage(text: str) -> _C.Damage:
    return _C.Damage.from_dict(from_text(text))


def _readable_run(settings: str, baseline: str, noise_floor: str) -> bool:
    try:
        _damage(baseline), _floor(noise_floor)
        return isinstance(json.loads(settings), dict)
    except DAMAGED:
        return False


def _floor(text: str) -> _C.NoiseFloor | None:
    fields = from_text(text)
    return None if fields is None else _C.NoiseFloor(**fields)


def _floor_fields(floor: _C.NoiseFloor | None) -> dict[str, Any] | None:
    return floor and {name: getattr(floor, name) for name in ("against", "delta_nll", "kl", "top1_agreement")}


def _brief(error: BaseException) -> str:
    if isinstance(error, ValueError | KeyError):
        return str(error).partition("\n")[0]
    return "a field is of another type"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
