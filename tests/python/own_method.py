"""The text of a module with a method of one's own, which does something at each severity first."""

MINE = """\
import hemostat


@hemostat.method("mine", axis=hemostat.Axis(name="x", default_grid=[0.25, 0.5]))
def mine(model, statistics):
    def at(severity):
        {line}
        return model.replace({{name: weight * (1 - severity) for name, weight in model.linears()}})

    return at
"""
