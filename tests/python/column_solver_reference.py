"""SparseGPT and GPTQ as their papers state them, in float64: the Cholesky factor of the inverse of the Gram matrix, and
every column's error spread over all columns to come."""

import torch


def inverse_factor(gram, damp):
    """Upper triangular R with R^T R = H^-1, of the damped matrix; and the features that never were active."""
    hessian = gram.double().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    hessian.diagonal().add_(damp * hessian.diagonal().mean())
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True), dead


def grid(weights, levels, symmetric):
    """Scale and zero point of each row."""
    low, high = weights.amin(1, True).clamp(max=0), weights.amax(1, True).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = high == low
    low, high = low.masked_fill(empty, -1), high.masked_fill(empty, 1)
    scale = (high - low) / (levels - 1)
    return scale, torch.full_like(scale, levels // 2) if symmetric else torch.round(-low / scale)


def solved(
    weight,
    gram,
    *,
    sparsity=None,
    pattern=None,
    bits=None,
    group_size=None,
    symmetric=False,
    act_order=False,
    block_size=128,
    damp=0.01,
):
    """The solved weight, and its mask (True = kept)."""
    if act_order:
        diagonal = gram.double().diagonal()
        order = torch.where(diagonal == 0, 1.0, diagonal).argsort(descending=True, stable=True)
        options = dict(sparsity=sparsity, pattern=pattern, bits=bits, group_size=group_size, symmetric=symmetric)
        result, mask = solved(weight[:, order], gram[order][:, order], block_size=block_size, damp=damp, **options)
        back = order.argsort()
        return result[:, back], mask[:, back]
    inverse, dead = inverse_factor(gram, damp)
    w = weight.double().masked_fill(dead, 0)
    rows, columns = w.shape
    mask = torch.ones(rows, columns, dtype=torch.bool)
    n, m = map(int, pattern.split(":")) if pattern else (0, 0)
    levels = round(2**bits) if bits else 0
    group_size = group_size or columns
    result = torch.zeros_like(w)
    scale, zero = grid(w, levels, symmetric) if bits else (None, None)
    for start in range(0, columns, block_size):
        stop = min(start + block_size, columns)
        at_start = w.clone()
        importance = (w[:, start:stop] / inverse.diagonal()[start:stop]).square()
        if sparsity is not None:
            removed = int(sparsity * importance.numel() + 1e-9)
            fallen = importance.flatten().argsort(stable=True)[:removed]
            mask[:, start:stop] = (
                torch.ones(importance.numel(), dtype=torch.bool).index_fill_(0, fallen, False).view(rows, -1)
            )
        for j in range(start, stop):
            if m and j % m == 0:
                now = (w[:, j : j + m] / inverse.diagonal()[j : j + m]).square()
                mask[:, j : j + m].scatter_(1, now.argsort(dim=1, stable=True)[:, : m - n], False)
            if bits and group_size < columns and j % group_size == 0:
                scale, zero = grid(at_start[:, j : j + group_size], levels, symmetric)
            q = w[:, j : j + 1] * mask[:, j : j + 1]
            if bits:
                q = (torch.clamp(torch.round(q / scale) + zero, 0, levels - 1) - zero) * scale
            result[:, j : j + 1] = q
            error = (w[:, j : j + 1] - q) / inverse[j, j]
            w[:, j:] -= error * inverse[j, j:]
    return result, mask
