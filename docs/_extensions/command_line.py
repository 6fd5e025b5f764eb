"""The command line's own help, command by command.

.. command-line::
"""

from __future__ import annotations

from method_page import Generated


class CommandLine(Generated):
    def markdown(self):
        import typer.main

        from hemostat.cli import app

        group = typer.main.get_command(app)
        lines = []
        for name, command in group.commands.items():
            context = command.make_context(f"hemostat {name}", [], resilient_parsing=True, max_content_width=96)
            lines += [f"## hemostat {name}", "", "```text", command.get_help(context).strip(), "```", ""]
        return lines


def setup(app):
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
