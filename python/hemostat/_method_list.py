"""Methods as one types them, ``wanda,rtn:group_size=64@4,3``: each a spec and the severities listed with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hemostat import _C

__all__ = ["ListedMethod", "split_joint", "split_methods"]


class ListedMethod(NamedTuple):
    """A method's spec, and its severities where the list names them."""

    spec: str
    severities: tuple[float, ...] | None = None


def split_methods(methods: str | Sequence[str]) -> list[ListedMethod]:
    """The methods of a list. A comma parts two methods, two options of one, or two severities.

    ``wanda,rtn:group_size=64,symmetric=true@4,3`` is two methods: a part with "=" and no ":" goes on with the spec
    before it, and a number with the severities that begin at "@".

    Raises:
        ValueError: there is no method, an option or a severity comes before the first, an option stands after the
            severities, or a severity is no number.
        TypeError: ``methods`` holds something else than strings.
    """
    listed: list[ListedMethod] = []
    for text in [methods] if isinstance(methods, str) else methods:
        if not isinstance(text, str):
            raise TypeError(f"hemostat.scan: methods has {text!r}, but must have strings")
        begun = False
        for part in filter(None, (part.strip() for part in text.split(","))):
            spec, at, severity = (piece.strip() for piece in part.partition("@"))
            goes_on = "=" in spec and ":" not in spec
            if not at and _number(spec) is not None:
                if not begun or listed[-1].severities is None:
                    raise ValueError(
                        f"hemostat.scan: methods has the severity {spec} without a method; severities follow an @, as "
                        "in rtn@4,3"
                    )
                listed[-1] = listed[-1]._replace(severities=(*listed[-1].severities, _number(spec)))
                continue
            if goes_on:
                if not begun:
                    raise ValueError(f"hemostat.scan: methods has the option {spec!r} before any method")
                before = listed.pop()
                if before.severities is not None:
                    raise ValueError(
                        f"hemostat.scan: methods has the option {spec!r} after the severities of {before.spec}; "
                        "options come before the @"
                    )
                spec = f"{before.spec}{',' if ':' in before.spec else ':'}{spec}"
            if not spec:
                raise ValueError(f"hemostat.scan: methods has {part!r}, which names no method before the @")
            if at and _number(severity) is None:
                raise ValueError(f"hemostat.scan: methods has {part!r}; after the @ it takes numbers, as in rtn@4,3")
            listed.append(ListedMethod(spec, (_number(severity),) if at else None))
            begun = True
    if not listed:
        raise ValueError("hemostat.scan: methods is empty")
    return listed


def split_joint(joint: Sequence[str | Sequence[str]]) -> list[tuple[ListedMethod, ListedMethod]]:
    """Pairs of methods, each given as two specs or as one text, which :func:`split_methods` parts.

    Raises:
        ValueError: one is not two methods, or there is an unknown one.
    """
    pairs = []
    for given in [joint] if isinstance(joint, str) else joint:
        listed = split_methods(given)
        if len(listed) != 2:
            raise ValueError(
                f"hemostat.scan: joint has {', '.join(entry.spec for entry in listed)}, but takes two methods at a "
                "time, such as wanda,rtn:group_size=64"
            )
        pairs.append(tuple(entry._replace(spec=_C.MethodSpec.parse(entry.spec).text()) for entry in listed))
    return pairs


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
