"""The command line: ``hemostat scan | compare | localize | apply | methods | report``."""

from __future__ import annotations

import contextlib
import enum
import importlib.metadata
import importlib.util
import json
import os
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import hemostat
from hemostat import _C
from hemostat._damage import damage_frame, damage_rows
from hemostat._failures import (
    PLUGIN,
    ending_signals,
    failed,
    flush,
    is_terminal,
    plugin_error,
    say,
    show,
    show_anything,
)
from hemostat._method_list import split_joint, split_methods
from hemostat._method_page import method_frame, method_list, method_page
from hemostat._methods import checked_correction
from hemostat._output_forms import Form, Tolerances, parse_tolerances, written
from hemostat._plan import plan_text
from hemostat._provenance import file_hash
from hemostat._scan import CheckedScan
from hemostat._scan_directory import ScanDirectory, check_writable, resuming_command
from hemostat._text import printable, shown
from hemostat._whole_file import TEMPORARY
from hemostat.data import described_tokens
from hemostat.report import Report, aligned, number, windows_text
from hemostat.report._document import Arguments

__all__ = ["app", "main"]


class Part(str, enum.Enum):
    """Of a report: see :meth:`hemostat.Report.to_dataframe`."""

    trials = "trials"
    zones = "zones"
    layers = "layers"
    surfaces = "surfaces"


OPENING = 0.05  # nats per token, the tolerance that a report begins with
DEFAULT_METHODS = ("magnitude", "wanda", "rtn", "activation", "drop_layers")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

app = typer.Typer(
    name="hemostat",
    help="How much a language model bleeds when it is pruned, quantized or re-shaped, and how far you can go.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Checkpoint = Annotated[
    str,
    typer.Argument(metavar="CHECKPOINT", help="A Hugging Face directory, a GGUF file, a Hub id, smollm2 or reference."),
]
Text = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Text to evaluate on; smollm2 and reference bring their own.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Text to collect statistics on [default: the first fifth of --text]."),
]
MethodOption = Annotated[
    str, typer.Option(metavar="METHOD", help="A method with its options, such as rtn:group_size=64.")
]
Severity = Annotated[float, typer.Option(metavar="NUMBER", help="How far, on the method's axis.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", metavar="FILE", help="Python file that registers methods; repeatable."),
]
Windows = Annotated[int | None, typer.Option(metavar="N", min=1, help="Evaluate at most so many windows.")]
CalibrationWindows = Annotated[int, typer.Option(metavar="N", min=1, help="Calibrate on at most so many windows.")]
Length = Annotated[
    int | None, typer.Option(metavar="N", min=2, help="Tokens in a window [default: min(context, 512)].")
]
Dtype = Annotated[str | None, typer.Option(metavar="DTYPE", help="float32, bfloat16 or float16 [default: as stored].")]
KeepNewlines = Annotated[
    bool,
    typer.Option("--keep-newlines", help=r"Leave the line ends \r\n and \r of texts; else they are read as \n."),
]
Propagate = Annotated[
    bool,
    typer.Option("--propagate", help="Calibrate block by block, each linear on what reaches it in the changed model."),
]
Correct = Annotated[
    float,
    typer.Option(
        metavar="ALPHA", min=0, max=1, help="With --propagate: how far linears are aimed at the unchanged outputs."
    ),
]
CorrectDamp = Annotated[
    float, typer.Option(metavar="LAMBDA", help="What keeps --correct from fitting the calibration text.")
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.")]
FormOption = Annotated[Form, typer.Option("--format", help="How tables are printed; csv has every number.")]
ToleranceOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NUMBER",
        help="How much damage counts as safe: nats per token of ΔNLL, or kl=0.05, or top1=0.02, the share of changed "
        "predictions; several with commas [default: 0.02,0.05,0.1].",
    ),
]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command, and gives its exit status.

    0: done. 1: the arithmetic failed, or the program itself. 2: bad input, or what the user's system or plugin did not
    do. 130, 129, 143: ended by Ctrl-C, SIGHUP, SIGTERM. Errors take one line; HEMOSTAT_TRACEBACK=1 shows where they
    arose.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    show_anything()
    with ending_signals(), warnings.catch_warnings():
        warnings.simplefilter("always", hemostat.BaselineWarning)
        warnings.showwarning = _warn
        try:
            code = app(arguments or ["--help"], prog_name="hemostat", standalone_mode=False, obj=arguments) or 0
            flush()
            return code
        except BaseException as error:
            return failed(error)


def _warn(message: Warning | str, *_: object) -> None:
    print(f"hemostat: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"hemostat {importlib.metadata.version('hemostat')}, torch {torch.__version__}")
        raise typer.Exit()


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass  # what --version does, its callback does


@app.command("scan")
def scan_command(
    context: typer.Context,
    checkpoint: Checkpoint,
    text: Text = None,
    calibration: Calibration = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST",
            help="Methods with their options and severities, separated by commas, such as rtn:group_size=64@4,3; "
            f"repeatable [default: {','.join(DEFAULT_METHODS)}].",
        ),
    ] = None,
    joint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="A,B",
            help="Two methods to measure together, the second on what the first gave; repeatable. Without --methods "
            "these are the methods.",
        ),
    ] = None,
    plugin: Plugins = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be done, and do nothing.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where scan.db and the report go [default: CHECKPOINT-scan]."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run that --out holds, or begin where it holds none.")
    ] = False,
    windows: Windows = None,
    calibration_windows: CalibrationWindows = 128,
    points: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many severities a method.")] = None,
    localize: Annotated[
        int, typer.Option(metavar="N", min=0, help="Say which blocks bleed, on so many windows; 0: don't.")
    ] = 2,
    length: Length = None,
    keep_newlines: KeepNewlines = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, and of the noise beside each block.")] = 0,
    propagate: Propagate = False,
    correct: Correct = 0.0,
    correct_damp: CorrectDamp = 0.1,
    tolerance: ToleranceOption = None,
    form: FormOption = Form.table,
) -> None:
    """Measure methods × severities on a checkpoint, print a table, and write a report."""
    tolerances = parse_tolerances(tolerance)
    _load_plugins(plugin)
    split_joint(joint or [])
    listed = (methods or list(DEFAULT_METHODS)) if methods or not joint else None
    for entry in split_methods(listed) if listed else ():
        _C.MethodSpec.parse(entry.spec)
    directory = ScanDirectory.default(checkpoint, resume) if out is None else ScanDirectory(out, resume)
    again = resuming_command(context.obj, directory.path, named=out is not None)
    kept, unshown = 0, None
    try:
        with contextlib.nullcontext() if plan else directory.held():
            subject = _subject(
                checkpoint, text, calibration, windows, calibration_windows, length, keep_newlines, dtype, device
            )
            checked = CheckedScan(
                subject.model,
                subject.evaluation,
                subject.calibration,
                methods=listed,
                joint=joint or [],
                points=points,
                localize_windows=localize,
                seed=seed,
                propagate=propagate,
                correct=correct,
                correct_damp=correct_damp,
                evaluation_text=subject.evaluation_text,
                calibration_text=subject.calibration_text,
                text_sha256=file_hash(text) if text else None,
                arguments=Arguments(
                    checkpoint=printable(checkpoint),
                    text=None if text is None else printable(text),
                    calibration=None if calibration is None else printable(calibration),
                    windows=windows,
                    length=length,
                    dtype=dtype,
                    plugin=tuple(map(str, plugin or ())),
                ),
            )
            if plan:
                finished, lines = directory.look(checked)
                print("\n".join([plan_text(checked, finished, resume), *lines]))
                return
            with directory.run(checked, printable(shlex.join(["hemostat", *context.obj]))) as (run, lines):
                say(lines)
                try:
                    report = checked.run(run, progress=None if is_terminal() else "lines")
                    # before files that a full disk stops
                    unshown = show(_report_text(report, "trials", form, tolerances))
                    files = directory.write(report)
                finally:
                    kept = run.count()
    except BaseException as error:
        code = failed(error)
        if not plan and (kept or code > 128):
            what = f"{kept} of {len(checked.trials)} trials are" if kept else "what is finished is"
            say([f"{what} kept in {directory.path}; to go on:", again])
        raise typer.Exit(code) from None
    if unshown or (unshown := show("\n" + "\n".join(map(str, files)))):
        raise unshown


@app.command("compare")
def compare_command(
    baseline: Annotated[str, typer.Argument(metavar="BASELINE", help="The unchanged checkpoint.")],
    damaged: Annotated[str, typer.Argument(metavar="DAMAGED", help="The changed checkpoint.")],
    text: Annotated[
        Path, typer.Option(metavar="FILE", help="Text to evaluate on, tokenized by the baseline's tokenizer.")
    ],
    windows: Windows = None,
    length: Length = None,
    keep_newlines: KeepNewlines = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    form: FormOption = Form.table,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Measure what separates two checkpoints on the same text."""
    _check_text("--text", text)
    first, second = _load(baseline, dtype, device), _load(damaged, dtype, device)
    tokens, source = described_tokens(first, text, length=length, windows=windows, newlines=_newlines(keep_newlines))
    damage = hemostat.compare(first, second, tokens)
    if as_json:
        print(json.dumps(damage.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    if form is not Form.table:
        print(written(damage_frame(damage), form))
        return
    print(f"on {source}")
    print("\n".join(aligned([f"{windows_text(len(tokens))} of {tokens.shape[1]} tokens", ""], damage_rows(damage))))


@app.command("localize")
def localize_command(
    checkpoint: Checkpoint,
    method: MethodOption,
    severity: Severity,
    text: Text = None,
    calibration: Calibration = None,
    linears: Annotated[bool, typer.Option("--linears", help="Each linear alone, instead of each block.")] = False,
    control: Annotated[bool, typer.Option(help="Measure noise of equal norm beside each, too.")] = True,
    plugin: Plugins = None,
    windows: Annotated[int, typer.Option(metavar="N", min=1, help="Evaluate at most so many windows.")] = 8,
    calibration_windows: CalibrationWindows = 128,
    length: Length = None,
    keep_newlines: KeepNewlines = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, the noise and the method.")] = 0,
    form: FormOption = Form.table,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Damage each block of a checkpoint alone, and say where it bleeds."""
    _load_plugins(plugin)
    spec = _C.MethodSpec.parse(method)
    subject = _subject(
        checkpoint, text, calibration, windows, calibration_windows, length, keep_newlines, dtype, device
    )
    _check_severity(subject.model, spec, severity)
    needs = _C.needs_of([spec.text()])
    found = hemostat.localize(
        subject.model,
        spec.text(),
        subject.evaluation,
        severity=severity,
        statistics=hemostat.collect(subject.model, subject.calibration, needs=sorted(needs)) if needs else None,
        linears=linears,
        control=control,
        seed=seed,
    )
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
    elif form is Form.table:
        print(found)
    else:
        print(written(found.to_dataframe(), form))


@app.command("apply")
def apply_command(
    checkpoint: Checkpoint,
    method: MethodOption,
    severity: Severity,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="The new checkpoint: a directory, or a GGUF file (it ends in .gguf).")
    ],
    text: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Calibration text, where the method needs statistics.")
    ] = None,
    plugin: Plugins = None,
    calibration_windows: CalibrationWindows = 128,
    length: Length = None,
    keep_newlines: KeepNewlines = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    propagate: Propagate = False,
    correct: Correct = 0.0,
    correct_damp: CorrectDamp = 0.1,
) -> None:
    """Apply one method at one severity and save the checkpoint, or a GGUF file of it."""
    _load_plugins(plugin)
    spec = _C.MethodSpec.parse(method)
    correct, correct_damp = checked_correction("--correct and --correct-damp", propagate, correct, correct_damp)
    needs = {"propagate"} if propagate else _C.needs_of([spec.text()])
    if propagate and not _C.find_method(spec.method).on_linears:
        raise ValueError(f"--propagate calibrates linears, but {spec.method} changes the model as a whole")
    if os.path.lexists(out) and not _is_free(out):
        raise ValueError(f"--out {out} exists already; choose another place")
    check_writable(out)
    if text is not None:
        _check_text("--text", text)
    elif needs and not _is_carried(checkpoint):
        what = "--propagate calibrates on it" if propagate else f"{spec.method} needs statistics"
        raise ValueError(f"--text is missing: {what}" + ("" if propagate else f" ({', '.join(sorted(needs))})"))

    statistics = None
    if text is None and needs:
        subject = _carried(checkpoint, dtype, device)
        model, tokens = subject.model, subject.calibration[:calibration_windows]
        _check_severity(model, spec, severity)
    else:
        model = _load(checkpoint, dtype, device)
        if found := _C.first_nonfinite(model):
            raise hemostat.NumericalError(f"{checkpoint} is not finite: {found}")
        _check_severity(model, spec, severity)
        if needs:
            tokens, source = described_tokens(
                model, text, length=length, windows=calibration_windows, newlines=_newlines(keep_newlines)
            )
            print(f"calibrating on {len(tokens)} windows of {source}", file=sys.stderr)
    if needs and not propagate:
        statistics = hemostat.collect(model, tokens, needs=sorted(needs))
    calibration = {"calibration": tokens, "correct": correct, "correct_damp": correct_damp} if propagate else {}
    changed = hemostat.prepare(model, spec.text(), statistics, propagate=propagate, **calibration).at(severity)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        changed.save(out)
    for note in notes:
        print(note.message, file=sys.stderr)
    print(f"{out}: {spec.text()} at {number(severity)}")


@app.command("methods")
def methods_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method: its severity and options.")] = None,
    plugin: Plugins = None,
    form: FormOption = Form.table,
) -> None:
    """List every method, or say of one what it does, how far it goes and what it takes."""
    _load_plugins(plugin)
    if form is not Form.table:
        print(written(method_frame([_C.find_method(name)] if name else hemostat.methods()), form))
        return
    print(method_list(hemostat.methods()) if name is None else method_page(_C.find_method(name)))


@app.command("report")
def report_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A scan's directory, or its report.json.")],
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Another scan; the report then is of both, side by side.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page [default: report.html in DIR; with --against, comparison.html]."),
    ] = None,
    tolerance: ToleranceOption = None,
    form: FormOption = Form.table,
    part: Annotated[Part, typer.Option(help="Which table csv and markdown print.")] = Part.trials,
) -> None:
    """Write the report of a scan anew from its numbers, or compare two scans, and print the table."""
    folder = directory if directory.is_dir() else directory.parent
    report, page = Report.load(directory), out or folder / ("comparison.html" if against else "report.html")
    tolerances = parse_tolerances(tolerance)
    if against is None:
        text = _report_text(report, part.value, form, tolerances)
        if form is Form.table:
            text += f"\n\n{report.summary(_telling(tolerances), by=tolerances.by)}"
    else:
        places = (directory, against)
        names = [(path if path.is_dir() else path.parent).resolve().name for path in places]
        report = report.compare(Report.load(against), names if names[0] != names[1] else [str(path) for path in places])
        text = report.table() if form is Form.table else written(report.to_dataframe(), form)
    report.to_html(page)
    print(text)
    print(f"\n{page}", file=sys.stdout if form is Form.table else sys.stderr)


def _report_text(report: Report, part: str, form: Form, tolerances: Tolerances) -> str:
    """A scan's tables for a terminal, or one of them for another program."""
    if form is Form.table:
        return report.table(tolerances.values, by=tolerances.by)
    return written(report.to_dataframe(part), form)


def _telling(tolerances: Tolerances) -> float:
    """The one that sentences are about: 0.05 where it is among them, else the first."""
    return OPENING if OPENING in tolerances.values else tolerances.values[0]


@dataclass(frozen=True)
class _Subject:
    model: hemostat.Model
    calibration: torch.Tensor
    evaluation: torch.Tensor
    calibration_text: str
    evaluation_text: str


def _subject(
    checkpoint: str,
    text: Path | None,
    calibration: Path | None,
    windows: int | None,
    calibration_windows: int,
    length: int | None,
    keep_newlines: bool,
    dtype: str | None,
    device: str,
) -> _Subject:
    if _is_standard_input(text) and _is_standard_input(calibration):
        raise ValueError("--text and --calibration are both standard input, which can be read once")
    for option, path in (("--text", text), ("--calibration", calibration)):
        if path is not None:
            _check_text(option, path)
    if text is None and _is_carried(checkpoint):
        if length is not None:
            raise ValueError(f"--length needs --text: {checkpoint}'s own text comes in windows of 512 tokens")
        subject = _carried(checkpoint, dtype, device)
        model, fitted, rest = subject.model, subject.calibration, subject.evaluation
        source, name = subject.calibration_text, subject.evaluation_text
    elif text is None:
        raise ValueError("--text is missing: the file to evaluate on")
    else:
        model = _load(checkpoint, dtype, device)
        # Where a fifth of the text ends, only the whole of it says.
        limit = windows if calibration is not None else None
        newlines = _newlines(keep_newlines)
        rest, name = described_tokens(model, text, length=length, windows=limit, newlines=newlines)
        if calibration is None:
            split = max(1, len(rest) // 5)
            fitted, rest = rest[:split], rest[split:]
            if not len(rest):
                raise ValueError(f"--text {shown(text)} has one window, but without --calibration takes at least 2")
            source = f"the first fifth of {name}"
    if calibration is not None:
        fitted, source = described_tokens(
            model,
            calibration,
            length=rest.shape[1],
            windows=calibration_windows,
            newlines=_newlines(keep_newlines),
        )
    return _Subject(model, fitted[:calibration_windows].clone(), rest[:windows].clone(), source, name)


# The models that bring their own text: how to get one, and where its checkpoint lies.
CARRIED = {
    "smollm2": (hemostat.data.smollm2, hemostat.data.smollm2_directory),
    "reference": (hemostat.data.reference, hemostat.data.reference_directory),
}


def _is_carried(checkpoint: str) -> bool:
    return checkpoint in CARRIED and not Path(checkpoint).exists()


def _carried(checkpoint: str, dtype: str | None, device: str) -> hemostat.data.Subject:
    return CARRIED[checkpoint][0](dtype=_dtype(dtype) or torch.bfloat16, device=_device(device))


def _load(checkpoint: str, dtype: str | None, device: str) -> hemostat.Model:
    source = CARRIED[checkpoint][1]() if _is_carried(checkpoint) else checkpoint
    return hemostat.Model.load(source, dtype=_dtype(dtype), device=_device(device))


def _dtype(name: str | None) -> torch.dtype | None:
    if name is not None and name not in DTYPES:
        raise ValueError(f"--dtype is {name!r}, but takes {', '.join(DTYPES)}")
    return DTYPES.get(name)


def _device(name: str) -> str:
    try:
        torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device is {name!r}, but takes cpu, cuda or cuda:N") from None
    return name


def _is_free(out: Path) -> bool:
    """Whether a checkpoint may go there: a link to nothing, or a directory that is empty but for what a kill left."""
    try:
        out.stat()
    except FileNotFoundError:
        return True
    if out.name.endswith(".gguf") or not out.is_dir():
        return False
    return all(entry.name.startswith(TEMPORARY) for entry in out.iterdir())


def _newlines(keep: bool) -> str:
    return "keep" if keep else "universal"


def _is_standard_input(path: Path | None) -> bool:
    return path is not None and str(path) == "-"


def _check_severity(model: hemostat.Model, spec: hemostat.MethodSpec, severity: float) -> None:
    """ValueError for one that the method does not take, before anything is collected for it."""
    _C.plan(model, [spec], severities={spec.text(): [severity]})


def _check_text(option: str, path: Path) -> None:
    """A file, or a pipe: what can be read once is not opened here."""
    if path.is_dir():
        raise ValueError(f"{option}: {shown(path)} is a directory, but must be a text file")
    if not _is_standard_input(path) and not path.exists():
        raise FileNotFoundError(f"{option}: there is no file {shown(path)}")


def _load_plugins(paths: list[Path] | None) -> None:
    for path in paths or []:
        if not path.is_file():
            raise FileNotFoundError(f"--plugin: there is no file {shown(path)}")
        name = PLUGIN + path.stem
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None:
            raise ValueError(f"--plugin {path}: must be a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(f"--plugin {plugin_error(error, str(path))}") from error
