"""A notebook as a page, with the outputs that it keeps.

.. notebook:: ../examples/notebooks/tour.ipynb
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Notebook(SphinxDirective):
    """Markdown cells as they are, code cells with their text and pictures below them."""

    required_arguments = 1

    def run(self):
        path = (Path(self.env.doc2path(self.env.docname)).parent / self.arguments[0]).resolve()
        self.env.note_dependency(str(path))
        container = nodes.section()
        container.document = self.state.document
        lines: list[str] = []
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                lines += [*source.splitlines(), ""]
                continue
            if source.strip():
                lines += ["```python", *source.splitlines(), "```", ""]
            for output in cell["outputs"]:
                lines += self.output(output)
        self.state.nested_parse(StringList(lines, str(path)), self.content_offset, container, match_titles=True)
        return container.children

    def output(self, output: dict) -> list[str]:
        data = output.get("data", {})
        if "image/png" in data:
            content = base64.b64decode(data["image/png"])
            images = Path(self.env.app.outdir) / "_images"
            images.mkdir(exist_ok=True)
            name = f"notebook-{hashlib.sha256(content).hexdigest()[:16]}.png"
            (images / name).write_bytes(content)
            label = "".join(data.get("text/plain", "a picture"))
            return ["```{raw} html", f'<p><img src="_images/{name}" alt="{label}"></p>', "```", ""]
        text = "".join(output.get("text", data.get("text/plain", "")))
        return ["```text", *text.rstrip("\n").splitlines(), "```", ""] if text.strip() else []


def setup(app):
    app.add_directive("notebook", Notebook)
    return {"parallel_read_safe": True}
