"""The notebook is what its text source says, keeps the outputs of a whole run, and runs."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("*.py"))


def cells(path: Path) -> list[tuple[str, str]]:
    jupytext = pytest.importorskip("jupytext", reason="compares notebooks with their text sources")
    return [(cell.cell_type, cell.source.strip()) for cell in jupytext.read(path).cells]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_and_source_agree(source):
    hint = f"run: python examples/execute_notebook.py {source.stem}"
    assert cells(source) == cells(source.with_suffix(".ipynb")), hint


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_keeps_its_outputs(source):
    notebook = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))  # run once, from top to bottom
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs(source, tmp_path, monkeypatch):
    jupytext = pytest.importorskip("jupytext", reason="runs notebooks")
    nbclient = pytest.importorskip("nbclient", reason="runs notebooks")
    pytest.importorskip("ipykernel", reason="runs notebooks")
    monkeypatch.setenv("WINDOWS", "2")
    notebook = jupytext.read(source)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "tour-report.html").stat().st_size > 100_000
