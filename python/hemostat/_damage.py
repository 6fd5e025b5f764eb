"""Damage between two models, and along a method's axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hemostat import _C
from hemostat._progress import Progress, bar

__all__ = ["compare", "sweep"]


def compare(
    baseline: _C.Model,
    damaged: _C.Model,
    tokens: torch.Tensor,
    *,
    unigram: torch.Tensor | None = None,
    byte_count: int | None = None,
    batch: int = 4,
    memory_budget: float = 2**30,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    progress: Progress = None,
) -> _C.Damage:
    """What a change did to a model, measured on the same tokens by teacher forcing.

    One pass that never holds two full logits tensors of the corpus. Every target inside a window counts once
    (length − 1 a window); logarithms are natural.

    Args:
        baseline: The unchanged model.
        damaged: The changed one, of the same vocabulary and on the same device.
        tokens: int64 [windows, length] on the models' device.
        unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from ``tokens``.
        byte_count: UTF-8 bytes of all targets, for bits per byte; :func:`hemostat.data.byte_count` counts them.
        batch: Windows at a time.
        memory_budget: Bytes for what is kept of the baseline.
        bootstrap_samples: Resamples of windows behind the interval.
        seed: Of the resampling.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of windows.

    Returns:
        Damage: ``.perplexity``, ``.delta_nll`` and its interval, ``.kl``, ``.top1_agreement``, ``.index`` and more.

    Raises:
        ValueError: For vocabularies or devices that differ, tokens out of range, or fewer than two tokens a window.
        TypeError: For tokens that are not int64.

    Example:
        >>> damage = hemostat.compare(model, pruned, evaluation)
        >>> perplexity, divergence = damage.perplexity, damage.kl.mean
    """
    with bar(progress, "compare", "window") as update:
        return _C.compare(
            baseline,
            damaged,
            tokens,
            unigram=unigram,
            byte_count=byte_count,
            batch=batch,
            memory_budget=memory_budget,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            progress=update,
        )


def sweep(
    model: _C.Model,
    method: str,
    tokens: torch.Tensor,
    *,
    statistics: _C.Statistics | None = None,
    severities: Sequence[float] | None = None,
    unigram: torch.Tensor | None = None,
    byte_count: int | None = None,
    batch: int = 4,
    memory_budget: float = 2**30,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    on_trial: Callable[[_C.Trial], None] | None = None,
    progress: Progress = None,
    **options: Any,
) -> _C.SweepCurve:
    """Damage along a method's axis: one preparation, then one evaluation for each severity.

    Measures the noise floor too, the damage that numerics alone do; a severity within it is marked so.

    Args:
        model: The baseline.
        method: A method's name, or a spec with options, ``"rtn:group_size=64"``.
        tokens: int64 [windows, length] on the model's device.
        statistics: What :func:`hemostat.collect` gathered, for methods that need it.
        severities: On the method's axis. None: its default grid.
        unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from ``tokens``.
        byte_count: UTF-8 bytes of all targets, for bits per byte.
        batch: Windows at a time.
        memory_budget: Bytes for what is kept of the baseline.
        bootstrap_samples: Resamples of windows behind each interval.
        seed: Of the resampling, and of the method where it has an option of that name.
        on_trial: Called with each :class:`Trial` finished; what it raises ends the sweep.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of trials.
        **options: The method's own options; see :func:`hemostat.methods`.

    Returns:
        SweepCurve: ``.severities`` from mild to severe, ``.damages``, ``.noise_floor``.

    Raises:
        ValueError: For an unknown method or option, a severity out of range, or statistics that are needed but not
            given; all seen before any work.

    Example:
        >>> curve = hemostat.sweep(model, "wanda", evaluation, statistics=statistics, severities=[0.3, 0.5])
        >>> perplexities = [damage.perplexity for damage in curve.damages]
    """
    spec = _C.MethodSpec(method, **options)
    if seed and any(option.name == "seed" for option in _C.find_method(spec.method).options):
        if "seed" not in spec.options:
            spec = _C.MethodSpec(method, **options, seed=seed)
    if severities is not None:
        severities = [float(severity) for severity in severities]
        total = len(severities)
    else:
        total = len(_C.plan(model, [spec])[0].severities)

    with bar(progress, f"sweep {method}", "trial") as update:
        finished = 0

        def report(trial: _C.Trial) -> None:
            nonlocal finished
            finished += 1
            if on_trial is not None:
                on_trial(trial)
            if update is not None:
                update(finished, total)

        return _C.sweep(
            model,
            spec,
            tokens,
            statistics=statistics,
            severities=severities,
            unigram=unigram,
            byte_count=byte_count,
            batch=batch,
            memory_budget=memory_budget,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            on_trial=report,
        )
