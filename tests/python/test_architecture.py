"""The rooms of the C++ library depend only on rooms above them, heavy headers stay out, and Python imports run in no
circle.
"""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADERS = ROOT / "cpp" / "include" / "hemostat"
SOURCES = ROOT / "cpp" / "src"
BINDINGS = ROOT / "bindings"
PYTHON = ROOT / "python"

# In the order in which they may depend on each other; rooms of one line don't know each other.
ORDER = [
    ["kernels"],
    ["statistics", "solve"],
    ["prune", "quantize", "lowrank", "noise"],
    ["decode"],
    ["model"],
    ["calibrate"],
    ["ablate", "normalize", "extend", "route", "context"],
    ["structured"],
    ["generate"],
    ["metrics"],
    ["threshold"],
    ["methods"],
    ["mitigate"],
    ["scan"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
# What is no room: common/ and the headers of exceptions, interruption and options for all, the axis for thresholds and
# what follows them.
EVERYONE = {"common", "error", "export", "interrupt", "options", "version"}
ROOM_OF_HEADER = {"axis": "threshold"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def files(*suffixes):
    return sorted(
        path
        for folder in (HEADERS, SOURCES)
        for path in folder.rglob("*")
        if path.name.endswith(suffixes) and path.is_file()
    )


def room_of(path):
    if path.is_relative_to(SOURCES):
        relative = path.relative_to(SOURCES)
        return relative.parts[0] if len(relative.parts) > 1 else None
    return ROOM_OF_HEADER.get(path.stem, path.stem)


def included_room(name, path):
    """The room that an #include names, or None where it names none."""
    if name.startswith("hemostat/"):
        stem = Path(name).stem
        return None if stem in EVERYONE else ROOM_OF_HEADER.get(stem, stem)
    first = Path(name).parts[0]
    if len(Path(name).parts) > 1 and first in RANK:
        return first
    return room_of(path) if (path.parent / name).is_file() else None


def test_every_file_is_in_a_room():
    rooms = {room_of(path) for path in files(".h", ".cpp", ".cu")} - EVERYONE - {None, "hemostat"}
    assert rooms <= set(RANK)
    assert [path.name for path in SOURCES.glob("*.*") if path.suffix != ".txt"] == ["precompiled.h"]
    assert {"kernels", "statistics", "prune", "model", "metrics", "threshold", "methods", "scan"} <= rooms


def test_rooms_include_only_rooms_above_them():
    wrong = []
    for path in files(".h", ".cpp", ".cu"):
        room = room_of(path)
        if room not in RANK:
            continue
        for name in INCLUDE.findall(path.read_text()):
            other = included_room(name, path)
            if other is not None and other != room and RANK.get(other, len(ORDER)) >= RANK[room]:
                wrong.append(f"{path.relative_to(ROOT)} ({room}) includes {name} ({other})")
    assert not wrong, "\n".join(wrong)


def test_what_rooms_share_knows_no_room():
    shared = sorted((SOURCES / "common").glob("*"))
    assert shared
    for path in shared:
        rooms = {included_room(name, path) for name in INCLUDE.findall(path.read_text())} - {None, "common"}
        assert not rooms, f"{path.name} includes {rooms}"


def test_device_code_is_free_of_torch():
    loops = files(".simd.cpp", ".simd.h", ".cu")
    assert loops
    for path in loops:
        heavy = [
            name
            for name in INCLUDE.findall(path.read_text())
            if name.startswith(("torch/", "ATen/", "c10/", "hemostat/"))
        ]
        assert not heavy, f"{path.relative_to(ROOT)} includes {heavy}"


@pytest.mark.parametrize("header", ["torch/extension.h", "torch/torch.h", "torch/all.h"])
def test_the_heaviest_headers_are_nowhere(header):
    for path in [*files(".h", ".cpp", ".cu"), *sorted(BINDINGS.glob("*"))]:
        if path.suffix in (".h", ".cpp", ".cu"):
            assert header not in INCLUDE.findall(path.read_text()), path


def test_public_headers_are_narrow_and_stand_alone():
    for path in HEADERS.glob("*.h"):
        text = path.read_text()
        assert text.count("#pragma once") == 1, path.name
        for name in INCLUDE.findall(text):
            assert not name.startswith(("nlohmann/", "Eigen/", "fmt/", "pybind11/")), f"{path.name} includes {name}"
            assert name not in ("ATen/ATen.h", "torch/library.h"), f"{path.name} includes {name}"
            assert not name.startswith("hemostat/") or (HEADERS / Path(name).name).is_file(), f"{path.name}: {name}"


def test_the_umbrella_includes_every_room():
    included = {Path(name).name for name in INCLUDE.findall((HEADERS / "hemostat.h").read_text())}
    assert included >= {path.name for path in HEADERS.glob("*.h")} - {"hemostat.h"}


def test_sources_are_short():
    for path in files(".h", ".cpp", ".cu"):
        lines = len(path.read_text().splitlines())
        assert lines <= 600, f"{path.relative_to(ROOT)} has {lines} lines"


def module_name(path):
    parts = path.relative_to(PYTHON).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, modules):
    """The package's modules that one imports, inside functions and for annotations too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)} imports from {'.' * node.level}{node.module or ''}"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                if full in modules or node.module in modules and full != "hemostat._C":  # that is the extension
                    yield full if full in modules else node.module


def test_python_modules_import_one_another_in_no_circle():
    modules = {module_name(path): path for path in PYTHON.rglob("*.py")}
    graph = {name: set(imports(path, modules)) for name, path in modules.items()}
    assert graph["hemostat.report"] and graph["hemostat._scan"]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" is imported by ".join(circle.args[1]))


def test_the_extension_imports_no_python_module_of_the_package():
    for path in sorted(BINDINGS.glob("*")):
        assert not re.search(r'import\("hemostat', path.read_text()), path.name
