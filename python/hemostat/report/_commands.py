"""The commands that follow from a report, as they are typed where the scan ran."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hemostat.report._curve import Curve
from hemostat.report._document import Document

# What `hemostat` calibrates on unless told.
CALIBRATION_WINDOWS = 128
# Changes that act on each linear layer, and so take exclude= and may be calibrated block by block.
ON_LINEARS = ("weights", "factors", "activations")


def apply_command(document: Document, curve: Curve, severity: float) -> str:
    """Saves the checkpoint with the change, calibrated as the scan was."""
    words = ["--method", curve.label, "--severity", f"{severity:.10g}"]
    propagated = _is_propagated(document, curve)
    if curve.method.needs or propagated:
        words += _calibration(document)
    if propagated:
        words += _propagation(document)
    return _command(document, "apply", [curve], words, f"{curve.label}-{severity:.6g}")


def localize_command(document: Document, curve: Curve, severity: float) -> str:
    """Measures where the change bleeds; empty where the scan calibrated it block by block, which that does not."""
    if _is_propagated(document, curve):
        return ""
    words = ["--method", curve.label, "--severity", f"{severity:.10g}", *_texts(document)]
    return _command(document, "localize", [curve], words)


def scan_command(document: Document, curves: Sequence[Curve], **options: str) -> str:
    """Measures more, of these methods; options are those of the command line."""
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    if document.provenance.arguments and document.provenance.arguments.windows:
        words += ["--windows", str(document.provenance.arguments.windows)]
    words += _propagation(document) + _texts(document)
    return _command(document, "scan", curves, words, "-".join(options.values()))


def _command(
    document: Document, verb: str, curves: Sequence[Curve], words: Sequence[str], out: str | None = None
) -> str:
    """The command; empty where it could not know a method of one's own."""
    given = document.provenance.arguments
    if any(curve.method.source for curve in curves) and not (given and given.plugin):
        return ""
    checkpoint = given.checkpoint if given else document.provenance.model.source or "CHECKPOINT"
    line = ["hemostat", verb, checkpoint, *words]
    if given:
        line += ["--dtype", given.dtype] if given.dtype else []
        line += ["--length", str(given.length)] if given.length and "--text" in words else []
        line += [word for path in given.plugin for word in ("--plugin", path)]
    if out is not None:
        line += ["--out", re.sub(r"[^\w.]+", "-", f"{Path(checkpoint).name}-{out}").strip("-")]
    return shlex.join(line)


def _texts(document: Document) -> list[str]:
    """What was evaluated and what was calibrated on; nothing where the model brings its own text."""
    given = document.provenance.arguments
    if given is None:
        return ["--text", "TEXT"]
    words = ["--text", given.text] if given.text else []
    return words + (["--calibration", given.calibration] if given.calibration else [])


def _is_propagated(document: Document, curve: Curve) -> bool:
    given, method = document.provenance.propagation, curve.method
    on_linears = method.kind in ON_LINEARS and not method.source
    return given is not None and on_linears and bool(method.needs or given.correct)


def _propagation(document: Document) -> list[str]:
    given = document.provenance.propagation
    if given is None:
        return []
    words = ["--propagate", *(["--correct", f"{given.correct:.10g}"] if given.correct else [])]
    return words + (["--correct-damp", f"{given.correct_damp:.10g}"] if given.correct_damp is not None else [])


def _calibration(document: Document) -> list[str]:
    given, windows = document.provenance.arguments, document.provenance.calibration.windows
    if given is None:
        return ["--text", "CALIBRATION"]
    text = given.calibration or given.text
    words = ["--text", text] if text else []
    return words if windows == CALIBRATION_WINDOWS else [*words, "--calibration-windows", str(windows)]
