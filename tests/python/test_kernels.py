"""Every kernel, torch.ops.hemostat.*: threads, instruction sets, strides, emptiness, torch.compile, refusals."""

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from kernel_references import (
    DTYPES,
    FORMATS,
    divergence,
    fake_quantize,
    kept_until,
    mask_pattern,
    mask_smallest,
    ops,
    random,
    reference_kept_until,
    reference_mask,
    reference_pattern,
    reference_quantize,
    scores,
)
from torch.library import opcheck


def results(device, seed=0):
    """Of every operator, on inputs that take more than one thread, tile and block."""
    score = scores("normal", (300, 3001), seed=seed).to(device)
    weight = random(64, 4096, seed=seed).to(device)
    a, b = (random(40, 5000, seed=seed + i).to(device) * 5 for i in (1, 2))
    found = []
    for per_row, entries in ((True, 3001), (False, 300 * 3001)):
        mask = torch.empty(score.shape, dtype=torch.bool, device=device)
        ops.mask_smallest(score, None, entries // 3, per_row, False, out=mask)
        falls = torch.empty(score.shape, device=device)
        ops.kept_until(score, None, per_row, True, out=falls)
        found += [mask, falls]
    for m in (2, 4, 8, 16, 32):
        mask = torch.empty(weight.shape, dtype=torch.bool, device=device)
        ops.mask_pattern(weight, None, m // 2, m, True, out=mask)
        found.append(mask)
    for dtype in DTYPES:
        found += ops.column_moments(weight.to(dtype))
        for group_size in (0, 128):
            out = torch.empty(weight.shape, dtype=dtype, device=device)
            ops.fake_quantize(weight.to(dtype), 16, group_size, False, out=out)
            found += [out, *ops.quantize(weight.to(dtype), 16, group_size, True)]
            found += ops.search_clip(weight.to(dtype)[:8], 16, group_size, True)
        flipped = weight.to(dtype, copy=True)
        ops.bit_faults_(flipped, 1e-3, seed, 0, 8 * flipped.element_size(), 2)
        found.append(flipped.view(torch.uint8))  # some are NaN
        for name in FORMATS:
            for block_size in (0, 64):
                out = torch.empty(weight.shape, dtype=dtype, device=device)
                ops.block_float(weight.to(dtype), name, block_size, out=out)
                found += [out, *ops.block_float_encode(weight.to(dtype), name, block_size)]
        for type_ in (2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20):
            for importance in (None, weight[0].abs()):
                data, invalid = ops.gguf_quantize(weight.to(dtype), type_, importance)
                found += [data, invalid, ops.gguf_dequantize(data, type_, weight.shape[1], dtype)]
        found += ops.divergence(a.to(dtype), b.to(dtype), torch.arange(40, device=device), 0.9)
    return [tensor.cpu() for tensor in found]


def test_the_number_of_threads_changes_nothing(device):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(device)
        torch.set_num_threads(3)
        three = results(device)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


def digest():
    sha = hashlib.sha256()
    for tensor in results(torch.device("cpu")):
        sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def test_every_instruction_set_gives_the_same_bits():
    script = (
        f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import test_kernels as t; print(t.digest()); "
        "import numpy; assert numpy.isfinite(numpy.longdouble(1) / 3), 'the x87 unit was left in MMX state'"
    )
    digests = set()
    for isa in ("baseline", "avx2", "avx512"):
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "HEMOSTAT_ISA": isa, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout.strip())
    assert len(digests) == 1 and digests == {digest()}


def strided(tensor):
    """The same values in other layouts: transposed, every third of a larger one, and a row repeated by stride 0."""
    yield tensor.t().contiguous().t()
    larger = torch.zeros(tensor.shape[0] * 2, tensor.shape[1] * 3, dtype=tensor.dtype, device=tensor.device)
    larger[::2, ::3] = tensor
    yield larger[::2, ::3]
    wide = torch.zeros(tensor.shape[0], tensor.shape[1] + 5, dtype=tensor.dtype, device=tensor.device)
    wide[:, 3:-2] = tensor
    yield wide[:, 3:-2]
    yield tensor[:1].expand(tensor.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides(device, dtype):
    for score in strided(random(21, 128, dtype=dtype).to(device)):
        assert score.stride() != (128, 1)
        dense = score.contiguous().cpu()
        for per_row in (True, False):
            mask = mask_smallest(device, score, None, 50, per_row, True)
            assert torch.equal(mask, reference_mask(dense, None, 50, per_row, True))
            falls = kept_until(device, score, None, per_row, True, torch.float32)
            assert torch.equal(falls, reference_kept_until(dense, None, per_row, True, torch.float32))
        for m in (4, 32):
            mask = mask_pattern(device, score, None, m // 2, m, True)
            assert torch.equal(mask, reference_pattern(dense, None, m // 2, m, True))
        for group_size in (0, 32):
            expected = reference_quantize(dense, 16, group_size, False)
            assert torch.equal(fake_quantize(device, score, 16, group_size, False), expected[3].to(dtype))
            assert torch.equal(ops.quantize(score, 16, group_size, False)[0].cpu().float(), expected[0])
        targets = torch.arange(21)
        expected = divergence(device, dense, dense.flip(0), targets)
        found = divergence(device, score, score.flip(0), targets)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    scale = random(256, seed=5).abs().to(device)[::2]
    score = random(9, 128)
    out = torch.empty(9, 128, dtype=torch.bool, device=device)
    ops.mask_smallest(score.to(device), scale, 30, True, True, out=out)
    assert torch.equal(out.cpu(), reference_mask(score, scale.cpu(), 30, True, True))


@pytest.mark.parametrize("shape", [(0, 0), (0, 8), (4, 0)])
def test_empty(device, shape):
    score = torch.empty(shape, device=device)
    mask = torch.empty(shape, dtype=torch.bool, device=device)
    for per_row in (True, False):
        assert ops.mask_smallest(score, None, 0, per_row, True, out=mask) == 0
        assert ops.kept_until(score, None, per_row, True, out=torch.empty_like(score)) == 0
    assert ops.mask_pattern(score, None, 2, 4, True, out=mask) == 0
    for group_size in (0, 4):
        assert ops.fake_quantize(score, 16, group_size, True, out=torch.empty_like(score)) == 0
        codes, scale, zero, invalid = ops.quantize(score, 16, group_size, True)
        assert codes.shape == shape and invalid == 0
        assert scale.shape == zero.shape == ((1, 1) if group_size == 0 else (shape[0], shape[1] // 4))
        assert ops.search_clip(score, 16, group_size, True)[0].shape == scale.shape
        for name in FORMATS:
            assert ops.block_float(score, name, group_size, out=torch.empty_like(score)) == 0
            codes, scale, tensor_scale, invalid = ops.block_float_encode(score, name, group_size)
            assert codes.shape[0] == shape[0] and codes.numel() == 0 and scale.shape == zero.shape
            assert tensor_scale == 1 and invalid == 0
    targets = torch.empty(0, dtype=torch.int64, device=device)
    assert all(
        out.shape == (0,) for out in ops.divergence(score[:0, :0].new_empty(0, 8), score.new_empty(0, 8), targets)
    )


def samples(device):
    """An operator, its arguments and its out."""
    score, scale = random(6, 32).to(device), random(32, seed=1).abs().to(device)
    mask, falls = torch.empty(6, 32, dtype=torch.bool, device=device), torch.empty(6, 32, device=device)
    targets = torch.arange(6, device=device)
    blocks = ops.gguf_quantize(random(6, 64).to(device), 2, None)[0]
    return {
        "mask_smallest": [((score, scale, 5, True, True), mask), ((score, None, 50, False, False), mask)],
        "mask_pattern": [((score, scale, 2, 4, True), mask), ((score, None, 3, 8, False), mask)],
        "kept_until": [((score, scale, True, True), falls), ((score, None, False, False), falls)],
        "fake_quantize": [((score, 16, 8, False), falls), ((score, 16, 0, True), falls)],
        "quantize": [((score, 16, 8, False), None), ((score, 16, 0, True), None)],
        "search_clip": [((score, 16, 8, False), None), ((score, 16, 0, True), None)],
        "block_float": [((score, name, block_size), falls) for name in FORMATS for block_size in (0, 16)],
        "block_float_encode": [((score, name, block_size), None) for name in FORMATS for block_size in (0, 16)],
        "gguf_quantize": [((score, 8, None), None), ((score, 20, scale), None)],
        "gguf_fake_quantize": [((score, 2, scale), falls), ((score, 3, None), falls)],
        "gguf_dequantize": [((blocks, 2, 64, torch.float32), None), ((blocks, 20, 64, torch.float16), None)],
        "divergence": [((score, score.flip(0), targets, 0.5), None)],
    }


NAMES = [
    "mask_smallest",
    "mask_pattern",
    "kept_until",
    "fake_quantize",
    "quantize",
    "search_clip",
    "block_float",
    "block_float_encode",
    "gguf_quantize",
    "gguf_fake_quantize",
    "gguf_dequantize",
    "divergence",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(device, name, wants_gradient):
    for arguments, out in samples(device)[name]:
        arguments = (arguments[0].requires_grad_(wants_gradient and arguments[0].is_floating_point()), *arguments[1:])
        opcheck(getattr(ops, name).default, arguments, {} if out is None else {"out": out})


@pytest.mark.parametrize("name", NAMES)
def test_results_carry_no_gradient(device, name):
    for arguments, out in samples(device)[name]:
        arguments[0].requires_grad_(arguments[0].is_floating_point())
        found = getattr(ops, name)(*arguments, **({} if out is None else {"out": out}))
        for tensor in found if isinstance(found, tuple) else (found, out):
            assert tensor is None or not tensor.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:torch")
def test_compile(device):
    def masked(score, scale, removed):
        out = torch.empty_like(score, dtype=torch.bool)
        invalid = ops.mask_smallest(score * 2, scale, removed, True, True, out=out)
        pattern = torch.empty_like(out)
        ops.mask_pattern(score, scale, 2, 4, True, out=pattern)
        falls = torch.empty_like(score)
        ops.kept_until(score, None, False, True, out=falls)
        return score * out * pattern + falls + invalid

    def compared(score, targets):
        rounded = torch.empty_like(score)
        ops.fake_quantize(score, 16, 8, False, out=rounded)
        codes, *_ = ops.quantize(score, 16, 8, True)
        return *ops.divergence(score, rounded, targets, 1.0), codes.sum()

    compiled = [torch.compile(function, fullgraph=True) for function in (masked, compared)]
    # The second shape makes sizes symbolic; so does the second number removed.
    for shape, removed in [((6, 32), 5), ((9, 64), 5), ((12, 128), 9), ((7, 32), 0)]:
        score, scale = random(*shape).to(device), random(shape[1], seed=1).abs().to(device)
        targets = torch.arange(shape[0], device=device)
        assert torch.equal(compiled[0](score, scale, removed), masked(score, scale, removed))
        for a, b in zip(compiled[1](score, targets), compared(score, targets), strict=True):
            assert torch.equal(a, b)


def test_what_is_refused(device):
    score = torch.zeros(4, 8, device=device)
    mask, falls = torch.zeros(4, 8, dtype=torch.bool, device=device), torch.zeros(4, 8, device=device)
    targets = torch.zeros(4, dtype=torch.int64, device=device)
    scale = torch.ones(8, device=device)
    refused = [
        (r"mask_smallest: removed must be in 0 … 8 .*got 9", ops.mask_smallest, (score, None, 9, True, True), mask),
        (r"mask_smallest: removed .* 0 … 32 .*got -1", ops.mask_smallest, (score, None, -1, False, True), mask),
        (r"score has shape \[8\]", ops.mask_smallest, (scale, None, 1, True, True), mask),
        (r"score is Double", ops.mask_smallest, (score.double(), None, 1, True, True), mask),
        (r"column_scale has shape \[4\]", ops.mask_smallest, (score, scale[:4], 1, True, True), mask),
        (r"column_scale is BFloat16", ops.mask_smallest, (score, scale.bfloat16(), 1, True, True), mask),
        (r"out is Float", ops.mask_smallest, (score, None, 1, True, True), falls),
        (r"out has shape \[3, 8\]", ops.mask_smallest, (score, None, 1, True, True), mask[:3]),
        (r"out is not contiguous", ops.mask_smallest, (score[:, :4], None, 1, True, True), mask[:, :4]),
        (r"m = 3 does not divide", ops.mask_pattern, (score, None, 2, 3, True), mask),
        (r"n must be in 0 … m = 4, got 5", ops.mask_pattern, (score, None, 5, 4, True), mask),
        (r"m must be in 1 … 1024, got 0", ops.mask_pattern, (score, None, 0, 0, True), mask),
        (r"out is Bool, but takes float32 or float64", ops.kept_until, (score, None, True, True), mask),
        (r"out overlaps score", ops.kept_until, (falls, None, True, True), falls),
        (r"levels must be in 2 … 65536, got 1", ops.fake_quantize, (score, 1, 4, True), falls),
        (r"group_size = 3 does not divide", ops.fake_quantize, (score, 16, 3, True), falls),
        (r"group_size must be positive.*got -1", ops.fake_quantize, (score, 16, -1, True), falls),
        (r"out is Float, but weight is Half", ops.fake_quantize, (score.half(), 16, 4, True), falls),
        (r"levels must be in 2 … 256, got 257", ops.quantize, (score, 257, 4, True), None),
        (r"search_clip: weight has 8 columns, which group_size = 3 does", ops.search_clip, (score, 16, 3, True), None),
        (r"format is 'int4', but takes nf4, fp4, fp8_e4m3", ops.block_float, (score, "int4", 8), falls),
        (r"8 columns, which block_size = 3 does not divide", ops.block_float, (score, "nf4", 3), falls),
        (r"block_size must be positive.*got -1", ops.block_float_encode, (score, "nf4", -1), None),
        (r"out is Float, but weight is Half", ops.block_float, (score.half(), "nf4", 4), falls),
        (r"damaged_logits has shape \[3, 8\]", ops.divergence, (score, score[:3], targets), None),
        (r"damaged_logits is Half", ops.divergence, (score, score.half(), targets), None),
        (r"targets has shape \[3\]", ops.divergence, (score, score, targets[:3]), None),
        (r"targets is Int", ops.divergence, (score, score, targets.int()), None),
        (r"vocabulary of 0", ops.divergence, (score[:, :0], score[:, :0], targets), None),
        (r"damaged_scale must be positive and finite, got 0", ops.divergence, (score, score, targets, 0.0), None),
    ]
    for message, op, arguments, out in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            op(*arguments, **({} if out is None else {"out": out}))
    shared = torch.zeros(40, device=device)
    with pytest.raises(ValueError, match="out overlaps weight"):
        ops.fake_quantize(shared[:32].view(4, 8), 16, 4, True, out=shared[8:].view(4, 8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_devices_do_not_mix():
    score = torch.zeros(4, 8, device="cuda")
    with pytest.raises(ValueError, match="out is on cpu, but score is on cuda:0"):
        ops.mask_smallest(score, None, 1, True, True, out=torch.zeros(4, 8, dtype=torch.bool))
