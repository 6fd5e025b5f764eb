"""What the kernels' tests share: inputs, plain references, and each kernel with a fresh out on the device."""

import torch

import hemostat  # noqa: F401  loads the operators

ops = torch.ops.hemostat
FORMATS = ["nf4", "fp4", "fp8_e4m3", "fp8_e5m2", "mxfp4", "nvfp4", "ternary"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (1, 9), (5, 1), (3, 16), (7, 100), (33, 1500), (4, 4096), (2, 9000)]
DIVERGENCE = [
    "nll_baseline",
    "nll_damaged",
    "kl",
    "kl_reverse",
    "entropy_baseline",
    "entropy_damaged",
    "confidence_baseline",
    "confidence_damaged",
    "top1_baseline",
    "top1_damaged",
    "top5_overlap",
    "acceptance",
]


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def scores(kind, shape, seed=0):
    """Scores of which a selection could get something wrong."""
    score = random(*shape, seed=seed)
    if kind == "ties":
        return (score * 2).round() / 2
    if kind == "half of them zero":
        return score * (random(*shape, seed=seed + 1) > 0)
    if kind == "signed zeros":
        return torch.where(score > 0, 0.0, -0.0)
    if kind == "constant":
        return torch.full(shape, -0.3)
    if kind == "infinite":
        score = score**7
        score.view(-1)[0], score.view(-1)[-1] = float("inf"), -float("inf")
        return score
    if kind == "sorted":
        return score.view(-1).sort().values.view(shape)
    assert kind == "normal"
    return score


KINDS = ["normal", "ties", "half of them zero", "signed zeros", "constant", "infinite", "sorted"]


# What the contract says, by a stable sort.


def ranked(score, column_scale, per_row, absolute):
    values = score.float()
    if absolute:
        values = values.abs()
    if column_scale is not None:
        values = values * column_scale
    values = values + 0.0  # −0 is 0
    values = values if per_row else values.reshape(1, -1)
    return values, torch.sort(values, dim=1, stable=True).indices


def reference_mask(score, column_scale, removed, per_row, absolute):
    values, order = ranked(score, column_scale, per_row, absolute)
    mask = torch.ones(values.shape, dtype=torch.bool)
    return mask.scatter_(1, order[:, :removed], False).reshape(score.shape)


def reference_pattern(score, column_scale, n, m, absolute):
    values, _ = ranked(score, column_scale, True, absolute)
    return reference_mask(values.reshape(-1, m), None, m - n, True, False).reshape(score.shape)


def reference_kept_until(score, column_scale, per_row, absolute, dtype):
    values, order = ranked(score, column_scale, per_row, absolute)
    entries = values.shape[1]
    falls = (torch.arange(1, entries + 1, dtype=dtype) / entries).expand(values.shape)
    return torch.empty(values.shape, dtype=dtype).scatter_(1, order, falls).reshape(score.shape)


def reference_quantize(weight, levels, group_size, symmetric):
    """Codes, scale and zero of every group, and the dequantized float32 weight."""
    groups = weight.float().reshape(1, 1, -1) if group_size == 0 else weight.float().unflatten(1, (-1, group_size))
    highest = groups.amax(-1, keepdim=True).clamp(min=0)
    lowest = groups.amin(-1, keepdim=True).clamp(max=0)
    if symmetric:
        amax = torch.maximum(highest, -lowest)
        amax[amax == 0] = 1
        scale = 2 * amax / (levels - 1)
        zero = torch.full_like(scale, levels // 2)
    else:
        empty = (highest == 0) & (lowest == 0)
        highest[empty], lowest[empty] = 1, -1
        scale = (highest - lowest) / (levels - 1)
        zero = torch.round(-lowest / scale)
    codes = torch.clamp(torch.round(groups / scale) + zero, 0, levels - 1)
    values = (codes - zero) * scale
    return codes.reshape(weight.shape), scale.squeeze(-1), zero.squeeze(-1), values.reshape(weight.shape)


def reference_divergence(baseline, damaged, targets, scale):
    """In float64. A logit of −Inf has no mass, and adds nothing."""
    a = baseline.double()
    b = damaged.double() * scale
    log_p, log_q = a.log_softmax(1), b.log_softmax(1)
    p, q = log_p.exp(), log_q.exp()

    def expectation(mass, value):
        return torch.where(mass > 0, mass * value, 0.0).sum(1)

    k = min(5, a.shape[1])
    top_a = torch.sort(baseline, dim=1, descending=True, stable=True).indices[:, :k]
    top_b = torch.sort(damaged, dim=1, descending=True, stable=True).indices[:, :k]
    return [
        -log_p.gather(1, targets[:, None])[:, 0],
        -log_q.gather(1, targets[:, None])[:, 0],
        expectation(p, log_p - log_q),
        expectation(q, log_q - log_p),
        -expectation(p, log_p),
        -expectation(q, log_q),
        p.amax(1),
        q.amax(1),
        top_a[:, 0],
        top_b[:, 0],
        (top_a[:, :, None] == top_b[:, None, :]).sum((1, 2)).double() / k,
        torch.minimum(p, q).sum(1),
    ]


# The operators, with a fresh out on the device and the results on the CPU. Every bool that they write is 0 or 1.


def mask_smallest(device, score, column_scale, removed, per_row, absolute):
    out = torch.full(score.shape, True, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    invalid = ops.mask_smallest(score.to(device), scale, removed, per_row, absolute, out=out)
    assert invalid.dtype == torch.int64 and invalid.shape == () and invalid.device == out.device and invalid == 0
    assert out.view(torch.uint8).max() <= 1
    return out.cpu()


def mask_pattern(device, score, column_scale, n, m, absolute):
    out = torch.full(score.shape, True, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    assert ops.mask_pattern(score.to(device), scale, n, m, absolute, out=out) == 0
    return out.cpu()


def kept_until(device, score, column_scale, per_row, absolute, dtype):
    out = torch.full(score.shape, -1, dtype=dtype, device=device)
    scale = None if column_scale is None else column_scale.to(device)
    assert ops.kept_until(score.to(device), scale, per_row, absolute, out=out) == 0
    return out.cpu()


def fake_quantize(device, weight, levels, group_size, symmetric):
    out = torch.full(weight.shape, -1, dtype=weight.dtype, device=device)
    assert ops.fake_quantize(weight.to(device), levels, group_size, symmetric, out=out) == 0
    return out.cpu()


def divergence(device, baseline, damaged, targets, scale=1.0):
    found = ops.divergence(baseline.to(device), damaged.to(device), targets.to(device), scale)
    return [tensor.cpu() for tensor in found]


GOLDEN, MASK = 0x9E3779B97F4A7C15, 2**64 - 1


def mixed(x):
    """splitmix64's finalizer."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def reference_draws(bits, seed):
    """The uniform draw of each bit of a tensor's memory, by walking down each group's whole tree of survivals."""
    draws, key = [], mixed((seed + GOLDEN) & MASK)

    def unit(hashed):
        return ((hashed >> 11) + 1) * 2.0**-53

    for index in range((bits + 511) // 512):
        group = mixed((key + (index + 1) * GOLDEN) & MASK)
        survival = {1: unit(group)}
        for node in range(1, 512):
            hashed = mixed((group + node * GOLDEN) & MASK)
            root, smallest = survival[node] ** 0.5, hashed & 1
            survival[2 * node + smallest] = root
            survival[2 * node + 1 - smallest] = root * unit(hashed)
        draws += [1 - survival[512 + bit] for bit in range(512)]
    return torch.tensor(draws[:bits], dtype=torch.float64)


def bits_of(tensor):
    """Of each element's memory, lowest bit first: bool [elements, bits]."""
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    bits = (data[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.bool().view(tensor.numel(), 8 * tensor.element_size())
