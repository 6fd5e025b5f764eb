"""The extension's type stubs, from itself: python bindings/stubs.py <directory of _C.*.so> <output directory>

CMake runs it once the extension is linked; the package around it need not be there. What Python gives the extension's
classes (python/hemostat/_python_methods.py) is read from its source.
"""

import ast
import sys
import types
from pathlib import Path

import pybind11_stubgen
import torch  # noqa: F401  the extension needs its libraries

extension, out = sys.argv[1:]
package = types.ModuleType("hemostat")
package.__path__ = [extension]
sys.modules["hemostat"] = package

from hemostat import _C  # noqa: E402

_C.NumericalError.__module__ = "hemostat._C"  # it calls itself by the name that users import, and would be left out
pybind11_stubgen.main(["hemostat._C", "--output-dir", out, "--exit-code"])

METHODS = Path(__file__).parents[1] / "python" / "hemostat" / "_python_methods.py"


def attached() -> dict[str, list[str]]:
    """Class of the extension → lines of the members that Python gives it."""
    members = {}
    for kind in ast.parse(METHODS.read_text(encoding="utf-8")).body:
        if isinstance(kind, ast.ClassDef):
            for function in kind.body:
                assert isinstance(function, ast.FunctionDef)
                function.body = function.body[:1] if ast.get_docstring(function) else [ast.Expr(ast.Constant(...))]
                lines = ast.unparse(function).replace("_C.", "").splitlines()
                members.setdefault(kind.name, []).extend(f"    {line}" for line in lines)
    return members


stub = Path(out, "hemostat", "_C", "__init__.pyi")
lines = stub.read_text(encoding="utf-8").splitlines()
given = attached()
for kind in reversed(ast.parse("\n".join(lines)).body):
    if isinstance(kind, ast.ClassDef) and kind.name in given:
        lines[kind.end_lineno : kind.end_lineno] = given[kind.name]
stub.write_text("\n".join(lines) + "\n", encoding="utf-8")
