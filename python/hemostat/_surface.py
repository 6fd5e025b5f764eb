"""Damage of two methods in order, over a grid of both severities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from hemostat import _C
from hemostat._baseline import warn_of_baseline, warn_of_unknown_floor
from hemostat._damage import numbers, seeded_spec
from hemostat._immutable import check
from hemostat._methods import lent_to, source_of
from hemostat._progress import Progress, bar
from hemostat.report._document import MethodFacts, SurfaceFacts
from hemostat.report._surfaces import SurfaceView, surface_rows, surface_table

if TYPE_CHECKING:
    import pandas

__all__ = ["method_facts", "surface", "surface_facts"]


def surface(
    model: _C.Model,
    methods: Sequence[str],
    tokens: torch.Tensor,
    *,
    statistics: _C.Statistics | None = None,
    severities: Sequence[Sequence[float] | None] | None = None,
    unigram: torch.Tensor | None = None,
    byte_count: int | None = None,
    batch: int = 4,
    memory_budget: float = 2**30,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    generation: bool | _C.GenerationProtocol = False,
    on_trial: Callable[[_C.Trial], None] | None = None,
    progress: Progress = None,
) -> _C.Surface:
    """What two methods do together: the second changes what the first gave, at each severity of both.

    The first method is prepared once, the second on each model that the first gives, and every point then costs one
    evaluation. The first row and column of the grid are the two methods alone. Where a method takes part whose axis is
    measured by generation (``temperature``), a point is measured so too.

    Args:
        model: The baseline.
        methods: Two names or specs with options, in the order in which they are applied.
        tokens: int64 [windows, length] on the model's device.
        statistics: What :func:`hemostat.collect` gathered on ``model``, for methods that need it.
        severities: Those of the first, and those of the second; neutral is added to each. None for either: its axis's
            default grid.
        unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from ``tokens``.
        byte_count: UTF-8 bytes of all targets, for bits per byte.
        batch: Windows at a time.
        memory_budget: Bytes for what is kept of the baseline.
        bootstrap_samples: Resamples of windows behind each interval.
        seed: Of the resampling, of the text that is sampled, and of each method that has an option of that name.
        generation: True: measure every point by generation. A :class:`GenerationProtocol`: and in this way.
        on_trial: Called with each :class:`Trial` finished; what it raises ends the work.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of trials.

    Returns:
        Surface: ``.severities``, ``.damages[i][j]``, ``.zone(tolerance)``, ``.additivity``.

    Raises:
        ValueError: For other than two methods, an unknown method or option, a severity out of range, or statistics that
            are needed but not given; all seen before any work.
        TypeError: For methods that are one text.
        NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.

    Warns:
        BaselineWarning: Where the baseline is no better than the unigram model, or the noise floor is unknown.

    Example:
        >>> surface = hemostat.surface(model, ("wanda", "rtn"), evaluation, statistics=statistics)
        >>> fewest_bits = dict(zip(surface.severities[0], surface.zone(0.05)))
    """
    if isinstance(methods, str):
        raise TypeError(f"hemostat.surface: methods is the text {methods!r}, but takes two methods in a sequence")
    if len(methods) != 2:
        raise ValueError(f"hemostat.surface: methods has {len(methods)}, but takes two, in order")
    given = (None, None) if severities is None else tuple(severities)
    if len(given) != 2:
        raise ValueError(
            f"hemostat.surface: severities has {len(given)} entries, but takes one for each of two methods"
        )
    grids = [None if grid is None else numbers("hemostat.surface", grid) for grid in given]
    specs = [seeded_spec(method, seed, {}) for method in methods]
    planned = _C.plan_joint(model, [specs])[0].methods
    sizes = [
        len(entry.severities if grid is None else {entry.axis.neutral, *grid})
        for entry, grid in zip(planned, grids, strict=True)
    ]
    total = sizes[0] * sizes[1] - 1

    with bar(progress, f"surface {methods[0]}, {methods[1]}", "trial") as update:
        finished, lent = 0, lent_to([spec.text() for spec in specs], model, tokens=tokens)

        def report(trial: _C.Trial) -> None:
            nonlocal finished
            if lent:
                check(f"hemostat.surface: what ran beside the trial of {trial.method}", lent)
            finished += 1
            if on_trial is not None:
                on_trial(trial)
            if update is not None:
                update(finished, total)

        found = _C.surface(
            model,
            specs,
            tokens,
            statistics=statistics,
            severities=grids,
            unigram=unigram,
            byte_count=byte_count,
            batch=batch,
            memory_budget=memory_budget,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            generation=generation,
            on_trial=report,
        )
    warn_of_baseline(found.damages[0][0])
    warn_of_unknown_floor(model, found.noise_floor)
    return found


def surface_facts(surface: _C.Surface) -> SurfaceFacts:
    """A surface as a report's document holds it."""
    return SurfaceFacts(methods=tuple(map(method_facts, surface.methods, surface.axes)), surface=surface)


def method_facts(label: str, axis: _C.Axis) -> MethodFacts:
    """A registered method, by its canonical spec, as a report's document holds it."""
    spec = _C.MethodSpec.parse(label)
    return MethodFacts(
        **spec.to_dict(),
        label=label,
        kind=_C.find_method(spec.method).kind,
        needs=tuple(sorted(_C.needs_of([label]))),
        axis=axis,
        source=source_of(spec.method),
    )


def table(surface: _C.Surface) -> str:
    """Its ΔNLL for a terminal, and the joint zone beside it."""
    return surface_table(SurfaceView(surface_facts(surface)))


def dataframe(surface: _C.Surface) -> pandas.DataFrame:
    """One row a point."""
    import pandas

    return pandas.DataFrame(surface_rows(SurfaceView(surface_facts(surface))))
