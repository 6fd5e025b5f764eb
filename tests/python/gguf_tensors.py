"""Weights on which quantizers to GGUF blocks are compared, and what llama.cpp's own err on them."""

from typing import NamedTuple

import torch

TYPES = ("Q8_0", "Q6_K", "Q5_1", "Q5_K", "Q5_0", "Q4_1", "Q4_K", "Q4_0", "IQ4_NL", "Q3_K", "Q2_K")


class Case(NamedTuple):
    weight: torch.Tensor  # float32 [64, 1024]
    importance: torch.Tensor | None  # float32 [1024]


def cases() -> dict[str, Case]:
    """Normal and heavy-tailed weights, with errors that count alike or by an importance."""
    generator = torch.Generator().manual_seed(0)
    normal, other = (torch.randn(64, 1024, generator=generator) for _ in range(2))
    importance = (1.5 * torch.randn(1024, generator=generator)).exp()
    normal, heavy = 0.02 * normal, 0.02 * normal * other.square()
    return {
        "normal": Case(normal, None),
        "heavy": Case(heavy, None),
        "normal, importance": Case(normal, importance),
        "heavy, importance": Case(heavy, importance),
    }


def squared_error(case: Case, rounded: torch.Tensor) -> float:
    """Σ importance · error² in float64."""
    squares = (rounded.double() - case.weight.double()).square()
    return float((squares if case.importance is None else squares * case.importance.double()).sum())


# squared_error of ggml_quantize_chunk of llama.cpp, commit 0c1e57098, compiled by gcc 12 -O3 -march=native. To measure
# them again: python benchmarks/gguf_formats.py --llama libggml-base.so --errors
LLAMA_COMMIT = "0c1e57098"
LLAMA_ERRORS = {
    "normal": {
        "Q8_0": 0.000742168,
        "Q6_K": 0.00820409,
        "Q5_1": 0.0374199,
        "Q5_K": 0.0339045,
        "Q5_0": 0.047626,
        "Q4_1": 0.160208,
        "Q4_K": 0.133857,
        "Q4_0": 0.19181,
        "IQ4_NL": 0.151087,
        "Q3_K": 0.591644,
        "Q2_K": 2.31025,
    },
    "heavy": {
        "Q8_0": 0.00630957,
        "Q6_K": 0.0523512,
        "Q5_1": 0.23341,
        "Q5_K": 0.202621,
        "Q5_0": 0.320368,
        "Q4_1": 0.995666,
        "Q4_K": 0.708645,
        "Q4_0": 1.09235,
        "IQ4_NL": 0.729178,
        "Q3_K": 2.15719,
        "Q2_K": 11.9166,
    },
    "normal, importance": {
        "Q8_0": 0.00225107,
        "Q6_K": 0.0178556,
        "Q5_1": 0.0597683,
        "Q5_K": 0.0718194,
        "Q5_0": 0.10345,
        "Q4_1": 0.254356,
        "Q4_K": 0.263455,
        "Q4_0": 0.418048,
        "IQ4_NL": 0.332017,
        "Q3_K": 1.20371,
        "Q2_K": 3.34859,
    },
    "heavy, importance": {
        "Q8_0": 0.0190902,
        "Q6_K": 0.135581,
        "Q5_1": 0.373092,
        "Q5_K": 0.491615,
        "Q5_0": 0.825329,
        "Q4_1": 1.43749,
        "Q4_K": 1.59364,
        "Q4_0": 2.67182,
        "IQ4_NL": 1.68642,
        "Q3_K": 4.80409,
        "Q2_K": 12.8621,
    },
}
