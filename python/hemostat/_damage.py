"""Damage between two models, and along a method's axis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hemostat import _C
from hemostat._baseline import warn_of_baseline, warn_of_unknown_floor
from hemostat._columns import flat
from hemostat._immutable import check
from hemostat._methods import checked_correction, collect, filter_of, lent_to
from hemostat._number_text import bytes_text, interval, number, percent, signed, size_text
from hemostat._progress import Progress, bar

if TYPE_CHECKING:
    import pandas

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
    generation: bool | _C.GenerationProtocol = False,
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
        bootstrap_samples: Resamples of windows behind the intervals; one window has none.
        seed: Of the resampling, and of the text that is sampled.
        generation: True: also let both models continue the same prompts, each with its own decoder and with the same
            random numbers. A :class:`GenerationProtocol` says which prompts and how far, and can give both another
            decoder: ``hemostat.GenerationProtocol(decoder=hemostat.Decoder(do_sample=False))`` compares greedy text.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of windows.

    Returns:
        Damage: ``.perplexity``, ``.delta_nll`` and its interval, ``.kl``, ``.acceptance``, ``.volume``, ``.direction``,
        ``.index`` and more; ``.generation`` where that was asked for.

    Raises:
        ValueError: For vocabularies or devices that differ, tokens out of range, or fewer than two tokens a window.
        TypeError: For tokens that are not int64.
        NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.

    Warns:
        BaselineWarning: Where the baseline is no better than the unigram model.

    Example:
        >>> damage = hemostat.compare(model, pruned, evaluation)
        >>> perplexity, divergence = damage.perplexity, damage.kl.mean
    """
    with bar(progress, "compare", "window") as update:
        damage = _C.compare(
            baseline,
            damaged,
            tokens,
            unigram=unigram,
            byte_count=byte_count,
            batch=batch,
            memory_budget=memory_budget,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            generation=generation,
            progress=update,
        )
    warn_of_baseline(damage)
    return damage


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
    generation: bool | _C.GenerationProtocol = False,
    on_trial: Callable[[_C.Trial], None] | None = None,
    progress: Progress = None,
    calibration: torch.Tensor | None = None,
    propagate: bool = False,
    correct: float = 0.0,
    correct_damp: float = 0.1,
    **options: Any,
) -> _C.SweepCurve:
    """Damage along a method's axis: one preparation, then one evaluation for each severity.

    Measures the noise floor too, the damage that numerics alone do; a severity within it is marked so. A method whose
    axis is measured by generation (``temperature``) is measured so too: see :attr:`Damage.generation`.

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
        seed: Of the resampling, of the text that is sampled, and of the method where it has an option of that name.
        generation: True: measure every method by generation. A :class:`GenerationProtocol`: and in this way.
        on_trial: Called with each :class:`Trial` finished; what it raises ends the sweep.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of trials.
        calibration: int64 [windows, length], from which to collect what ``statistics`` are not given for.
        propagate: Calibrate each severity block by block over ``calibration``, as :func:`hemostat.prepare` does.
        correct: With ``propagate``; see there.
        correct_damp: With ``correct``.
        **options: The method's own options; see :func:`hemostat.methods`.

    Returns:
        SweepCurve: ``.severities`` from mild to severe, ``.damages``, ``.noise_floor``.

    Raises:
        ValueError: For an unknown method or option, a severity out of range, or statistics that are needed but not
            given; all seen before any work.
        NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.

    Warns:
        BaselineWarning: Where the baseline is no better than the unigram model, or the noise floor is unknown.

    Example:
        >>> curve = hemostat.sweep(model, "wanda", evaluation, statistics=statistics, severities=[0.3, 0.5])
        >>> perplexities = [damage.perplexity for damage in curve.damages]
    """
    spec = seeded_spec(method, seed, options)
    correct, correct_damp = checked_correction("hemostat.sweep", propagate, correct, correct_damp)
    if propagate and calibration is None:
        raise ValueError("hemostat.sweep: propagate takes calibration tokens")
    if propagate and not _C.find_method(spec.method).on_linears:
        raise ValueError(f"hemostat.sweep: propagate calibrates linears, but {spec.method} changes the whole model")
    if severities is None:
        total = len(_C.plan(model, [spec])[0].severities)
    else:
        severities = numbers("hemostat.sweep", severities)
        total = len(severities)
        _C.plan(model, [spec], severities={spec.text(): severities})  # before any work
    if calibration is not None and statistics is None and not propagate and (needs := _C.needs_of([spec.text()])):
        statistics = collect(
            model, calibration, sorted(needs), memory_budget=memory_budget, progress=False, **filter_of(spec)
        )

    with bar(progress, f"sweep {method}", "trial") as update:
        finished, lent = 0, lent_to([spec.text()], model, tokens=tokens)

        def report(trial: _C.Trial) -> None:
            nonlocal finished
            if lent:
                check(f"hemostat.sweep: what ran beside the trial of {trial.method}", lent)
            finished += 1
            if on_trial is not None:
                on_trial(trial)
            if update is not None:
                update(finished, total)

        curve = _C.sweep(
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
            generation=generation,
            on_trial=report,
            calibration=calibration if propagate else None,
            correct=correct,
            correct_damp=correct_damp,
        )
    warn_of_baseline(curve.damages[0])
    warn_of_unknown_floor(model, curve.noise_floor)
    return curve


def damage_frame(damage: _C.Damage) -> pandas.DataFrame:
    """Every number in one row."""
    import pandas

    return pandas.DataFrame([flat(damage.to_dict())])


def damage_rows(damage: _C.Damage) -> list[list[str]]:
    """For a terminal: a name, and a number with its interval where there is one."""
    found = damage.to_dict()
    kl = found["kl"]

    def within(value: float | None, bounds: list[float | None] | None, form: Callable[[float | None], str]) -> str:
        return form(value) + (f" ({interval(bounds, form)})" if bounds and None not in bounds else "")

    loss = within(found["delta_nll"], found["delta_nll_interval"], signed)
    return [
        ["perplexity", f"{number(found['perplexity_baseline'])} → {number(found['perplexity'])}"],
        ["ΔNLL, nats per token", loss + (", silent" if found["silent"] else "")],
        ["KL(baseline ‖ damaged), mean", within(kl["mean"], kl["mean_interval"], number)],
        ["KL, 99th percentile", number(kl["p99"])],
        ["acceptance, mean Σ min(p, q)", within(found["acceptance"], found["acceptance_interval"], percent)],
        ["top-1 agreement", within(found["top1_agreement"], found["top1_agreement_interval"], percent)],
        ["volume: predictions changed", percent(found["volume"])],
        ["direction: ΔNLL where they did", within(found["direction"], found["direction_interval"], signed)],
        ["flips right → wrong", percent(found["flips_right_to_wrong"])],
        ["flips wrong → right", percent(found["flips_wrong_to_right"])],
        ["hemorrhage index", number(found["index"])],
        ["size as stored", f"{bytes_text(damage.bytes_baseline)} → {size_text(damage)}"],
    ]


def numbers(operation: str, severities: object) -> list[float]:
    """The severities as floats."""
    if isinstance(severities, str | bytes) or not isinstance(severities, Iterable):
        raise TypeError(f"{operation}: severities is {severities!r}, but takes a list of numbers")
    result = []
    for index, severity in enumerate(severities):
        try:
            if isinstance(severity, str | bytes):  # which float() would read
                raise TypeError
            result.append(float(severity))
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise TypeError(f"{operation}: severities[{index}] is {severity!r}, but takes a number") from None
    return result


def seeded_spec(method: str, seed: int, options: Mapping[str, Any]) -> _C.MethodSpec:
    """The method with its options, and with the seed where it takes one and none is given."""
    spec = _C.MethodSpec(method, **options)
    takes_seed = any(option.name == "seed" for option in _C.find_method(spec.method).options)
    return _C.MethodSpec(method, **options, seed=seed) if seed and takes_seed and "seed" not in spec.options else spec
