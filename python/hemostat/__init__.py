"""How much a language model bleeds when it is modified, where first, and how to stop it.

Load a model, change it with a method, and compare:

    >>> model = hemostat.Model.load("path/to/checkpoint")                           # doctest: +SKIP
    >>> tokens = hemostat.data.tokens(model, "evaluation.txt")                      # doctest: +SKIP
    >>> damaged = hemostat.prepare(model, "rtn", group_size=64).at(3)               # doctest: +SKIP
    >>> hemostat.compare(model, damaged, tokens).perplexity                         # doctest: +SKIP

``hemostat.methods()`` lists the methods; ``hemostat.scan`` measures many of them and writes a report.
"""

from importlib.metadata import version as _version

import torch  # noqa: F401  its libraries have to be loaded before ours

import hemostat._compatibility  # noqa: F401  and have to be those that ours were compiled against
import hemostat._python_methods  # noqa: F401  gives the extension's classes what is written in Python
from hemostat import (
    ablate,
    context,
    data,
    decode,
    extend,
    huggingface,
    lowrank,
    metrics,
    mitigate,
    noise,
    normalize,
    prune,
    quantize,
    solve,
    structured,
)
from hemostat._baseline import BaselineWarning
from hemostat._C import (
    Axis,
    BaselineEvaluation,
    Composition,
    Damage,
    Decoder,
    GenerationDamage,
    GenerationProtocol,
    GradientStatistics,
    InputStatistics,
    KlSummary,
    KvCache,
    Localization,
    Method,
    MethodSpec,
    Model,
    NoiseFloor,
    NumericalError,
    Observer,
    OptionSpec,
    Prediction,
    Prepared,
    Site,
    Statistics,
    Surface,
    SweepCurve,
    Threshold,
    Trial,
    Zone,
    compose,
    families,
    find_threshold,
    judge,
    methods,
    predict,
    predicted_damage,
    prepare,
)
from hemostat._damage import compare, sweep
from hemostat._generate import Generation, generate
from hemostat._localize import localize
from hemostat._methods import collect, compress, method
from hemostat._scan import scan
from hemostat._surface import surface
from hemostat.report import Report

__version__ = _version("hemostat")

__all__ = [
    "Axis",
    "BaselineEvaluation",
    "BaselineWarning",
    "Composition",
    "Damage",
    "Decoder",
    "Generation",
    "GenerationDamage",
    "GenerationProtocol",
    "GradientStatistics",
    "InputStatistics",
    "KlSummary",
    "KvCache",
    "Localization",
    "Method",
    "MethodSpec",
    "Model",
    "NoiseFloor",
    "NumericalError",
    "Observer",
    "OptionSpec",
    "Prediction",
    "Prepared",
    "Report",
    "Site",
    "Statistics",
    "Surface",
    "SweepCurve",
    "Threshold",
    "Trial",
    "Zone",
    "ablate",
    "collect",
    "compare",
    "compose",
    "compress",
    "context",
    "data",
    "decode",
    "extend",
    "families",
    "find_threshold",
    "generate",
    "huggingface",
    "judge",
    "localize",
    "lowrank",
    "method",
    "methods",
    "metrics",
    "mitigate",
    "noise",
    "normalize",
    "predict",
    "predicted_damage",
    "prepare",
    "prune",
    "quantize",
    "scan",
    "solve",
    "structured",
    "surface",
    "sweep",
]
