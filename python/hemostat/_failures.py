"""How a command ends: its exit code and its last line, whatever ended it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

import typer

__all__ = [
    "PLUGIN",
    "Terminated",
    "ending_signals",
    "failed",
    "flush",
    "is_terminal",
    "plugin_error",
    "say",
    "show",
    "show_anything",
]

PLUGIN = "hemostat_plugin_"  # how the names of plugins' modules begin
TRACEBACK = "HEMOSTAT_TRACEBACK"


class Terminated(BaseException):
    """SIGTERM or SIGHUP."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the work as Ctrl-C does; a second one ends the program at once."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated(number)

    numbers = [signal.SIGTERM, signal.SIGHUP]
    here = threading.current_thread() is threading.main_thread()
    taken = [number for number in numbers if here and signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores one
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def show_anything() -> None:
    """What standard output and standard error cannot encode is replaced, so that nothing computed is lost."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def is_terminal() -> bool:
    """Whether a person reads standard error as it comes."""
    return sys.stderr is not None and sys.stderr.isatty()


def flush() -> None:
    """Standard output, as long as an error of it can be told."""
    if error := show("", end=""):
        raise error


def say(lines: Sequence[str]) -> None:
    """Prints to standard error, where somebody still reads it."""
    with contextlib.suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def show(text: str, end: str = "\n") -> OSError | None:
    """Prints to standard output now. What went wrong, as with a reader that has gone, for the end of the command."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        return type(error)(error.errno, f"standard output: {error.strerror}")
    return None


def failed(error: BaseException) -> int:
    """Prints in a line what ended a command, and gives its exit code.

    130: interrupted; 128 + a signal's number; 1: the arithmetic, or the program itself, failed; 2: all else, which the
    user can mend. A reader of standard output that has gone is no failure.
    """
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if _reader_has_gone(error):
        return 0
    if isinstance(error, Terminated):
        return _fail(f"ended by {signal.Signals(error.number).name}", 128 + error.number)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _fail("interrupted", 130)
    if isinstance(error, MemoryError):
        return _fail(f"{_plugin_line(error)}out of memory", 1)
    where = _plugin_line(error)
    code = 1 if isinstance(error, ArithmeticError) else 2
    if where:
        return _fail(f"{where}{type(error).__name__}: {_message(error)}", code)
    if isinstance(error, ArithmeticError | ValueError | TypeError | OSError | ImportError):
        return _fail(_message(error), code)
    if hasattr(error, "format_message"):  # what the command line's own parser raises has it
        return _fail(error.format_message(), code)
    return _fail(f"{type(error).__name__}: {_message(error)} ({TRACEBACK}=1 shows where)", 1)


def _fail(message: str, code: int) -> int:
    say([f"hemostat: {' '.join(message.split()).removeprefix('hemostat: ')}"])
    return code


def _message(error: BaseException) -> str:
    """Without the C++ backtrace that PyTorch's have."""
    return str(error).partition("\nException raised from")[0].partition("\nC++ CapturedTraceback")[0]


def plugin_error(error: BaseException, file: str) -> str:
    """What went wrong where a plugin was loaded."""
    return f"{_plugin_line(error) or f'{file}: '}{type(error).__name__}: {_message(error)}"


def _plugin_line(error: BaseException) -> str:
    """Where in a plugin it arose, as the beginning of a message; empty where in none."""
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(PLUGIN)
    ]
    return f"{places[-1][0]}, line {places[-1][1]}: " if places else ""


def _reader_has_gone(error: BaseException) -> bool:
    """Whether it is only that nobody reads standard output any more. What is left of it then goes nowhere."""
    if isinstance(error, SystemExit):  # as the command line's own parser turns it
        error = error.__context__
    if not isinstance(error, BrokenPipeError):
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        output = select.poll()
        output.register(sys.stdout, select.POLLOUT)
        if not any(event & select.POLLERR for _, event in output.poll(0)):
            return False  # another pipe
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return True
