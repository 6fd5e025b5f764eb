"""The wheel's dependencies, for scikit-build-core: `others` as they stand, and torch at the X.Y compiled against.

LibTorch's C++ interface changes with every minor version, so a wheel fits one. A source distribution fits all of them.
"""

from importlib.metadata import version

_build_state = ""


def build_state(build_state):
    global _build_state
    _build_state = build_state


def dynamic_metadata(settings, project):
    torch = "torch" + settings["torch"]
    if _build_state != "sdist":
        torch = "torch=={}.{}.*".format(*version("torch").split(".")[:2])
    return {"dependencies": [torch, *settings["others"]]}


def dynamic_wheel(settings):
    return {"dependencies": True}
