"""Statistics for methods, and methods of one's own."""

from __future__ import annotations

import inspect
import math
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch

from hemostat import _C
from hemostat._foreign import uncalled_linears
from hemostat._immutable import Contents, guarded, guarded_axis
from hemostat._progress import Progress, bar
from hemostat._source import source_hash

__all__ = ["checked_correction", "collect", "compress", "filter_of", "is_propagated", "lent_to", "method", "source_of"]

Function = TypeVar("Function", bound=Callable[..., Callable[[float], _C.Model]])

# What prepare takes beside options.
RESERVED = ("statistics", "calibration", "propagate", "correct", "correct_damp", "memory_budget")

_sources: dict[str, str] = {}


def collect(
    model: _C.Model,
    tokens: torch.Tensor,
    needs: str | Iterable[str] | None = None,
    *,
    labels: str = "model",
    seed: int = 0,
    memory_budget: float = 2**30,
    batch: int = 8,
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    progress: Progress = None,
) -> _C.Statistics:
    """Collects over calibration text what methods need to know about the inputs of linears and about the gradients.

    One forward pass; statistics of gradients take a second one, and a backward pass of each window's mean negative
    log-likelihood, block by block: no more than one block's graph is held at a time.

    Args:
        model: The model.
        tokens: int64 [windows, length] on the model's device.
        needs: Names of statistics (``"column_norm"``, ``"absmax"``, ``"absmean"``, ``"gram"``, ``"mean"``; of gradients
            ``"gradient_mean"``, ``"gradient_absmean"``, ``"gradient_square"``, ``"row_fisher"``; ``"tokens"``, the text
            itself), of methods that need them (``"wanda"``, ``"rtn:group_size=64"``), or ``"predict"``; one or many.
            None: every statistic that needs no gradient.
        labels: Whose tokens ``row_fisher`` asks the likelihood of: ``"model"``: drawn from what the model predicts, at
            every position; ``"text"``: the text's.
        seed: Of what is drawn.
        memory_budget: Bytes to hold in memory; what is beyond lies in temporary files.
        batch: Windows at a time.
        include: fnmatch pattern or patterns on the linears' names. None: the linears inside blocks.
        exclude: Pattern or patterns of names to leave out.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of windows.

    Returns:
        Statistics: By the linears' names.

    Raises:
        ValueError: For an unknown name, tokens out of range, or a pattern that matches nothing; for gradients of
            windows of one token, or of a model that repeats blocks.
        NumericalError: Where the model, or what is collected, is not finite; the message says where that begins, and
            the dtype's part.

    Example:
        >>> statistics = hemostat.collect(model, calibration, needs=["wanda"])
        >>> norm = statistics["model.layers.0.self_attn.q_proj"].norm
    """
    names = [needs] if isinstance(needs, str) else None if needs is None else list(needs)
    with bar(progress, "collect", "window") as update:
        statistics = _C.collect(
            model,
            tokens,
            names,
            labels=labels,
            seed=seed,
            memory_budget=memory_budget,
            batch=batch,
            include=include,
            exclude=exclude,
            progress=update,
        )
    if unreached := uncalled_linears(model, statistics):
        warnings.warn(f"hemostat.collect: {unreached}", stacklevel=2)
    return statistics


def compress(
    model: _C.Model,
    specs: Mapping[str, float] | Iterable[tuple[str, float]],
    calibration: torch.Tensor,
    *,
    propagate: bool = True,
    correct: float = 0.0,
    correct_damp: float = 0.1,
    memory_budget: float = 2**30,
    batch: int = 8,
    progress: Progress = None,
) -> _C.Model:
    """Methods at severities, in order, each on what the one before gave.

    Block by block (``propagate``), methods on linears that follow one another take one pass over the calibration text
    together: block after block, and in a block q k v, o, gate up, down one after the other, each linear is changed by
    every method in turn, on what reaches it in the model that is changed so far. Methods that change the model as a
    whole come between passes. Without ``propagate`` all statistics are the unchanged model's, as in :func:`compose`.

    Args:
        model: The model to compress.
        specs: Severities by method specs, ``{"wanda": 0.5, "rtn:group_size=64": 4}``, or pairs of them, in order.
        calibration: int64 [windows, length] on the model's device.
        propagate: Whether to calibrate block by block.
        correct: With ``propagate``, 0 to 1: how far each linear is aimed at what the model gave there when the pass
            began; see :func:`prepare`.
        correct_damp: What keeps that from fitting the calibration text; more than 0.
        memory_budget: Bytes of activations and statistics in memory; what is beyond lies in temporary files.
        batch: Windows at a time.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of blocks.

    Returns:
        Model: Another; the one given stays as it is.

    Raises:
        ValueError: For no specs, an unknown method or option, or a severity out of range; all seen before any work.
        NumericalError: Where what the changed model computes is not finite.

    Example:
        >>> small = hemostat.compress(model, {"sparsegpt": 0.5, "rtn": 4}, calibration)
    """
    listed = list(specs.items()) if isinstance(specs, Mapping) else [tuple(entry) for entry in specs]
    for entry in listed:
        if len(entry) != 2:
            raise ValueError(f"hemostat.compress: specs has {entry!r}, but takes pairs of a method and a severity")
    with bar(progress if propagate else False, "compress", "block") as update:
        return _C.compress(
            model,
            listed,
            calibration,
            propagate=propagate,
            correct=correct,
            correct_damp=correct_damp,
            memory_budget=memory_budget,
            batch=batch,
            progress=update,
        )


def checked_correction(operation: str, propagate: bool, correct: float, correct_damp: float) -> tuple[float, float]:
    """Both as numbers; ValueError where they cannot be, or where there is no calibration block by block to correct."""
    correct, correct_damp = float(correct), float(correct_damp)
    if correct and not propagate:
        raise ValueError(
            f"{operation}: correct = {correct:g} aims at the unchanged model's outputs block by block, so it takes "
            "propagate"
        )
    if not 0 <= correct <= 1:
        raise ValueError(f"{operation}: correct is {correct:g}, but takes 0 to 1")
    if not 0 < correct_damp < math.inf:
        raise ValueError(f"{operation}: correct_damp is {correct_damp:g}, but must be positive and finite")
    return correct, correct_damp


def filter_of(spec: _C.MethodSpec) -> dict[str, Any]:
    """Which linears a method changes, as collect and Model.linears take it."""
    return {name: spec.options[name] for name in ("include", "exclude") if spec.options.get(name)}


def is_propagated(spec: str, correct: float) -> bool:
    """Whether calibration block by block gives a method another model than dense statistics do."""
    if not _C.find_method(_C.MethodSpec.parse(spec).method).on_linears:
        return False
    return bool(correct) or _C.needs_of([spec]) != _C.needs_of([spec], propagate=True)


def method(
    name: str,
    *,
    axis: _C.Axis,
    needs: Iterable[str] = (),
    kind: str = "user",
    description: str | None = None,
    axis_for: Callable[..., _C.Axis] | None = None,
) -> Callable[[Function], Function]:
    """Registers a Python function as a method, which sweeps, scans and reports then treat as one of ours.

    The function takes ``(model, statistics, **options)`` and returns a function of severity that returns a
    :class:`Model`. It does the work that does not depend on severity; ``statistics`` is None where none were given. A
    Model is immutable: use :meth:`Model.linears` and :meth:`Model.replace`, or any other method. A call that changes
    the model's tensors or the statistics in place raises ValueError, which names the tensor. At the neutral severity
    the function of severity isn't called. Severities of an integer axis arrive as int.

    Its keyword parameters are the method's options; each needs a default, which is a bool, an int, a float, a str, or a
    list of str or of int, and gives the option its type. ``Literal["a", "b"]`` as annotation lists the choices of a
    text option, ``Annotated[float, "exponent, 0 … 1"]`` describes an option.

    Args:
        name: What the method is called. Replaces a user's method of that name.
        axis: Its severity axis.
        needs: Names of the statistics that it reads: ``"column_norm"``, ``"absmax"``, ``"absmean"``, ``"gram"``,
            ``"mean"``, ``"gradient_mean"``, ``"gradient_absmean"``, ``"gradient_square"``, ``"row_fisher"``,
            ``"tokens"``.
        kind: What it changes: ``"weights"``, ``"factors"``, ``"activations"``, ``"architecture"``,
            ``"normalization"``, ``"input"`` or ``"decoding"``; any other word stands for ``"user"``.
        description: One line. None: the first line of the function's docstring.
        axis_for: ``(model, **options)`` → the axis for that model and these options, where it depends on them.

    Returns:
        A decorator, which gives the function back as it is.

    Raises:
        ValueError: For a name that is one of ours or holds one of ``:,=+`` or a space, or an unknown statistic.
        TypeError: For a function whose parameters are not as said.

    Example:
        >>> @hemostat.method("shrink", axis=hemostat.Axis(name="shrink", unit="fraction", default_grid=[0.1, 0.2]))
        ... def shrink(model, statistics, *, power: float = 1.0):
        ...     def at(severity):
        ...         factor = (1 - severity) ** power
        ...         return model.replace({name: weight * factor for name, weight in model.linears()})
        ...     return at
        >>> curve = hemostat.sweep(model, "shrink", evaluation, power=2.0)
    """

    def register(function: Function) -> Function:
        documentation = inspect.getdoc(function) or ""
        _C.register_method(
            name=name,
            kind=kind,
            description=description or documentation.partition("\n")[0],
            axis=axis,
            needs=set([needs] if isinstance(needs, str) else needs),
            options=_options(name, function),
            function=guarded(name, function),
            axis_for=axis_for and guarded_axis(name, axis_for),
        )
        _sources[name] = source_hash(function)
        return function

    return register


def lent_to(methods: Iterable[str], model: _C.Model, **tokens: torch.Tensor) -> Contents | None:
    """What code of users could change while these methods are measured; None where all are ours."""
    names = {_C.MethodSpec.parse(spec).method for spec in methods}
    return Contents(model, tensors=tokens) if names & _sources.keys() else None


def source_of(method: str) -> str | None:
    """:func:`source_hash` of a method that was registered from Python; None for another."""
    return _sources.get(method)


def _options(name: str, function: Callable[..., Any]) -> list[_C.OptionSpec]:
    """The options that a function's keyword parameters declare."""
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(parameters) < 2 or any(parameter.kind not in positional for parameter in parameters[:2]):
        raise TypeError(f"hemostat.method {name!r}: the function must take (model, statistics, **options)")
    annotations = _annotations(function)
    options = []
    for parameter in parameters[2:]:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TypeError(
                f"hemostat.method {name!r}: *{parameter.name} hides which options there are; name each with a default"
            )
        if parameter.name in RESERVED:
            raise TypeError(f"hemostat.method {name!r}: option {parameter.name} has a name that prepare takes itself")
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or parameter.default is inspect.Parameter.empty:
            raise TypeError(f"hemostat.method {name!r}: option {parameter.name} needs a default and must be a keyword")
        annotation, description = annotations.get(parameter.name), ""
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *notes = typing.get_args(annotation)
            description = next((note for note in notes if isinstance(note, str)), "")
        is_choice = typing.get_origin(annotation) is typing.Literal
        default = parameter.default
        if annotation is float and isinstance(default, int) and not isinstance(default, bool):
            default = float(default)  # `power: float = 1` is a number, not an integer
        options.append(
            _C.OptionSpec(
                parameter.name,
                default,
                description=description,
                choices=[str(choice) for choice in typing.get_args(annotation)] if is_choice else [],
            )
        )
    return options


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:  # a name that is only imported for type checkers
        return {}
