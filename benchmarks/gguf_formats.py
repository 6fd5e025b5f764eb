"""llama.cpp's block formats side by side with llama.cpp: time and squared error.

python benchmarks/gguf_formats.py [--runs 5] [--only Q4_K] [--json FILE] [--llama LIBRARY] [--errors]

A copy is y.copy_(x) into memory already touched; ours runs with out=, and packed. Without --llama (the path of a
libggml-base.so) there is no peer. It quantizes with as many threads as torch has, each a part of the rows. Errors are
relative to llama.cpp's. --errors prints only llama.cpp's squared errors on the tensors of tests/python/gguf_tensors.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from timing import medians

import hemostat

sys.path.append(str(Path(__file__).parents[1] / "tests" / "python"))
from gguf_tensors import TYPES, Case, cases, squared_error  # noqa: E402

# ggml's number of each type, and its bytes per weights of a block.
GGML = {
    "Q4_0": (2, 18, 32),
    "Q4_1": (3, 20, 32),
    "Q5_0": (6, 22, 32),
    "Q5_1": (7, 24, 32),
    "Q8_0": (8, 34, 32),
    "Q2_K": (10, 84, 256),
    "Q3_K": (11, 110, 256),
    "Q4_K": (12, 144, 256),
    "Q5_K": (13, 176, 256),
    "Q6_K": (14, 210, 256),
    "IQ4_NL": (20, 18, 32),
}
# Of ours: at most so many copies, or so many times as fast as llama.cpp.
COPIES = {"Q8_0": 3, "Q4_0": 3}
FASTER = {"Q4_K": 4, "Q6_K": 4, "Q5_K": 1, "Q3_K": 1, "Q2_K": 1, "IQ4_NL": 1}


class Llama:
    """ggml_quantize_chunk of a libggml-base."""

    def __init__(self, library: Path) -> None:
        self.quantize_chunk = ctypes.CDLL(str(library)).ggml_quantize_chunk
        self.quantize_chunk.restype = ctypes.c_size_t
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        self.quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, integer, integer, integer, pointer]
        self.pool = ThreadPoolExecutor(torch.get_num_threads())

    def quantize(self, weight: torch.Tensor, type_: str, importance: torch.Tensor | None, out: torch.Tensor) -> None:
        rows, columns = weight.shape
        number = GGML[type_][0]
        parts = torch.get_num_threads()
        cuts = [rows * i // parts for i in range(parts + 1)]
        weights = None if importance is None else importance.data_ptr()

        def part(begin: int, end: int) -> None:
            first = begin * columns
            self.quantize_chunk(number, weight.data_ptr(), out.data_ptr(), first, end - begin, columns, weights)

        list(self.pool.map(part, cuts[:-1], cuts[1:]))

    def rounded(self, case: Case, type_: str) -> torch.Tensor:
        out = empty_blocks(case.weight, type_)
        self.quantize(case.weight, type_, case.importance, out)
        packed = hemostat.quantize.GgufPacked(out, type=type_, in_features=case.weight.shape[1])
        return packed.dequantize()


def empty_blocks(weight: torch.Tensor, type_: str) -> torch.Tensor:
    _, bytes_, weights = GGML[type_]
    return torch.zeros(weight.shape[0], weight.shape[1] // weights * bytes_, dtype=torch.uint8)


def show_errors(llama: Llama) -> None:
    for name, case in cases().items():
        errors = {type_: float(f"{squared_error(case, llama.rounded(case, type_)):.6g}") for type_ in TYPES}
        print(f"    {json.dumps(name)}: {errors},")


def row(type_: str, weight: torch.Tensor, llama: Llama | None, runs: int) -> dict:
    out, blocks = torch.zeros_like(weight), empty_blocks(weight, type_)
    functions = {
        "copy": lambda: out.copy_(weight),
        "ours": lambda: hemostat.quantize.gguf(weight, type=type_, out=out),
        "packed": lambda: hemostat.quantize.gguf(weight, type=type_, packed=True),
    }
    if llama:
        functions["llama.cpp"] = lambda: llama.quantize(weight, type_, None, blocks)
    found = {"type": type_} | {f"{name} ms": 1e3 * seconds for name, seconds in medians(functions, runs=runs).items()}
    if type_ in COPIES:
        found["copies"] = found["ours ms"] / found["copy ms"]
        found["met"] = found["copies"] <= COPIES[type_]
    if llama:
        found["times as fast"] = found["llama.cpp ms"] / found["ours ms"]
        if type_ in FASTER:
            found["met"] = found["times as fast"] >= FASTER[type_]
        for name, case in cases().items():
            rounded = hemostat.quantize.gguf(case.weight, type=type_, importance=case.importance)
            found[f"error, {name}"] = squared_error(case, rounded) / squared_error(case, llama.rounded(case, type_))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="", help="only types whose name contains this")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--llama", type=Path, help="libggml-base.so of a llama.cpp build")
    parser.add_argument("--errors", action="store_true")
    given = parser.parse_args()
    llama = Llama(given.llama) if given.llama else None
    if given.errors:
        if llama is None:
            parser.error("--errors takes --llama")
        show_errors(llama)
        return
    torch.manual_seed(0)
    weight = torch.randn(4096, 4096)
    print(f"4096 x 4096 float32, {torch.get_num_threads()} threads, torch {torch.__version__}")
    rows = []
    for type_ in TYPES:
        if given.only in type_:
            rows.append(row(type_, weight, llama, given.runs))
            print("  ".join(f"{key} {f'{x:.4g}' if isinstance(x, float) else x}" for key, x in rows[-1].items()))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
