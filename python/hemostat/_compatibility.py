"""Refuses a torch that the extension was not compiled against, before the loader stumbles over a symbol.

LibTorch's C++ interface changes with every minor version. A loader's message names a mangled function, if it fails at
all; this one names both versions and what to do.
"""

import torch

from hemostat._built_with import CUDA, TORCH


def minor(version: str) -> str:
    """X.Y of X.Y.Z."""
    return ".".join(version.split(".")[:2])


if minor(torch.__version__) != minor(TORCH):
    raise ImportError(
        f"hemostat was compiled against torch {TORCH}, but torch {torch.__version__} is installed, and LibTorch's "
        f"interface changes with every minor version; run: pip install 'torch=={minor(TORCH)}.*', or install hemostat "
        "again, to be compiled against this one"
    )
if CUDA and torch.version.cuda is None:
    raise ImportError(
        f"hemostat was compiled with CUDA kernels, but torch {torch.__version__} is without CUDA; install a torch that "
        "has it, or hemostat again, without CUDA kernels: pip install --config-settings cmake.define.HEMOSTAT_CUDA=OFF"
    )
