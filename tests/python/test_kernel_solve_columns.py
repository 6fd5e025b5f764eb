"""torch.ops.hemostat.solve_columns against its definition, operation by operation in float32, to the last bit."""

import os
import subprocess
import sys

import pytest
import torch
from kernel_references import ops, random
from torch.library import opcheck

LEVELS = 8


def arguments(rows, columns, *, mask=None, n=0, m=0, group_size=0, first=0, seed=0):
    """Of a call, by name; `mask` "given" or "chosen"."""
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(rows, columns, generator=generator)
    inverse = torch.randn(columns, columns, generator=generator).mul(0.1).triu(1)
    inverse.diagonal().copy_(torch.rand(columns, generator=generator) + 0.5)
    groups = (first + columns - 1) // group_size + 1 if group_size else 0
    return {
        "current": current,
        "weight": current + torch.randn(rows, columns, generator=generator).mul(0.1),
        "inverse": inverse,
        "mask": None if mask is None else torch.rand(rows, columns, generator=generator) < 0.5,
        "n": n,
        "m": m,
        "scale": torch.rand(rows, groups, generator=generator) + 0.1 if group_size else None,
        "zero": torch.randint(LEVELS, (rows, groups), generator=generator).float() if group_size else None,
        "group_size": group_size or 1,
        "first": first,
        "levels": LEVELS if group_size else 0,
    }


def reference(given):
    w, inverse = given["current"].clone(), given["inverse"]
    diagonal = inverse.diagonal()
    mask = None if given["mask"] is None else given["mask"].clone()
    for j in range(w.shape[1]):
        if given["m"] and j % given["m"] == 0:
            group = slice(j, j + given["m"])
            order = (w[:, group].abs() / diagonal[group]).argsort(dim=1, stable=True)
            mask[:, group] = True
            mask[:, group] = mask[:, group].scatter(1, order[:, : given["m"] - given["n"]], False)
        q = w[:, j] if mask is None else torch.where(mask[:, j], w[:, j], 0.0)
        if given["levels"]:
            group = (given["first"] + j) // given["group_size"]
            scale, zero = given["scale"][:, group], given["zero"][:, group]
            q = (torch.clamp(torch.round(q / scale) + zero, 0, given["levels"] - 1) - zero) * scale
        error = (w[:, j] - q) / diagonal[j]
        w[:, j + 1 :] = w[:, j + 1 :] - error[:, None] * inverse[j, j + 1 :]
        w[:, j] = q
    return w, given["weight"] - w, mask


def call(given, device="cpu", layout=lambda x: x):
    moved = {name: layout(x.to(device)) if isinstance(x, torch.Tensor) else x for name, x in given.items()}
    solution, error = (layout(torch.full_like(moved["current"], 7)) for _ in range(2))
    ops.solve_columns(*moved.values(), solution=solution, error=error)
    return solution.cpu(), error.cpu(), None if moved["mask"] is None else moved["mask"].cpu()


CASES = [
    dict(rows=40, columns=128),
    dict(rows=1, columns=1, mask="given"),
    dict(rows=17, columns=63, mask="given"),
    dict(rows=33, columns=64, mask="chosen", n=2, m=4),
    dict(rows=5, columns=30, mask="chosen", n=1, m=3),
    dict(rows=16, columns=48, mask="chosen", n=4, m=8),
    dict(rows=16, columns=10, mask="chosen", n=1, m=2),
    dict(rows=20, columns=96, group_size=32),
    dict(rows=20, columns=50, group_size=24, first=7),
    dict(rows=20, columns=96, group_size=128, first=32),
    dict(rows=37, columns=50, group_size=1),
    dict(rows=31, columns=64, mask="given", group_size=16),
    dict(rows=31, columns=64, mask="chosen", n=2, m=4, group_size=16),
    dict(rows=3, columns=700, mask="given"),
]


def equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_its_definition(device, case):
    given = arguments(**case)
    found, expected = call(given, device), reference(given)
    if device == "cpu":
        equal(found, expected)
    else:
        torch.testing.assert_close(found[:2], expected[:2])


def test_ties_fall_in_index_order():
    given = arguments(9, 8, mask="chosen", n=2, m=4)
    given["current"] = torch.ones(9, 8)
    given["inverse"] = torch.eye(8)
    _, _, mask = call(given)
    assert (mask == torch.tensor([False, False, True, True]).repeat(2)).all()


def test_rows_of_a_larger_matrix():
    def apart(x):
        if x.dim() < 2:
            return x
        larger = torch.full((x.shape[0], x.shape[1] + 9), 3, dtype=x.dtype)
        larger[:, 4:-5] = x
        return larger[:, 4:-5]

    given = arguments(21, 64, mask="chosen", n=2, m=4, group_size=16)
    equal(call(given, layout=apart), reference(given))


def test_empty():
    for rows, columns in ((0, 8), (4, 0)):
        solution, error, _ = call(arguments(rows, columns))
        assert solution.shape == error.shape == (rows, columns)


def digest():
    return str([float(call(arguments(**case))[0].double().abs().sum()) for case in CASES])


def test_threads_and_instruction_sets_give_the_same_bits():
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_kernel_solve_columns as t; "
        "print(t.digest())"
    )
    found = set()
    for isa in ("baseline", "avx2", "avx512"):
        environment = {**os.environ, "HEMOSTAT_ISA": isa, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        found.add(run.stdout.strip())
    assert found == {digest()}


@pytest.mark.parametrize("case", CASES[2:4] + CASES[7:8], ids=str)
def test_opcheck(device, case):
    given = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in arguments(**case).items()}
    out = {"solution": torch.empty_like(given["current"]), "error": torch.empty_like(given["current"])}
    opcheck(torch.ops.hemostat.solve_columns.default, tuple(given.values()), out)


@pytest.mark.parametrize(
    "change,error,message",
    [
        ({"weight": random(4, 7)}, ValueError, "weight has shape"),
        ({"current": random(4, 8).double()}, TypeError, "current is Double"),
        ({"inverse": random(8, 7)}, ValueError, "inverse has shape"),
        ({"m": 4, "n": 2}, ValueError, "n:m is 2:4"),
        ({"m": 3, "n": 2, "mask": torch.ones(4, 8, dtype=torch.bool)}, ValueError, "divides 8 columns"),
        ({"mask": torch.ones(4, 8)}, TypeError, "mask is Float"),
        ({"levels": 4}, ValueError, "scale and a zero"),
        ({"levels": 4, "group_size": 4, "scale": random(4, 1), "zero": random(4, 2)}, ValueError, "2 groups"),
        ({"weight": random(8, 4).t()}, ValueError, "side by side"),
    ],
)
def test_refuses(change, error, message):
    given = arguments(4, 8) | change
    out = {name: torch.empty(4, 8) for name in ("solution", "error")}
    with pytest.raises(error, match=message):
        ops.solve_columns(*given.values(), **out)
