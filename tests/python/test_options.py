"""Options are declared once: an operator, the method of its name, and the docs say the same of them."""

import inspect
import re

import pytest

import hemostat
from hemostat import _C

ROOMS = (hemostat.prune, hemostat.quantize, hemostat.lowrank, hemostat.noise)
METHODS = {method.name: method for method in hemostat.methods()}
OPERATORS = {
    name: getattr(room, name)
    for room in ROOMS
    for name in room.__all__
    if callable(getattr(room, name)) and not inspect.isclass(getattr(room, name))
}
# Options of a method alone, or that it means otherwise than the operator: codes that faults are in, joint rounding.
OWN = {("bit_flip", "bits"), ("bit_flip", "bit"), ("stuck_at", "bits"), ("stuck_at", "bit"), ("stuck_at", "value")}
OWN |= {("sparsegpt", "bits"), ("gguf", "importance")}


def keywords(function):
    """Keyword → the default's text, from the signature; None where there is none."""
    if inspect.isfunction(function):
        return {
            parameter.name: None if parameter.default is parameter.empty else repr(parameter.default)
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
    signature = function.__doc__.splitlines()[0]
    after = signature[signature.index("(") : signature.rindex(") ->")].split("*, ")
    if len(after) == 1:
        return {}
    # Types hold commas in brackets alone.
    parts = re.split(r", (?=\w+: )", after[1])
    return {part.split(":")[0]: part.rsplit(" = ", 1)[1] if " = " in part else None for part in parts}


def described(function):
    """The names in the docstring's Args, in order."""
    args = re.search(r"Args:\n(.*?)\n\s*\n", function.__doc__, flags=re.DOTALL)
    return re.findall(r"^ +(\w+): ", args.group(1), flags=re.MULTILINE)


def spelt(default):
    """A method's default as an operator's signature spells it."""
    if isinstance(default, str):
        return "None" if default == "row" else default if default.isdigit() else repr(default)
    return repr(default)


def test_method_and_operator_of_one_name_have_the_same_defaults():
    compared = 0
    for name, method in METHODS.items():
        given = keywords(OPERATORS[name]) if name in OPERATORS else {}
        for option in method.options:
            if option.name in given and (name, option.name) not in OWN:
                scope = option.name == "scope"  # its words are no group sizes
                expected = repr(option.default) if scope else spelt(option.default)
                assert given[option.name] == expected, (name, option.name)
                compared += 1
    assert compared >= 25


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_the_docstring_describes_every_keyword_once(name):
    given, lines = keywords(OPERATORS[name]), described(OPERATORS[name])
    assert sorted(line for line in lines if line in given) == sorted(given)


OUT_OF_RANGE = [
    (method.name, option)
    for method in METHODS.values()
    for option in method.options
    if option.range and isinstance(option.default, (int, float)) and not isinstance(option.default, bool)
]


@pytest.mark.parametrize(("name", "option"), OUT_OF_RANGE, ids=lambda value: getattr(value, "name", value))
def test_a_method_refuses_numbers_out_of_range_before_a_model_is_there(name, option):
    assert option.range in option.description
    for value in (-1, float("nan")) if isinstance(option.default, float) else (-1,):
        message = rf"prepare\({name}\): {option.name} is {value}, but must be {option.range}"
        with pytest.raises(ValueError, match=message):
            _C.needs_of([f"{name}:{option.name}={value}"])


def test_there_are_ranges():
    assert len(OUT_OF_RANGE) >= 12
