"""The C++ reference, read from the public headers: their comments are the documentation.

.. cpp-header:: prune

describes everything that cpp/include/hemostat/prune.h declares, in its order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

HEADERS = Path(__file__).parents[2] / "cpp" / "include" / "hemostat"


class Declaration(NamedTuple):
    scope: str  # "hemostat::prune"
    comment: list[str]
    code: list[str]


class Header(NamedTuple):
    comment: list[str]  # what the file says of itself
    includes: list[str]  # of its kin
    declarations: list[Declaration]


def read_header(path: Path) -> Header:
    scopes: list[str] = []
    comment: list[str] = []
    code: list[str] = []
    about: list[str] = []
    includes: list[str] = []
    declarations: list[Declaration] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if code:
            code.append(line)
        elif line.startswith("//"):
            comment.append(line[2:].removeprefix(" "))
            continue
        elif line.startswith("#pragma once"):
            about, comment = comment, []
            continue
        elif found := re.match(r"#include <hemostat/(\w+)\.h>", line):
            includes.append(found[1])
            continue
        elif found := re.match(r"namespace ([\w:]+) \{", line):
            scopes.append(found[1])
            continue
        elif line.startswith("}  // namespace"):
            scopes.pop()
            continue
        elif not line.strip() or line.startswith("#"):
            comment = [] if not line.strip() else comment
            continue
        else:
            code = [line]
        bare = [re.sub(r"//.*", "", part).rstrip() for part in code]
        if sum(part.count("{") - part.count("}") for part in bare) == 0 and bare[-1].endswith((";", "}")):
            if not re.fullmatch(r"(struct|class) \w+;", code[0]):  # declared in full further down
                declarations.append(Declaration("::".join(scopes), comment, code))
            comment, code = [], []
    return Header(about, includes, declarations)


def prose(comment: list[str]) -> list[str]:
    """A comment as reStructuredText: paragraphs, and indented lines as they stand."""
    lines: list[str] = []
    literal = False
    for line in comment:
        indented = line.startswith("  ") and bool(line.strip())
        if indented and not literal:
            lines += ["", ".. code-block:: text", ""]
        elif literal and not indented:
            lines.append("")
        literal = indented
        lines.append(f"   {line}" if indented else marked_up(line))
    return lines


def marked_up(line: str) -> str:
    """A line of prose: `code` as such, and what reStructuredText would take for markup escaped."""
    parts = re.split(r"`([^`]+)`", line)
    return "".join(f"``{part}``" if i % 2 else re.sub(r"([\\`*|_])", r"\\\1", part) for i, part in enumerate(parts))


def described(declaration: Declaration) -> list[str]:
    code = list(declaration.code)
    comment = list(declaration.comment)
    if len(code) == 1 and "//" in code[0]:  # "int64_t rank();  // remark"
        code[0], remark = re.split(r"\s*// ?", code[0], maxsplit=1)
        comment.append(remark)
    template, rest = template_head(code)
    first = re.sub(r"__attribute__\(\(.*?\)\) ", "", rest[0])
    scope = declaration.scope
    whole: list[str] = []
    if found := re.match(r"(struct|class) (\w+(?:<.*>)?)", first):
        head = f".. cpp:{found[1]}:: {template}{scope}::{found[2]}"
        if not first.endswith(";"):
            whole = code
    elif template and (first.startswith("concept ") or "=" in first.split("(")[0]):
        head, whole = "", code  # a concept or a variable, which Sphinx's domain has no words for
    elif found := re.match(r"enum class (\w+)", first):
        head, whole = f".. cpp:enum-class:: {scope}::{found[1]}", code
    elif found := re.match(r"using ([\w:]+) = (.*);", " ".join(code)):
        head = f".. cpp:type:: {scope}::{found[1]} = {found[2]}"
    elif found := re.match(r"using ([\w:]+);", first):
        head, whole = f".. cpp:type:: {scope}::{found[1].rsplit('::', 1)[-1]}", code
    elif found := re.match(r"(?:inline )?constexpr (\w+) (\w+) = (.*);", first):
        head = f".. cpp:var:: constexpr {found[1]} {scope}::{found[2]} = {found[3]}"
    else:
        text = re.sub(r"\s*//.*", "", "\n".join(code))
        text = re.sub(r"\s+", " ", text).rstrip(";").strip()
        text = re.sub(r" \{.*\}$", "", text)  # of a template, which is defined where it is declared
        head = f".. cpp:function:: {scoped(text, scope)}"
    body = prose(comment)
    if whole:
        body += ["", ".. code-block:: cpp", "", *(f"   {line}" for line in whole)]
    if not head:
        return ["", *body, ""]
    return ["", head, "", *(f"   {line}" if line else "" for line in body), ""]


def template_head(code: list[str]) -> tuple[str, list[str]]:
    """ "template <typename T> " of a template, and the lines after it."""
    if not code[0].startswith("template <"):
        return "", code
    end = next(index for index, line in enumerate(code) if line.endswith(">")) + 1
    return " ".join(line.strip() for line in code[:end]) + " ", code[end:]


def scoped(declaration: str, scope: str) -> str:
    """A function's declaration with its name in full."""
    before, name, after = re.match(r"(.*?)([\w:]+)(\(.*)", declaration).groups()
    return f"{before}{scope}::{name}{after}"


class CppHeader(SphinxDirective):
    required_arguments = 1

    def run(self):
        from docutils import nodes

        path = HEADERS / f"{self.arguments[0]}.h"
        self.env.note_dependency(str(path))
        header = read_header(path)
        lines = ["", ".. code-block:: cpp", "", f"   #include <hemostat/{path.name}>", "", *prose(header.comment), ""]
        if not header.declarations:
            lines += ["It includes", "", *(f"- :doc:`{include}`" for include in header.includes), ""]
        for declaration in header.declarations:
            lines += described(declaration)
        root = nodes.section()
        root.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, str(path)), root, self.content_offset)
        return root.children


def setup(app):
    app.add_directive("cpp-header", CppHeader)
    return {"parallel_read_safe": True}
