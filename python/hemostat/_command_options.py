"""Arguments and options that commands share, as Typer reads them."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from hemostat._output_forms import Form


class Part(str, enum.Enum):
    """Of a report: see :meth:`hemostat.Report.to_dataframe`."""

    trials = "trials"
    zones = "zones"
    layers = "layers"
    surfaces = "surfaces"


Checkpoint = Annotated[
    str,
    typer.Argument(metavar="CHECKPOINT", help="A Hugging Face directory, a GGUF file, a Hub id, smollm2 or reference."),
]
Out = Annotated[
    Path, typer.Option(metavar="PATH", help="The new checkpoint: a directory, or a GGUF file (it ends in .gguf).")
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
