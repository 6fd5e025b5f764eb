"""The command line: ``hemostat scan | compare | localize | apply | methods | report``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
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
from hemostat._plan import plan_text
from hemostat._scan import CheckedScan, split_methods
from hemostat._scan_directory import ScanDirectory, check_writable, resuming_command
from hemostat.report import Report, aligned, interval, number, percent, signed

__all__ = ["app", "main"]

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
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda or cuda:N.")]


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. 0: done; 2: bad input; 1: the arithmetic failed; 130: interrupted. Errors take one line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return app(arguments or ["--help"], prog_name="hemostat", standalone_mode=False, obj=arguments) or 0
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)


def _failed(error: BaseException) -> int:
    """Prints what happened and gives the exit code; what is no user's doing is raised."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _fail("interrupted", 130)
    if isinstance(error, ArithmeticError):
        return _fail(str(error), 1)
    if isinstance(error, ValueError | TypeError | OSError | ImportError):
        return _fail(str(error), 2)
    if hasattr(error, "format_message"):  # what the command line's own parser raises has it
        return _fail(error.format_message(), 2)
    raise error


def _fail(message: str, code: int) -> int:
    print(f"hemostat: {' '.join(message.split()).removeprefix('hemostat: ')}", file=sys.stderr)
    return code


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
            help=f"Methods with their options, separated by commas; repeatable [default: {','.join(DEFAULT_METHODS)}].",
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
    dtype: Dtype = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, and of the noise beside each block.")] = 0,
) -> None:
    """Measure methods × severities on a checkpoint, print a table, and write a report."""
    _load_plugins(plugin)
    specs = split_methods(methods or list(DEFAULT_METHODS))
    for spec in specs:
        _C.MethodSpec.parse(spec)
    directory = ScanDirectory.default(checkpoint, resume) if out is None else ScanDirectory(out, resume)
    again = resuming_command(context.obj, directory.path, named=out is not None)
    kept: int | None = None
    try:
        if not plan:
            directory.check()
        subject = _subject(checkpoint, text, calibration, windows, calibration_windows, length, dtype, device)
        checked = CheckedScan(
            subject.model,
            subject.evaluation,
            subject.calibration,
            methods=specs,
            points=points,
            localize_windows=localize,
            seed=seed,
            evaluation_text=subject.evaluation_text,
            calibration_text=subject.calibration_text,
        )
        if plan:
            print(plan_text(checked, directory.finished(checked), resume))
            return
        with directory.store(checked.settings) as store:
            run = checked.in_store(store, command=shlex.join(["hemostat", *context.obj]))
            try:
                report = checked.run(run)
                files = directory.write(report)
            finally:
                kept = run.count()
    except (Exception, KeyboardInterrupt) as error:
        code = _failed(error)
        if kept or code == 130 and not plan:
            what = "what is finished is" if kept is None else f"{kept} of {checked.trials} trials are"
            print(f"{what} kept in {directory.path}; to go on:\n{again}", file=sys.stderr)
        raise typer.Exit(code) from None
    print(report.table())
    print("\n" + "\n".join(map(str, files)))


@app.command("compare")
def compare_command(
    baseline: Annotated[str, typer.Argument(metavar="BASELINE", help="The unchanged checkpoint.")],
    damaged: Annotated[str, typer.Argument(metavar="DAMAGED", help="The changed checkpoint.")],
    text: Annotated[
        Path, typer.Option(metavar="FILE", help="Text to evaluate on, tokenized by the baseline's tokenizer.")
    ],
    windows: Windows = None,
    length: Length = None,
    dtype: Dtype = None,
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Measure what separates two checkpoints on the same text."""
    _check_text("--text", text)
    first, second = _load(baseline, dtype, device), _load(damaged, dtype, device)
    tokens = hemostat.data.tokens(first, text, length=length, windows=windows)
    damage = hemostat.compare(first, second, tokens)
    if as_json:
        print(json.dumps(damage.to_dict(), indent=1, ensure_ascii=False, allow_nan=False))
        return
    rows = [
        ["perplexity", f"{number(damage.perplexity_baseline)} → {number(damage.perplexity)}"],
        ["ΔNLL, nats per token", f"{signed(damage.delta_nll)} ({interval(damage.delta_nll_interval, signed)})"],
        ["KL(baseline ‖ damaged), mean", number(damage.kl.mean)],
        ["KL, 99th percentile", number(damage.kl.p99)],
        ["top-1 agreement", percent(damage.top1_agreement)],
        ["flips right → wrong", percent(damage.flips_right_to_wrong)],
        ["flips wrong → right", percent(damage.flips_wrong_to_right)],
        ["hemorrhage index", number(damage.index)],
    ]
    print("\n".join(aligned([f"{len(tokens)} windows of {tokens.shape[1]} tokens", ""], rows)))


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
    dtype: Dtype = None,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", help="Of the bootstrap, the noise and the method.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
) -> None:
    """Damage each block of a checkpoint alone, and say where it bleeds."""
    _load_plugins(plugin)
    spec = _C.MethodSpec.parse(method)
    subject = _subject(checkpoint, text, calibration, windows, calibration_windows, length, dtype, device)
    needs = _C.needs_of([spec.method])
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
    print(json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) if as_json else found)


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
    dtype: Dtype = None,
    device: Device = "cpu",
) -> None:
    """Apply one method at one severity and save the checkpoint, or a GGUF file of it."""
    _load_plugins(plugin)
    spec = _C.MethodSpec.parse(method)
    needs = _C.needs_of([spec.method])
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out {out} exists already")
    check_writable(out)
    if text is not None:
        _check_text("--text", text)
    elif needs and not _is_carried(checkpoint):
        raise ValueError(f"--text is missing: {spec.method} needs statistics ({', '.join(sorted(needs))})")

    statistics = None
    if text is None and needs:
        subject = _carried(checkpoint, dtype, device)
        model, tokens = subject.model, subject.calibration[:calibration_windows]
    else:
        model = _load(checkpoint, dtype, device)
        tokens = hemostat.data.tokens(model, text, length=length, windows=calibration_windows) if needs else None
    if needs:
        statistics = hemostat.collect(model, tokens, needs=sorted(needs))
    changed = hemostat.prepare(model, spec.method, statistics, **spec.options).at(severity)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        changed.save(out)
    for note in notes:
        print(note.message, file=sys.stderr)
    print(f"{out}: {spec.text()} at {number(severity)}")


@app.command("methods")
def methods_command(plugin: Plugins = None) -> None:
    """List every method: its axis, what statistics it needs, and its options."""
    _load_plugins(plugin)
    rows = []
    for method in hemostat.methods():
        axis = method.axis
        reach = f"{number(axis.minimum, 3)} … {number(axis.maximum, 3)}, unchanged at {number(axis.neutral, 3)}"
        options = ", ".join(f"{option.name}={_option_text(option.default)}".rstrip("=") for option in method.options)
        rows.append([method.name, method.kind, f"{axis.name}: {reach}", ", ".join(sorted(method.needs)), options])
    print("\n".join(aligned(["method", "kind", "severity", "needs", "options"], rows, left=5)))


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
) -> None:
    """Write the report of a scan anew from its numbers, or compare two scans, and print the table."""
    folder = directory if directory.is_dir() else directory.parent
    report, page = Report.load(directory), out or folder / ("comparison.html" if against else "report.html")
    if against is None:
        text = f"{report.table()}\n\n{report.summary()}"
    else:
        places = (directory, against)
        names = [(path if path.is_dir() else path.parent).resolve().name for path in places]
        report = report.compare(Report.load(against), names if names[0] != names[1] else [str(path) for path in places])
        text = report.table()
    report.to_html(page)
    print(f"{text}\n\n{page}")


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
    dtype: str | None,
    device: str,
) -> _Subject:
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
        model, name = _load(checkpoint, dtype, device), str(text)
        everything = hemostat.data.tokens(model, text, length=length)
        split = 0 if calibration is not None else max(1, len(everything) // 5)
        fitted, rest = everything[:split], everything[split:]
        if not len(rest):
            raise ValueError(f"--text {text} has one window, but without --calibration takes at least 2")
        source = f"the first fifth of {name}"
    if calibration is not None:
        fitted, source = hemostat.data.tokens(model, calibration, length=rest.shape[1]), str(calibration)
    return _Subject(model, fitted[:calibration_windows], rest[:windows], source, name)


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


def _check_text(option: str, path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{option}: there is no file {path}")


def _load_plugins(paths: list[Path] | None) -> None:
    for path in paths or []:
        _check_text("--plugin", path)
        name = f"hemostat_plugin_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None:
            raise ValueError(f"--plugin {path}: must be a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise ValueError(f"--plugin {path}: {type(error).__name__}: {error}") from error


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
