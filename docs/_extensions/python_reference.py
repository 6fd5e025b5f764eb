"""The Python reference, read from the sources and the extension's installed type stubs without importing either.

.. python-names:: hemostat.prune
   :names: mask, kept_until

describes names of a module, all that it exports unless some are listed. Docstrings are in Google style.
"""

from __future__ import annotations

import ast
import functools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.docutils import SphinxDirective

PYTHON = Path(__file__).parents[2] / "python"
INSTALLED = Path(find_spec("hemostat").origin).parents[1]  # its _C/ holds the stubs that the build made
NAPOLEON = Config(napoleon_use_rtype=False, napoleon_use_ivar=True, napoleon_preprocess_types=False)

# How stubs spell what a user would write otherwise.
SPELLINGS = (
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"\b(?:collections\.abc|typing|hemostat|_C)\.", ""),
)


class Module(NamedTuple):
    path: Path
    docstring: str
    exports: list[str]
    definitions: dict[str, list[ast.stmt]]  # several where overloaded
    imports: dict[str, tuple[str, str]]  # name: the module that it comes from, and its name there


@functools.cache
def read_module(name: str) -> Module:
    root = INSTALLED if name.startswith("hemostat._C") else PYTHON
    stem = root / name.replace(".", "/")
    candidates = (stem / "__init__.pyi", stem.with_suffix(".pyi"), stem.with_suffix(".py"), stem / "__init__.py")
    path = next(path for path in candidates if path.is_file())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    exports, definitions, imports = [], {}, {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if ast.unparse(target) == "__all__":
                exports = ast.literal_eval(node.value)
            else:
                definitions.setdefault(ast.unparse(target), []).append(node)
    return Module(path, ast.get_docstring(tree) or "", exports, definitions, imports)


def find(module: str, name: str) -> tuple[Path, list[ast.stmt]]:
    """Where a name that a module exports is defined."""
    found = read_module(module)
    while name not in found.definitions:
        module, name = found.imports[name]
        found = read_module(module)
    return found.path, found.definitions[name]


def is_module(module: str, name: str) -> bool:
    stem = PYTHON / module.replace(".", "/") / name
    return stem.is_dir() or stem.with_suffix(".py").is_file()


def spelled(node: ast.expr | None) -> str:
    text = "" if node is None else ast.unparse(node)
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text


def signature(name: str, function: ast.FunctionDef, bound: bool) -> str:
    arguments = function.args
    parts: list[str] = []

    def add(argument: ast.arg, default: ast.expr | None = None, stars: str = "") -> None:
        annotation = spelled(argument.annotation)
        text = stars + argument.arg + (f": {annotation}" if annotation else "")
        parts.append(text if default is None else f"{text}{' = ' if annotation else '='}{spelled(default)}")

    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        if not (bound and index == 0):
            add(argument, default)
    if arguments.vararg:
        add(arguments.vararg, stars="*")
    elif arguments.kwonlyargs:
        parts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        add(argument, default)
    if arguments.kwarg:
        add(arguments.kwarg, stars="**")
    returns = spelled(function.returns)
    return f"{name}({', '.join(parts)})" + (f" -> {returns}" if returns and name != "__init__" else "")


def described(docstring: str | None, what: str) -> list[str]:
    return GoogleDocstring(escaped(docstring or ""), NAPOLEON, what=what).lines()


def escaped(docstring: str) -> str:
    """The docstring with what reStructuredText would take for markup, but is arithmetic, escaped."""
    lines = []
    for line in docstring.splitlines():
        if re.match(r"\s*(>>>|\.\.\.|\*{1,2}\w+:)", line):
            lines.append(line)
        else:
            parts = re.split(r"(``.+?``|:[\w:]+:`.+?`)", line)  # literals and roles stay
            lines.append("".join(part if i % 2 else re.sub(r"([|*])", r"\\\1", part) for i, part in enumerate(parts)))
    return "\n".join(lines)


def directive(kind: str, signatures: list[str], body: list[str], options: tuple[str, ...] = ()) -> list[str]:
    head = f".. py:{kind}:: "
    lines = [head + signatures[0], *(" " * len(head) + text for text in signatures[1:])]
    lines += [f"   :{option}:" for option in options]
    return ["", *lines, "", *(f"   {line}" if line else "" for line in body), ""]


def decorators(function: ast.FunctionDef) -> set[str]:
    return {ast.unparse(decorator).rsplit(".", 1)[-1] for decorator in function.decorator_list}


def function_lines(kind: str, name: str, overloads: list[ast.FunctionDef], bound: bool) -> list[str]:
    kinds = decorators(overloads[0])
    if "property" in kinds:
        returns = spelled(overloads[0].returns)
        body = described(ast.get_docstring(overloads[0]), "attribute")
        lines = directive("property", [name], body)
        return [*lines[:2], *([f"   :type: {returns}"] if returns else []), *lines[2:]]
    flags = tuple(kind for kind in ("staticmethod", "classmethod") if kind in kinds)
    bound = bound and "staticmethod" not in kinds
    lines: list[str] = []
    for index, overload in enumerate(overloads):
        options = flags if index == 0 else (*flags, "no-index")
        body = described(ast.get_docstring(overload), "function")
        lines += directive(kind, [signature(name, overload, bound)], body, options)
    return lines


def class_lines(module: str, node: ast.ClassDef) -> list[str]:
    members: dict[str, list[ast.FunctionDef]] = {}
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            members.setdefault(member.name, []).append(member)
    makers = members.pop("__init__", [])
    signatures = [signature("__init__", maker, True).replace("__init__", node.name, 1) for maker in makers] or [
        node.name
    ]
    bases = [spelled(base) for base in node.bases]
    body = [f"Bases: {', '.join(f':class:`{base}`' for base in bases)}", ""] if bases else []
    body += described(ast.get_docstring(node), "class")
    for maker in makers:
        body += ["", *described(ast.get_docstring(maker), "method")]
    for name, overloads in members.items():
        special = name.startswith("__")
        if name.startswith("_") and not (special and ast.get_docstring(overloads[0])):
            continue
        if any(decorator.endswith("setter") for decorator in decorators(overloads[0])):
            continue
        readers = [overload for overload in overloads if "setter" not in decorators(overload)]
        body += function_lines("method", name, readers, bound=True)
    return directive("class", signatures, body)


class PythonNames(SphinxDirective):
    required_arguments = 1
    option_spec = {"names": directives.unchanged}

    def run(self):
        module = self.arguments[0]
        read = read_module(module)
        listed = self.options.get("names")
        names = re.split(r",\s*", listed.strip()) if listed else [n for n in read.exports if not is_module(module, n)]
        lines = [f".. py:currentmodule:: {module.removesuffix('._C')}", ""]
        if not listed:
            lines += [f".. py:module:: {module}", "", *escaped(read.docstring).splitlines(), ""]
        for name in names:
            path, nodes = find(module, name)
            self.env.note_dependency(str(path))
            if isinstance(nodes[0], ast.ClassDef):
                lines += class_lines(module, nodes[0])
            elif isinstance(nodes[0], ast.FunctionDef):
                lines += function_lines("function", name, nodes, bound=False)
            else:
                lines += directive("data", [name], [f"``{ast.unparse(nodes[0].value)}``"])
        self.env.note_dependency(str(read.path))
        container = self.parse_lines(lines)
        return container

    def parse_lines(self, lines):
        from docutils import nodes
        from sphinx.util.nodes import nested_parse_with_titles

        root = nodes.section()
        root.document = self.state.document
        source = f"{self.arguments[0]} docstrings"
        nested_parse_with_titles(self.state, StringList(lines, source), root, self.content_offset)
        return root.children


def setup(app):
    app.add_directive("python-names", PythonNames)
    return {"parallel_read_safe": True}
