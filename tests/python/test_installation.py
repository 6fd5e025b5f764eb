"""The installed package as others meet it: a C++ program that links it, and the libraries that it needs."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import hemostat
from hemostat import _C

pytestmark = pytest.mark.integration

PACKAGE = Path(hemostat.__file__).parent
LIBRARY = PACKAGE / "lib" / "libhemostat.so"
APP = Path(__file__).parents[2] / "examples" / "cpp_app"


def tool(name: str) -> str:
    """The program of that name beside this interpreter, else on the PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def run(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def configure(build: Path, *definitions: str) -> subprocess.CompletedProcess:
    return run(
        tool("cmake"),
        *("-S", APP, "-B", build, "-G", "Ninja", "-D", f"CMAKE_MAKE_PROGRAM={tool('ninja')}"),
        *("-D", f"CMAKE_PREFIX_PATH={PACKAGE}", "-D", f"Python3_EXECUTABLE={sys.executable}"),
        *(f"-D{definition}" for definition in definitions),
    )


def needed(library: Path) -> list[str]:
    """The shared libraries that `library` asks the loader for."""
    result = run(tool("readelf"), "--dynamic", library)
    return re.findall(r"\(NEEDED\).*\[(.*)\]", result.stdout)


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Path:
    """examples/cpp_app, built against the installed package."""
    build = tmp_path_factory.mktemp("cpp_app")
    for step in (configure(build), run(tool("cmake"), "--build", build)):
        assert step.returncode == 0, step.stdout + step.stderr
    return build / "prune_and_compare"


def test_cpp_program_prunes_a_checkpoint_as_python_does(app, tiny_checkpoint, tmp_path):
    tokens = torch.randint(0, 256, (8, 64), generator=torch.Generator().manual_seed(2))
    file = tmp_path / "tokens.bin"
    file.write_bytes(tokens.numpy().astype(np.dtype("<i8")).tobytes())

    result = run(app, tiny_checkpoint, file, 0.5)

    assert result.returncode == 0, result.stderr
    model = hemostat.Model.load(tiny_checkpoint, dtype=torch.float32)
    calibration, evaluation = tokens[:4], tokens[4:]
    pruned = hemostat.prepare(model, "wanda", hemostat.collect(model, calibration)).at(0.5)
    damage = hemostat.compare(model, pruned, evaluation)
    printed = dict(re.findall(r"^(\w[\w ]*?) +(.*)$", result.stdout, re.MULTILINE))
    before, after = map(float, printed["perplexity"].split(" -> "))
    assert after == pytest.approx(damage.perplexity, rel=1e-4)
    assert before != after
    assert float(printed["agreement"]) == pytest.approx(damage.top1_agreement, abs=1e-4)


def test_cpp_program_says_what_is_wrong_with_its_input(app, tiny_checkpoint, tmp_path):
    result = run(app, tiny_checkpoint, tmp_path / "absent.bin", 0.5)
    assert result.returncode == 1
    assert "absent.bin" in result.stderr


def test_cpp_program_never_loads_python(app):
    libraries = run(tool("ldd"), app).stdout
    assert "libhemostat.so" in libraries
    assert "libtorch_cpu.so" in libraries
    assert "not found" not in libraries
    assert "python" not in re.sub(r"/\S*", "", libraries)


def test_library_needs_no_python():
    libraries = needed(LIBRARY)
    assert "libtorch_cpu.so" in libraries
    assert not [name for name in libraries if "python" in name]


def test_library_and_torch_share_one_openmp_runtime():
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    assert len({path for path in loaded if "libgomp" in path}) == 1


def test_another_torch_is_refused_by_name(tmp_path):
    fake = tmp_path / "torch"
    (fake / "lib").mkdir(parents=True)
    (fake / "lib" / "libtorch_cpu.so").touch()
    header = fake / "include" / "torch" / "headeronly" / "version.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 3\n#define TORCH_VERSION_PATCH 1\n")

    result = configure(tmp_path / "build", f"HEMOSTAT_TORCH_DIR={fake}")

    assert result.returncode != 0
    built_with = ".".join(torch.__version__.split(".")[:2])
    message = " ".join(result.stderr.split())
    assert f"torch {built_with}, the version that this hemostat was built with, was not found" in message
    assert f"torch 2.3.1 in {fake}" in message
    assert f"pip install 'torch=={built_with}.*'" in message


def test_wheel_pins_the_torch_that_it_was_built_with():
    minor = ".".join(torch.__version__.split(".")[:2])
    assert f"torch=={minor}.*" in metadata.requires("hemostat")


def declared(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Functions, classes and annotated names, by name."""
    found = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {ast.unparse(node.target): node for node in body if isinstance(node, ast.AnnAssign)}


def test_types_come_with_the_package():
    """Each module of the extension has a stub where type checkers look, with every function, class and member."""
    assert (PACKAGE / "py.typed").exists()
    modules = {"__init__": _C} | dict(inspect.getmembers(_C, inspect.ismodule))
    assert "prune" in modules
    assert {path.stem for path in (PACKAGE / "_C").iterdir()} == modules.keys()
    for stub, module in modules.items():
        found = declared(ast.parse((PACKAGE / "_C" / f"{stub}.pyi").read_text(encoding="utf-8")).body)
        public = {name: value for name, value in vars(module).items() if not name.startswith("_")}
        public = {name: value for name, value in public.items() if not inspect.ismodule(value)}
        assert public.keys() == {name for name in found if not name.startswith("_")}, stub
        for name, value in public.items():
            assert inspect.isclass(value) == isinstance(found[name], ast.ClassDef), name
            if inspect.isclass(value):
                members = {member for member in vars(value) if not member.startswith("_")}
                assert members <= declared(found[name].body).keys(), name


def test_command_is_installed():
    (command,) = metadata.entry_points(group="console_scripts", name="hemostat")
    assert callable(command.load())
