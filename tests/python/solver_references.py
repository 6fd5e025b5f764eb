"""What solvers of pruning and quantization are held against: the papers' formulas in float64, step by step."""

import torch


def correlated_gram(features, tokens=400, seed=0):
    """XᵀX / tokens of inputs that have a few loud features, and directions that are shared."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator) * 0.9 ** torch.arange(features)
    loudness = torch.randn(features, generator=generator).exp()
    x = (torch.randn(tokens, features, generator=generator) @ mixing.T + 0.3) * loudness
    return x, (x.T @ x / tokens).float()


def output_error(weight, changed, gram):
    """tr(E gram Eᵀ): the mean squared change of the outputs, summed over them."""
    change = changed.double() - weight.double()
    return float((change @ gram.double() * change).sum())


def smallest_fall(score, removed):
    """Mask of a vector of scores: the `removed` smallest fall, ties in index order."""
    mask = torch.ones(score.numel(), dtype=torch.bool)
    mask[torch.sort(score.flatten(), stable=True).indices[:removed]] = False
    return mask


def admm(weight, gram, removed, *, pattern=None, scope="tensor", damp=0.1, iterations=20, relaxation=1.7):
    """Boža 2024, algorithm 1 with gradual pruning, on columns as there, over-relaxed (Boyd et al. 2011, section 3.4.3):
    the weight, its mask, and the least share by which two weights differed of which one was chosen.

    removed: a share of the scope's weights, or with pattern=(n, m) not read.
    """
    closest = torch.inf

    def least_fall(score, removed):
        nonlocal closest
        ranked = score.flatten().sort().values
        if 0 < removed < len(ranked):
            above = ranked[ranked > ranked[removed - 1]]  # equal ones fall in index order, on any machine
            if len(above) and above[0] < torch.inf:
                closest = min(closest, float(1 - ranked[removed - 1] / above[0]))
        return smallest_fall(score, removed)

    x = gram.double()
    norm = x.diagonal().sqrt()
    x = x / norm / norm[:, None]
    w = (weight.double() * norm).T
    x = x + damp * x.diagonal().mean() * torch.eye(len(x), dtype=torch.float64)
    target = x @ w
    inverse = torch.linalg.inv(x + torch.eye(len(x), dtype=torch.float64))

    def chosen(score, share):
        rows = score.T  # [out, in]
        if pattern:
            n, m = pattern
            groups = rows.reshape(-1, m)
            kept = torch.stack([least_fall(group, m - n) for group in groups])
            score = torch.where(kept, torch.inf, groups)
            return least_fall(score, int(share * (rows.numel() // m * (m - n)))).view(rows.shape).T
        if scope == "row":
            return torch.stack([least_fall(row, int(share * int(removed * row.numel()))) for row in rows]).T
        return least_fall(rows, int(share * int(removed * rows.numel()))).view(rows.shape).T

    choosing, falling = iterations * 3 // 4, max(1, iterations // 4)
    u = torch.zeros_like(w)
    mask = chosen(w.abs(), 1) if choosing == 0 else None
    for step in range(iterations):
        if step < choosing:
            mask = chosen((w + u).abs(), 1 - max(0, 1 - (step + 1) / falling) ** 3)
        z = (w + u) * mask
        u = u + w - z
        w = relaxation * (inverse @ (target + z - u)) + (1 - relaxation) * z
    return ((w + u) * mask).T / norm, mask.T, closest


def authors_admm(weight, gram, sparsity):
    """The authors' code for whole matrices: every iteration ranks at the final sparsity, and nothing is relaxed."""
    x = gram.double()
    norm = x.diagonal().sqrt() + 1e-8
    x = x / norm / norm[:, None] + 0.1 * torch.eye(len(x), dtype=torch.float64)
    w = (weight.double() * norm).T
    target = x @ w
    inverse = torch.linalg.inv(x + torch.eye(len(x), dtype=torch.float64))
    u = torch.zeros_like(w)
    for step in range(20):
        if step < 15:
            mask = smallest_fall((w + u).abs(), int(w.numel() * sparsity)).view(w.shape)
        z = (w + u) * mask
        u = u + w - z
        w = inverse @ (target + z - u)
    return ((w + u) * mask).T / norm


def least_squares(weight, gram, mask, damp=0.0):
    """The kept weights with the least output error that the mask allows, row by row."""
    x = gram.double() + damp * gram.double().diagonal().diag()
    result = torch.zeros_like(weight, dtype=torch.float64)
    for row in range(len(weight)):
        kept = mask[row]
        if kept.any():
            result[row, kept] = torch.linalg.solve(x[kept][:, kept], x[kept] @ weight[row].double())
    return result


def dsnot(weight, mask, mean, norm, *, pattern=None, max_cycles=50, threshold=0.1 / 2048):
    """Zhang et al. 2024, row by row: lists of candidates, one swap a cycle."""
    result = mask.clone()
    contribution = weight.double() * mean.double()
    variance = (norm.double() ** 2 - mean.double() ** 2).clamp_min(torch.finfo(torch.float32).tiny)
    score = weight.double().abs() * norm.double()
    for row in range(len(weight)):
        c, s = contribution[row].tolist(), score[row].tolist()
        removed = [j for j in range(len(c)) if not mask[row, j]]
        kept = [j for j in range(len(c)) if mask[row, j]]
        error = sum(c[j] for j in removed)
        growing = {
            sign: sorted((j for j in removed if c[j] * sign > 0), key=lambda j: -abs(c[j]) / float(variance[j]))
            for sign in (1, -1)
        }
        falling = {sign: sorted((j for j in kept if c[j] * sign > 0), key=lambda j: s[j]) for sign in (1, -1)}
        for _ in range(max_cycles):
            if abs(error) <= threshold:
                break
            sign = 1 if error > 0 else -1
            if not growing[sign]:
                break
            grown = growing[sign].pop(0)
            if pattern:
                m = pattern[1]
                group = [j for j in kept if j // m == grown // m]
                if not group:
                    break
                fallen = min(group, key=lambda j: s[j])
                if (error + c[fallen] - c[grown]) * sign <= 0:
                    break
                kept.remove(fallen)
            else:
                if not falling[-sign]:
                    break
                fallen = falling[-sign].pop(0)
            error += c[fallen] - c[grown]
            result[row, grown], result[row, fallen] = True, False
    return result


def pseudo_quantize(weight, bits, group_size, aside=(0.0, 0.0)):
    """The asymmetric quantizer of AWQ's authors, whose range need not hold 0.

    aside: moves what is rounded to the zero points and to the codes, which decides where they lie at a tie.
    """
    groups = weight.reshape(-1, group_size)
    high, low = groups.amax(1, keepdim=True), groups.amin(1, keepdim=True)
    most = 2**bits - 1
    scale = (high - low).clamp(min=1e-5) / most
    zero = (-torch.round(low / scale + aside[0])).clamp(0, most)
    codes = torch.clamp(torch.round(groups / scale + aside[1]) + zero, 0, most)
    return ((codes - zero) * scale).view(weight.shape)


def awq_scales(weights, x, bits, group_size):
    """Lin et al. 2024: the scales that are searched, and the error of the outputs on inputs x with each."""
    loud = x.abs().mean(0)
    errors, scales = [], []
    for step in range(20):
        scale = loud.pow(step / 20).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        changed = [pseudo_quantize(weight * scale, bits, group_size) / scale for weight in weights]
        errors.append(
            sum(float((x @ (new - old).T).square().sum()) for new, old in zip(changed, weights, strict=True)) / len(x)
        )
        scales.append(scale)
    return scales, errors


def awq_clip(scaled, x, bits, group_size):
    """The authors' clip of a scaled weight on the inputs x of it, [out, groups]: the largest magnitudes, and the error
    that none exceeds who takes the best of the clips, whichever way it rounds ties. A range that is clipped on both
    sides has them, in its zero point and at its ends."""
    groups = scaled.view(len(scaled), -1, group_size)
    inputs = x.view(len(x), -1, group_size)
    exact = torch.einsum("tgi,ogi->otg", inputs, groups)
    largest = groups.abs().amax(2)
    best, least = largest.clone(), torch.full_like(largest, torch.inf)
    for step in range(10):
        limit = largest * (1 - step / 20)
        clipped = torch.clamp(groups, -limit[..., None], limit[..., None])
        ways = [(zero, code) for zero in (-1e-5, 1e-5) for code in (-1e-5, 1e-5)]
        rounded = [
            pseudo_quantize(clipped.reshape(scaled.shape), bits, group_size, way).view_as(groups) for way in ways
        ]
        errors = [(torch.einsum("tgi,ogi->otg", inputs, one) - exact).square().mean(1) for one in rounded]
        error = torch.stack(errors).amax(0)
        best = torch.where(error < least, limit, best)
        least = torch.minimum(error, least)
    return best, least
