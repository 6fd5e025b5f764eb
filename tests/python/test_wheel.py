"""The wheel in a fresh environment: nothing is there but torch and what else it declares to depend on."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "wheel"
SOURCE = ROOT / "python" / "hemostat"


def run(*command: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def succeed(*command: object, **options) -> str:
    result = run(*command, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def link_requirements(requirements: list[str], site: Path) -> set[str]:
    """Links what the requirements, and theirs in turn, installed here. → the distributions' names"""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        distribution = metadata.distribution(name)
        assert distribution.version in requirement.specifier, f"{requirement}, but here is {distribution.version}"
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))
        waiting += map(Requirement, distribution.requires or [])
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """What `pip wheel .` builds, from the objects that lie in build/wheel."""
    if not (BUILD / "CMakeCache.txt").exists():
        pytest.skip("nothing was built in build/wheel")
    directory = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-build-isolation", "--no-deps")
    succeed("flock", f"{BUILD}.lock", *pip, "--config-settings", f"build-dir={BUILD}", "--wheel-dir", directory, ROOT)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and its dependencies."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, symlinks=True)
    (site,) = directory.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist")
    linked = link_requirements([text for text in requirements if "extra ==" not in text], site)
    assert "torch" in linked and not {"pytest", "transformers", "scipy"} & linked
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", directory / "bin" / "python")
    succeed(*pip, "install", "--no-deps", "--no-index", wheel)
    return directory


def python(environment: Path, code: str, **variables: str) -> subprocess.CompletedProcess:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return run(environment / "bin" / "python", "-c", code, cwd=environment, env=kept | variables)


def test_everything_is_inside(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    sources = {
        f"hemostat/{path.relative_to(SOURCE)}"
        for path in SOURCE.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.relative_to(SOURCE).parts[0] not in ("lib", "include")
    }
    headers = {f"hemostat/include/hemostat/{path.name}" for path in (ROOT / "cpp" / "include" / "hemostat").glob("*.h")}
    package = "hemostat/lib/cmake/hemostat/"
    assert sources <= inside, sources - inside
    assert headers <= inside
    assert {"hemostat/py.typed", "hemostat/_built_with.py", "hemostat/lib/libhemostat.so"} <= inside
    assert {"hemostat/_C/__init__.pyi", "hemostat/_C/prune.pyi"} <= inside  # which type checkers read for the extension
    assert {f"{package}hemostatConfig.cmake", f"{package}TorchWheel.cmake"} <= inside
    assert [name for name in inside if name.endswith("licenses/LICENSE")]
    # Neither tests, benchmarks nor anything beside the package.
    assert {name.split("/")[0] for name in inside} == {
        "hemostat",
        next(n for n in inside if "dist-info" in n).split("/")[0],
    }
    assert sorted(name for name in inside if ".so" in name) == sorted(
        ["hemostat/lib/libhemostat.so", *(name for name in inside if re.match(r"hemostat/_C\.[^/]*\.so$", name))]
    )


def test_python_uses_it(environment):
    result = python(
        environment,
        "import hemostat, torch; print(hemostat.__file__);"
        "print(hemostat.prune.magnitude(torch.tensor([[3.0, -1, 2, 4]]), pattern='2:4').tolist());"
        "print(len(hemostat.methods()) > 5)",
    )
    assert result.returncode == 0, result.stderr
    file, mask, methods = result.stdout.splitlines()
    assert Path(file).is_relative_to(environment)
    assert mask == "[[True, False, False, True]]"
    assert methods == "True"


def test_its_command_changes_a_checkpoint(environment, tiny_checkpoint, tmp_path):
    command = environment / "bin" / "hemostat"
    assert "magnitude" in succeed(command, "methods")
    succeed(
        *(command, "apply", tiny_checkpoint, "--method", "magnitude", "--severity", 0.5),
        *("--out", tmp_path / "pruned"),
    )
    assert (tmp_path / "pruned" / "model.safetensors").is_file()


def test_cmake_finds_it(environment, tmp_path):
    """As it finds what `cmake --install` installed; test_installation.py builds a program with it."""
    prefix = python(environment, "import hemostat; print(hemostat.__path__[0])").stdout.strip()
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.25)\nproject(finds LANGUAGES CXX)\nfind_package(hemostat CONFIG REQUIRED)\n"
        "get_target_property(library hemostat::hemostat IMPORTED_LOCATION_RELEASE)\n"
        'message(STATUS "library ${library} torch ${HEMOSTAT_TORCH_DIR}")\n'
    )
    cmake = Path(sys.executable).parent / "cmake"
    output = succeed(
        *(cmake if cmake.exists() else "cmake", "-S", tmp_path, "-B", tmp_path / "build"),
        *("-D", f"CMAKE_PREFIX_PATH={prefix}", "-D", "Python3_EXECUTABLE=none"),
    )
    library, found = re.search(r"library (\S+) torch (\S+)", output).groups()
    assert Path(library).resolve() == Path(prefix, "lib", "libhemostat.so").resolve()
    assert Path(found).resolve() == Path(torch.__file__).parent.resolve()


@pytest.mark.parametrize(
    ("version", "cuda", "said"),
    [
        (
            "2.3.1",
            "12.1",
            r"compiled against torch {built}, but torch 2\.3\.1 is installed.*pip install 'torch=={minor}\.\*'",
        ),
        ("99.0.0a0+git", "13.0", r"compiled against torch {built}, but torch 99\.0\.0a0\+git is installed"),
    ],
)
def test_another_torch_gets_a_sentence(environment, tmp_path, version, cuda, said):
    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "__init__.py").write_text(f"__version__ = {version!r}\nclass version: cuda = {cuda!r}\n")
    result = python(environment, "import hemostat", PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    *_, message = result.stderr.strip().splitlines()
    built = torch.__version__.split("+")[0]
    expected = said.format(built=re.escape(built), minor=re.escape(".".join(built.split(".")[:2])))
    assert re.match(r"ImportError: hemostat was " + expected, message), message


def test_a_torch_without_cuda_gets_a_sentence(environment, tmp_path):
    fake = tmp_path / "torch"
    fake.mkdir()
    (fake / "__init__.py").write_text(f"__version__ = {torch.__version__!r}\nclass version: cuda = None\n")
    (built_with,) = environment.glob("lib/python*/site-packages/hemostat/_built_with.py")
    if "CUDA = True" not in built_with.read_text():
        pytest.skip("this wheel has no CUDA kernels")
    result = python(environment, "import hemostat", PYTHONPATH=str(tmp_path))
    assert "hemostat was compiled with CUDA kernels" in result.stderr


def test_importing_it_imports_nothing_that_torch_does_not(environment):
    """What the methods, the command line and the reports need is imported when they need it."""
    result = python(
        environment,
        "import sys, torch; before = set(sys.modules); import hemostat;"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["hemostat"]
