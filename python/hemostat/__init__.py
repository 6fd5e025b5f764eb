"""How much a language model bleeds when it is modified, where first, and how to stop it."""

import torch  # noqa: F401  its libraries have to be loaded before ours

from hemostat import _C  # noqa: F401
