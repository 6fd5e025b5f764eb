"""SparseGPT and GPTQ as their papers state them, in float64: the Cholesky factor of the inverse of the Gram matrix, and
every column's error spread over all columns to come.

Where two choices are within rounding of a tie, float32 may take either, and all later columns of that row take up
another error. So a result is not compared with another one, but walked along: each of its choices is held against what
the paper chooses after the same choices before."""

from typing import NamedTuple

import torch


class Departures(NamedTuple):
    """How far the worst choice of a result is from the paper's."""

    choice: float  # by what share a weight that fell outranks one that was kept
    code: float  # by how many steps of its grid a code is farther from the weight than the nearest
    value: float  # of the largest weight: how far what is kept is from what it should be, or from a step of its grid


def inverse_factor(gram, damp):
    """Upper triangular R with R^T R = H^-1, of the damped matrix; and the features that never were active."""
    hessian = gram.double().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True), dead


def grid(weights, levels, symmetric):
    """Scale of each row, and its zero point before that is rounded."""
    low, high = weights.amin(1, True).clamp(max=0), weights.amax(1, True).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = high == low
    low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
    scale = (high - low) / (levels - 1)
    return scale, torch.full_like(scale, levels // 2) if symmetric else -low / scale


def outranked(importance, mask):
    """In the worst row, by what share the largest importance that fell exceeds the least that was kept."""
    fallen = importance.masked_fill(mask, 0).amax(1)
    kept = importance.masked_fill(~mask, torch.inf).amin(1)
    return float(torch.where(fallen > kept, fallen / kept - 1, 0).max())


def code_departures(weights, chosen, scale, zero, levels, rounding):
    """Steps of the grid by which each chosen value is farther from its weight than the nearest in range.

    rounding: a zero point this close to a tie may have fallen to either side.
    """
    position, code = weights / scale, chosen / scale
    nearest = [
        torch.minimum(torch.maximum(position.round(), -point), levels - 1 - point)
        for point in ((zero - rounding).round(), (zero + rounding).round())
    ]
    return torch.stack([(position - code).abs() - (position - best).abs() for best in nearest]).amin(0)


def departures(
    weight,
    gram,
    result,
    mask=None,
    *,
    sparsity=None,
    pattern=None,
    bits=None,
    group_size=None,
    symmetric=False,
    act_order=False,
    static_groups=False,
    block_size=128,
    damp=0.01,
    rounding=1e-3,
):
    """How far a solved weight, and its mask (True = kept), depart from the papers; and as many fall as should.

    static_groups: as in the authors' code of GPTQ, groups of columns as they are, and their ranges before the first.
    """
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    order = torch.arange(weight.shape[1])
    if act_order:
        diagonal = gram.double().diagonal()
        order = torch.where(diagonal == 0, 1.0, diagonal).argsort(descending=True, stable=True)
        weight, result, mask, gram = weight[:, order], result[:, order], mask[:, order], gram[order][:, order]
    inverse, dead = inverse_factor(gram, damp)
    w, result = weight.double().masked_fill(dead, 0), result.double()
    columns, largest = w.shape[1], float(w.abs().max())
    n, m = map(int, pattern.split(":")) if pattern else (0, 0)
    levels = round(2**bits) if bits else 0
    group_size = group_size or columns
    group, before = order // group_size, w.clone()
    scale, zero = grid(w, levels, symmetric) if bits else (None, None)
    worst = Departures(0, 0, 0)
    for start in range(0, columns, block_size):
        block = slice(start, min(start + block_size, columns))
        at_start = w.clone()
        if sparsity is not None:
            importance = (w[:, block] / inverse.diagonal()[block]).square()
            assert (~mask[:, block]).sum() == int(sparsity * importance.numel() + 1e-9)
            share = outranked(importance.view(1, -1), mask[:, block].reshape(1, -1))
            worst = worst._replace(choice=max(worst.choice, share))
        for j in range(block.start, block.stop):
            if m and j % m == 0:
                group = slice(j, j + m)
                assert (mask[:, group].sum(1) == n).all()
                share = outranked((w[:, group] / inverse.diagonal()[group]).square(), mask[:, group])
                worst = worst._replace(choice=max(worst.choice, share))
            if bits and static_groups:
                scale, zero = grid(before[:, group == group[j]], levels, symmetric)
            elif bits and group_size < columns and j % group_size == 0:
                scale, zero = grid(at_start[:, j : j + group_size], levels, symmetric)
            now, chosen, kept = w[:, j : j + 1], result[:, j : j + 1], mask[:, j : j + 1]
            assert (chosen[~kept] == 0).all()
            if bits:
                on_grid = (chosen / scale).round() * scale
                steps = code_departures(now, on_grid, scale, zero, levels, rounding)[kept]
                worst = worst._replace(code=max([worst.code, *steps.tolist()]))
            else:
                on_grid = now * kept
            distance = float((chosen - on_grid).abs().max()) / largest
            worst = worst._replace(value=max(worst.value, distance))
            error = (now - on_grid) / inverse[j, j]
            w[:, j:] -= error * inverse[j, j:]
    return worst
