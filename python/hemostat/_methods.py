"""Statistics for methods, and methods of one's own."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch

from hemostat import _C
from hemostat._immutable import Contents, guarded, guarded_axis
from hemostat._progress import Progress, bar
from hemostat._source import source_hash

__all__ = ["collect", "lent_to", "method", "source_of"]

Function = TypeVar("Function", bound=Callable[..., Callable[[float], _C.Model]])

_sources: dict[str, str] = {}


def collect(
    model: _C.Model,
    tokens: torch.Tensor,
    needs: str | Iterable[str] | None = None,
    *,
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
            ``"gradient_mean"``, ``"gradient_absmean"``, ``"gradient_square"``) or of methods that need them
            (``"wanda"``, ``"rtn:group_size=64"``), one or many. None: every statistic that needs no gradient.
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
        return _C.collect(
            model,
            tokens,
            names,
            memory_budget=memory_budget,
            batch=batch,
            include=include,
            exclude=exclude,
            progress=update,
        )


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
            ``"mean"``, ``"gradient_mean"``, ``"gradient_absmean"``, ``"gradient_square"``.
        kind: What it changes, for lists.
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
