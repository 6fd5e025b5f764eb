"""SmolLM2-135M-Instruct for benchmarks: its text on the command line, and the model with its tokens."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import hemostat


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("evaluation", type=Path, help="wikitext2-test")
    parser.add_argument("calibration", type=Path, help="wikitext2-valid")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--calibration-windows", type=int, default=64)
    parser.add_argument("--json", type=Path, help="keeps each row; rows that it has are not measured again")


def subject(arguments: argparse.Namespace) -> tuple[hemostat.Model, torch.Tensor, torch.Tensor]:
    """The model in float32, the windows that are evaluated and those for calibration, without BOS."""
    model = hemostat.data.smollm2(dtype=torch.float32).model
    evaluation = hemostat.data.tokens(model, arguments.evaluation, bos=False)[: arguments.windows]
    calibration = hemostat.data.tokens(model, arguments.calibration, bos=False)[: arguments.calibration_windows]
    return model, evaluation, calibration
