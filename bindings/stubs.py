"""The extension's type stubs, from itself: python bindings/stubs.py <directory of _C.*.so> <output directory>

CMake runs it once the extension is linked; the package around it need not be there.
"""

import sys
import types

import pybind11_stubgen
import torch  # noqa: F401  the extension needs its libraries

extension, out = sys.argv[1:]
package = types.ModuleType("hemostat")
package.__path__ = [extension]
sys.modules["hemostat"] = package

from hemostat import _C  # noqa: E402

_C.NumericalError.__module__ = "hemostat._C"  # it calls itself by the name that users import, and would be left out
pybind11_stubgen.main(["hemostat._C", "--output-dir", out, "--exit-code"])
