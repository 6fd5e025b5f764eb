"""Where the command line keeps a scan: a directory of scan.db, report.html and report.json."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hemostat._scan import CheckedScan
from hemostat._store import Settings, Store, differences, digest, snapshot
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

    def check(self) -> None:
        """Before any work.

        Raises:
            ValueError: The path is a file, can't be written to, holds a run that is not to be resumed, or holds a
                report without its trials.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"--out {self.path} is a file, but must be a directory")
        reports = [name for name in REPORTS if (self.path / name).exists()]
        if (self.path / STORE).exists():
            with Store(self.path / STORE) as store:
                if not self.resume and (store.runs() or reports):
                    raise ValueError(
                        f"--out {self.path} already holds a run ({STORE}); --resume goes on with it, or choose another "
                        "directory"
                    )
        elif reports:
            raise ValueError(
                f"--out {self.path} already holds a run ({', '.join(reports)}) without its {STORE}, which cannot be "
                "resumed; choose another directory"
            )
        check_writable(self.path)

    def finished(self, checked: CheckedScan) -> Collection[tuple[str, float]]:
        """Method and severity of the scan's trials that are finished already; changes nothing.

        Raises:
            ValueError: The directory holds a run of other settings.
        """
        if not self.resume or not (self.path / STORE).exists():
            return ()
        with snapshot(self.path / STORE) as copy, Store(copy) as store:
            self._refuse_other(store, checked.settings)
            return checked.in_store(store).trials().keys()

    @contextlib.contextmanager
    def store(self, settings: Settings) -> Iterator[Store]:
        """The directory's store; a directory that was made for it goes where nothing was kept.

        Raises:
            ValueError: The directory holds a run of other settings.
        """
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with Store(self.path / STORE) as store:
                self._refuse_other(store, settings)
                yield store
        finally:
            if made:
                with contextlib.suppress(OSError):  # it is not empty
                    self.path.rmdir()

    def write(self, report: Report) -> list[Path]:
        """Writes the report's files."""
        html, document = (self.path / name for name in REPORTS)
        report.to_html(html)
        report.to_json(document)
        return [html, document]

    def _refuse_other(self, store: Store, settings: Settings) -> None:
        held = store.runs()
        if held and digest(settings) not in map(digest, held):
            nearest = min((differences(other, settings) for other in held), key=len)
            raise ValueError(f"--out {self.path} holds a run of other settings: {'; '.join(nearest)}")


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
