"""What the registry says of a method, and its measured curve, on its page of the catalogue.

.. method-list::               every method of the library, with its page
.. method-facts:: wanda        axis, needs and options, as the registry has them when the page is built
.. method-curve:: wanda        picture and numbers of docs/curves
"""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.util.docutils import SphinxDirective

DOCS = Path(__file__).parents[1]
DATA = DOCS / "curves" / "smollm2.json"


def own_methods():
    import hemostat

    return [method for method in hemostat.methods() if method.kind != "user"]


def code(value) -> str:
    from hemostat._method_page import plain

    return f"`{plain(value)}`"


def table(head: list[str], rows: list[list[str]], align: str = "") -> list[str]:
    """A Markdown table; `align` has l or r for each column."""
    rule = ["--:" if letter == "r" else ":--" for letter in align.ljust(len(head), "l")]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in [head, rule, *rows])
    return ["", *(f"| {line} |" for line in lines), ""]


class Generated(SphinxDirective):
    """A directive whose content is Markdown made here."""

    def run(self):
        return self.parse_text_to_nodes("\n".join(self.markdown()), allow_section_headings=True)

    def markdown(self) -> list[str]:
        raise NotImplementedError


class MethodList(Generated):
    def markdown(self):
        rows = [
            [f"[`{m.name}`]({m.name}.md)", m.kind, m.description, m.axis.name, ", ".join(sorted(m.needs)) or "–"]
            for m in own_methods()
        ]
        return table(["method", "changes", "what it does", "severity", "needs"], rows)


class MethodFacts(Generated):
    required_arguments = 1

    def markdown(self):
        from hemostat._method_page import axis_facts

        method = next(m for m in own_methods() if m.name == self.arguments[0])
        description = method.description[:1].upper() + method.description[1:]
        needs = ", ".join(map(code, sorted(method.needs)))
        facts = [
            ("Changes", method.kind),
            *axis_facts(method.axis),
            ("Needs", f"by default {needs} of calibration text" if needs else "by default no calibration"),
            ("Try it", f"`hemostat scan smollm2 --methods {method.name} --windows 4`"),
        ]
        lines = [f"**{description}.**", *table(["", ""], [[f"**{name}**", value] for name, value in facts])]
        if method.options:
            rows = [[f"`{option.name}`", code(option.default), self.meaning(option)] for option in method.options]
            lines += table(["option", "default", "meaning"], rows)
        return lines

    @staticmethod
    def meaning(option) -> str:
        choices = ", ".join(map(code, option.choices))
        return option.description + (f" ({choices})" if choices else "")


class MethodCurve(Generated):
    required_arguments = 1

    def markdown(self):
        from hemostat.report import interval, number, percent, signed

        self.env.note_dependency(str(DATA))
        name = self.arguments[0]
        kept = json.loads(DATA.read_text(encoding="utf-8"))
        curves = [curve for curve in kept["curves"] if curve["method"] == name]
        if not curves:
            return ["Not measured yet; `make figures` does."]
        floor, reached = kept["baseline"]["noise_floor"], []
        tables, tolerances = [], list(curves[0]["edge"])
        for curve in curves:
            edges = []
            for tolerance in tolerances:
                edge = curve["edge"][tolerance]
                bounds = curve["edge_interval"][tolerance]
                open_end = "or beyond" if curve["edge_censored"][tolerance] else ""
                spread = f"({interval(bounds, lambda value: number(value, 3))})" if bounds else ""
                words = (number(edge, 3) if edge is not None else "–", spread, open_end)
                edges.append(" ".join(filter(None, words)))
            reached.append([f"`{curve['label']}`", *edges])
            rows = [
                [
                    number(point["severity"], 3),
                    number(point["perplexity"]),
                    signed(point["delta_nll"]),
                    interval(point["delta_nll_interval"], signed),
                    number(point["kl"], 3),
                    percent(point["top1_agreement"]),
                ]
                for point in curve["points"]
            ]
            head = [curve["axis"]["name"], "perplexity", "ΔNLL", "95 % interval", "KL", "top-1"]
            tables += [f"`{curve['label']}`", *table(head, rows, "rrrrrr")]
            tables += generation_table(curve)
        return [
            f"![Damage that {name} does to SmolLM2-135M](../curves/{name}.svg)",
            "",
            f"{kept['model']} in {kept['dtype']}, perplexity {number(kept['baseline']['perplexity'])} on "
            f"{kept['windows']} windows of {kept['length']} tokens of {kept['text']}; "
            f"{kept['calibration_windows']} windows of other text for calibration. {kept['protocol']} Bars are 95 % "
            f"intervals by paired bootstrap over windows, so few windows make them wide; hollow points lie within the "
            f"noise floor of {number(floor['delta_nll'], 3)} nats (in {floor['against']}); an arrow is a collapse "
            f"beyond the picture, and a dash a number that is not finite. Made by "
            f"`{kept['command']}` with hemostat {kept['versions']['hemostat']}.",
            "",
            *table(
                ["severity that is estimated to reach a ΔNLL of", *tolerances], reached, "l" + "r" * len(tolerances)
            ),
            *tables,
        ]


def generation_table(curve: dict) -> list[str]:
    """What a curve's models write; nothing for a curve that was measured by teacher forcing alone."""
    from hemostat.report import number
    from hemostat.report._tables import GENERATION

    written = [(point["severity"], point["generation"]) for point in curve["points"] if "generation" in point]
    if not written:
        return []
    rows = [
        [number(severity, 3)]
        + [
            form(each[name]) + (f" ({form(each[baseline])})" if baseline else "")
            for _, name, baseline, form in GENERATION
        ]
        for severity, each in written
    ]
    first = written[0][1]
    head = [curve["axis"]["name"], *(column for column, *_ in GENERATION)]
    return [
        f"`{curve['label']}`, continuations of {first['prompts']} prompts by {first['new_tokens']} tokens; the first "
        "divergence from the unchanged model's in tokens, its own numbers in brackets:",
        *table(head, rows, "r" * len(head)),
    ]


def setup(app):
    for name, directive in {"list": MethodList, "facts": MethodFacts, "curve": MethodCurve}.items():
        app.add_directive(f"method-{name}", directive)
    return {"parallel_read_safe": True}
