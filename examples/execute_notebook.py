"""Makes a notebook from its text source and runs it, so that it keeps its outputs.

python examples/execute_notebook.py tour               # examples/notebooks/tour.py → tour.ipynb
WINDOWS=12 python examples/execute_notebook.py tour    # more text, narrower intervals
"""

import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient

for name in sys.argv[1:]:
    source = Path(__file__).parent / "notebooks" / f"{name}.py"
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as elsewhere:  # what the notebook writes stays out of the clone
        nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": elsewhere}}).execute()
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"  # the same after every run
        cell.metadata.pop("execution", None)  # when it ran
    jupytext.write(notebook, source.with_suffix(".ipynb"))
    print(source.with_suffix(".ipynb"))
