"""The command line: ``hemostat scan | compare | localize | apply | treat | methods | report``."""

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
from pathlib import Path
from typing import Annotated

import torch
import typer

import hemostat
from hemostat import _C
from hemostat._checked_scan import CheckedScan
from hemostat._columns import aligned
from hemostat._command_options import (
    Calibration,
    CalibrationWindows,
    Checkpoint,
    Correct,
    CorrectDamp,
    Device,
    Dtype,
    FormOption,
    KeepNewlines,
    Length,
    MethodOption,
    Out,
    Part,
    Plugins,
    Propagate,
    Severity,
    Text,
    ToleranceOption,
    Windows,
)
from hemostat._command_subject import carried, check_text, command_subject, is_carried, load, newlines_as
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
from hemostat._file_names import printable, shown
from hemostat._method_list import split_joint, split_methods
from hemostat._method_page import method_frame, method_list, method_page
from hemostat._methods import checked_correction
from hemostat._number_text import number, windows_text
from hemostat._output_forms import Form, Tolerances, parse_tolerances, written
from hemostat._plan import plan_text
from hemostat._provenance import file_hash
from hemostat._scan import run_scan
from hemostat._scan_directory import ScanDirectory, check_writable, resuming_command
from hemostat._whole_file import TEMPORARY
from hemostat.data import described_tokens
from hemostat.report import Report
from hemostat.report._document import Arguments

__all__ = ["app", "main"]

OPENING = 0.05  # nats per token, the tolerance that a report begins with
DEFAULT_METHODS = ("magnitude", "wanda", "rtn", "activation", "drop_layers")

app = typer.Typer(
    name="hemostat",
    help="How much a language model bleeds when it is pruned, quantized or re-shaped, and how far you can go.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
            subject = command_subject(
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
                    report = run_scan(checked, run, progress=None if is_terminal() else "lines")
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
    check_text("--text", text)
    first, second = load(baseline, dtype, device), load(damaged, dtype, device)
    tokens, source = described_tokens(first, text, length=length, windows=windows, newlines=newlines_as(keep_newlines))
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
    predicted: Annotated[
        bool, typer.Option("--predicted", help="Predict it from gradients of the text, instead of measuring.")
    ] = False,
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
    subject = command_subject(
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
        predicted=predicted,
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
    out: Out,
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
    _check_out(out)
    if text is not None:
        check_text("--text", text)
    elif needs and not is_carried(checkpoint):
        what = "--propagate calibrates on it" if propagate else f"{spec.method} needs statistics"
        raise ValueError(f"--text is missing: {what}" + ("" if propagate else f" ({', '.join(sorted(needs))})"))

    statistics = None
    if text is None and needs:
        subject = carried(checkpoint, dtype, device)
        model, tokens = subject.model, subject.calibration[:calibration_windows]
        _check_severity(model, spec, severity)
    else:
        model = load(checkpoint, dtype, device)
        if found := _C.first_nonfinite(model):
            raise hemostat.NumericalError(f"{checkpoint} is not finite: {found}")
        _check_severity(model, spec, severity)
        if needs:
            tokens, source = described_tokens(
                model, text, length=length, windows=calibration_windows, newlines=newlines_as(keep_newlines)
            )
            print(f"calibrating on {len(tokens)} windows of {source}", file=sys.stderr)
    if needs and not propagate:
        statistics = hemostat.collect(model, tokens, needs=sorted(needs))
    calibration = {"calibration": tokens, "correct": correct, "correct_damp": correct_damp} if propagate else {}
    changed = hemostat.prepare(model, spec.text(), statistics, propagate=propagate, **calibration).at(severity)
    _save(changed, out)
    print(f"{out}: {spec.text()} at {number(severity)}")


class TreatmentName(str, enum.Enum):
    gradient_aware_pruning = "gradient_aware_pruning"


@app.command("treat")
def treat_command(
    checkpoint: Checkpoint,
    treatment: Annotated[TreatmentName, typer.Option(help="What the model is changed and treated by.")],
    out: Out,
    sparsity: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="Fraction of the linears' weights that falls, 0 to 1.")
    ] = None,
    pattern: Annotated[str | None, typer.Option(metavar="N:M", help="Or: n of every m weights of a row stay.")] = None,
    text: Text = None,
    calibration: Calibration = None,
    allocation: Annotated[bool, typer.Option(help="Each linear has a sparsity of its own.")] = True,
    propagate: Annotated[bool, typer.Option(help="Block by block, towards the unchanged outputs.")] = True,
    gram: Annotated[str, typer.Option(metavar="WORD", help="plain, or guided: tokens count by gradients.")] = "plain",
    refine: Annotated[bool, typer.Option(help="Train what is kept towards the unchanged distribution.")] = False,
    untreated: Annotated[
        str, typer.Option(metavar="METHOD", help="What the treatment is compared with, at the same severity.")
    ] = "wanda",
    windows: Windows = None,
    calibration_windows: CalibrationWindows = 128,
    length: Length = None,
    keep_newlines: KeepNewlines = False,
    dtype: Dtype = None,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Change a checkpoint and stop the bleeding: save the treated one, and say how much of the damage it spared.

    Without --text the result is saved and not judged; smollm2 and reference bring their own text.
    """
    if (sparsity is None) == (pattern is None):
        raise ValueError("give --sparsity or --pattern" + ("" if sparsity is None else ", not both"))
    _check_out(out)
    if text is None and calibration is not None and not is_carried(checkpoint):
        check_text("--calibration", calibration)
        model, evaluation = load(checkpoint, dtype, device), None
        fitted, source = described_tokens(
            model, calibration, length=length, windows=calibration_windows, newlines=newlines_as(keep_newlines)
        )
    else:
        subject = command_subject(
            checkpoint, text, calibration, windows, calibration_windows, length, keep_newlines, dtype, device
        )
        model, fitted, evaluation, source = (
            subject.model,
            subject.calibration,
            subject.evaluation,
            subject.calibration_text,
        )
    if found := _C.first_nonfinite(model):
        raise hemostat.NumericalError(f"{checkpoint} is not finite: {found}")
    print(f"calibrating on {len(fitted)} windows of {source}", file=sys.stderr)
    done = hemostat.mitigate.gradient_aware_pruning(
        model,
        fitted,
        sparsity=sparsity,
        pattern=pattern,
        evaluation=evaluation,
        allocation=allocation,
        propagate=propagate,
        gram=gram,
        refine=refine,
        untreated=untreated,
    )
    _save(done.model, out)
    if as_json:
        print(json.dumps(done.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    print(f"{out}: {treatment.value} at {pattern or number(sparsity)}")
    print(done)


def _check_out(out: Path) -> None:
    if os.path.lexists(out) and not _is_free(out):
        raise ValueError(f"--out {out} exists already; choose another place")
    check_writable(out)


def _save(model: hemostat.Model, out: Path) -> None:
    """Saves it, and tells what the form of the place cannot hold."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        model.save(out)
    for note in notes:
        print(note.message, file=sys.stderr)


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


def _is_free(out: Path) -> bool:
    """Whether a checkpoint may go there: a link to nothing, or a directory that is empty but for what a kill left."""
    try:
        out.stat()
    except FileNotFoundError:
        return True
    if out.name.endswith(".gguf") or not out.is_dir():
        return False
    return all(entry.name.startswith(TEMPORARY) for entry in out.iterdir())


def _check_severity(model: hemostat.Model, spec: hemostat.MethodSpec, severity: float) -> None:
    """ValueError for one that the method does not take, before anything is collected for it."""
    _C.plan(model, [spec], severities={spec.text(): [severity]})


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
