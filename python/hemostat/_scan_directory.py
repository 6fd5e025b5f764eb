"""Where the command line keeps a scan: a directory of scan.db, report.html and report.json."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hemostat._checked_scan import CheckedScan
from hemostat._identity import specs_of
from hemostat._number_text import number
from hemostat._provenance import token_facts
from hemostat._run import Run, TrialName
from hemostat._store import KeptRun, Store, salvage, snapshot
from hemostat.report import Report

__all__ = ["ScanDirectory", "check_writable", "resuming_command"]

STORE = "scan.db"
REPORTS = ("report.html", "report.json")


class ScanDirectory:
    """A scan's directory, which need not exist yet.

    Args:
        path: Where.
        resume: Whether a run that it holds is to be gone on with.
    """

    def __init__(self, path: Path, resume: bool):
        self.path, self.resume = path, resume

    @classmethod
    def default(cls, checkpoint: str, resume: bool) -> ScanDirectory:
        """CHECKPOINT-scan in the working directory, or the first CHECKPOINT-scan-N that is free; to resume, the last
        that there is.
        """
        name = f"{Path(checkpoint).resolve().name if Path(checkpoint).exists() else checkpoint.split('/')[-1]}-scan"
        tried, last, count = Path(name), Path(name), 1
        while tried.exists():
            count += 1
            last, tried = tried, Path(f"{name}-{count}")
        return cls(last if resume else tried, resume)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Before any work, and for as long as it goes on: one scan at a time works in a directory. The system lets go
        of it where the program is killed. What was made of the path goes where nothing was kept in it.

        Raises:
            ValueError: The path is a file, can't be written to, or another scan is at work in it; it holds a run that
                is not to be resumed, or a report without its trials.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out {self.path} is a file, but must be a directory")
        check_writable(self.path)
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"--out {self.path}: another scan is at work in it; wait until it ends, or choose another directory"
                ) from None
            except OSError:
                pass  # a file system without locks; the store has its own
            self._check_free()
            yield
        finally:
            with contextlib.suppress(OSError):  # it is not empty
                for path in made:
                    path.rmdir()
            os.close(lock)

    def _check_free(self) -> None:
        reports = [name for name in REPORTS if (self.path / name).exists()]
        if (self.path / STORE).exists():
            with Store(self.path / STORE) as store:
                if not self.resume and (reports or store.read(lambda c: c.execute("SELECT 1 FROM runs").fetchone())):
                    raise ValueError(
                        f"--out {self.path} already holds a run ({STORE}); --resume goes on with it, or choose another "
                        "directory"
                    )
        elif reports:
            raise ValueError(
                f"--out {self.path} already holds a run ({', '.join(reports)}) without its {STORE}, which cannot be "
                "resumed; choose another directory"
            )

    def look(self, checked: CheckedScan) -> tuple[Collection[TrialName], list[str]]:
        """The scan's trials that are finished already, and what is said of the others; changes nothing.

        Raises:
            ValueError: The directory holds a run of another model or text.
        """
        if not self.resume or not (self.path / STORE).exists():
            return (), []
        with snapshot(self.path / STORE) as copy:
            lines = self._salvaged(copy)
            with Store(copy) as store:
                run = self._run(store, checked)
                lines += [self._damaged(phrase) for phrase in run.mend()]
                return run.finished(), lines + resuming_lines(run, checked)

    @contextlib.contextmanager
    def run(self, checked: CheckedScan, command: str) -> Iterator[tuple[Run, list[str]]]:
        """The scan's trials in the directory's store, and what is said of those that it holds.

        Raises:
            ValueError: The directory holds a run of another model or text.
        """
        lines = self._salvaged(self.path / STORE)
        with Store(self.path / STORE) as store:
            run = self._run(store, checked, command)
            lines += [self._damaged(phrase) for phrase in run.mend()]
            yield run, lines + (resuming_lines(run, checked) if self.resume else [])

    def write(self, report: Report) -> list[Path]:
        """Writes the report's files.

        Raises:
            OSError: One could not be written; it is named.
        """
        html, document = (self.path / name for name in REPORTS)
        for path, write in ((html, report.to_html), (document, report.to_json)):
            try:
                write(path)
            except OSError as error:
                raise OSError(f"{path} could not be written: {error.strerror or error}") from error
        return [html, document]

    def _run(self, store: Store, checked: CheckedScan, command: str | None = None) -> Run:
        run = checked.in_store(store, command)
        refused = [why for kept in run.kept() if (why := _another(kept, checked))]
        if refused and len(refused) == len(run.kept()):
            raise ValueError(f"--out {self.path} holds a scan of {refused[-1]}; choose another directory")
        return run

    def _salvaged(self, file: Path) -> list[str]:
        found = salvage(file) if self.resume and file.exists() else None
        if found is None:
            return []
        said, trials = found
        store = self.path / STORE
        return [f"{store} is damaged ({said}): {trials} of its trials could be read; it is kept as {store}.damaged"]

    def _damaged(self, phrase: str) -> str:
        return f"{self.path / STORE}: {phrase}; it is measured again"


def resuming_lines(run: Run, checked: CheckedScan) -> list[str]:
    """What is reused, what is measured, and why what is kept does not serve."""
    finished = run.finished()
    missing: dict[str, list[str]] = {}
    for method, severity in checked.trials:
        if (method, severity) not in finished:
            specs = specs_of(method)
            points = missing.setdefault(", then ".join(specs), [])
            points.append(number(severity, 3) if len(specs) == 1 else "")
    lines = [f"reusing {len(finished)} of {len(checked.trials)} trials"]
    if missing:
        what = [
            f"{label} {' '.join(points)}" if all(points) else f"{len(points)} of {label}"
            for label, points in missing.items()
        ]
        lines[0] += f"; measuring {sum(map(len, missing.values()))}: {', '.join(what)}"
    reasons: dict[tuple[str, ...], dict[str, int]] = {}
    unused = run.unused()
    for name in checked.trials:
        if name in unused:
            counts, label = reasons.setdefault(tuple(unused[name]), {}), ", then ".join(specs_of(name[0]))
            counts[label] = counts.get(label, 0) + 1
    for why, counts in reasons.items():
        count = sum(counts.values())
        trials = f"{count} kept trial{'s' if count > 1 else ''} of {', '.join(counts)}"
        lines.append(f"{trials} {'are' if count > 1 else 'is'} not used: {'; '.join(why)}")
    return lines


def _another(kept: KeptRun, checked: CheckedScan) -> str:
    """What another model or text a kept run is of, and which this one is; empty where both are the same."""
    there, here = kept.settings, checked.settings
    models = [facts.get("model") or {} for facts in (kept.facts, checked.facts)]
    cast = any(there.get(name) != here[name] for name in ("dtype", "device"))  # the same weights in another form
    same = (
        there.get("model") == here["model"] or cast and models[0].get("source") == models[1].get("source") is not None
    )
    if not same:
        named = [f"{model.get('source') or 'a model'} (SHA-256 {model.get('sha256', '')[:12]}…)" for model in models]
        return f"another model: {named[0]} there, but {named[1]} here"
    texts = [facts.get("evaluation") or {} for facts in (kept.facts, checked.facts)]
    names, before = [text.get("text") for text in texts], there.get("evaluation") or {}
    of_file = kept.facts.get("text_sha256")
    first = checked.evaluation[: before.get("windows", 0)]
    if (
        token_facts(first) == before
        or (of_file is not None and of_file == checked.text_sha256)
        or (of_file is None or checked.text_sha256 is None)
        and names[0] == names[1]
    ):
        return ""
    named = [f"{text.get('text') or 'a text'} (SHA-256 {text.get('sha256', '')[:12]}… of its tokens)" for text in texts]
    return f"another text: {named[0]} there, but {named[1]} here"


def check_writable(directory: Path) -> None:
    """Before any work rather than after it."""
    existing = next(parent for parent in [directory, *directory.absolute().parents] if parent.exists())
    try:
        tempfile.TemporaryDirectory(dir=existing, prefix=".hemostat-").cleanup()
    except OSError as error:
        raise ValueError(f"--out {directory}: {existing} cannot be written to ({error.strerror})") from None


def resuming_command(arguments: Sequence[str], directory: Path, named: bool) -> str:
    """What to type to go on.

    Args:
        arguments: What was typed after the program's name.
        directory: Where the scan is kept.
        named: Whether the arguments say so.
    """
    program = Path(sys.argv[0])
    if program.name != "hemostat":
        words = [sys.executable, "-m", "hemostat"]
    else:
        words = ["hemostat" if shutil.which("hemostat") == str(program) else str(program)]
    added = ([] if named else ["--out", str(directory)]) + ([] if "--resume" in arguments else ["--resume"])
    options_end = arguments.index("--") if "--" in arguments else len(arguments)
    return shlex.join([*words, *arguments[:options_end], *added, *arguments[options_end:]])
