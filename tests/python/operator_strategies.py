"""What hypothesis draws for operators: tensors of any shape, strides, dtype and values, and arguments of any kind."""

import functools
import inspect
import re

import torch
from hypothesis import strategies as st

import hemostat

FLOATS = (torch.float32, torch.bfloat16, torch.float16)

# Of float64 normal numbers and the dtype's torch.finfo.
VALUES = {
    "normal": lambda x, info: x,
    "ties": lambda x, info: (2 * x).round() / 2,
    "sparse": lambda x, info: x * (x.abs() > 1),
    "zero": lambda x, info: x * 0,
    "constant": lambda x, info: torch.full_like(x, -0.3),
    "subnormal": lambda x, info: x * info.smallest_normal / 4,
    "largest": lambda x, info: x * info.max,
    "outlier": lambda x, info: torch.where(x == x.amax(), info.max, x) if x.numel() else x,
}


def strided(x):
    """Every second entry of a larger tensor, in each dimension."""
    larger = x.new_full([2 * size for size in x.shape], 7)
    view = larger[tuple(slice(None, None, 2) for _ in x.shape)]
    return view.copy_(x)


def misaligned(x):
    """Begins one entry after its storage, so at no vector's boundary."""
    return x.new_empty(x.numel() + 1)[1:].view(x.shape).copy_(x)


LAYOUTS = {
    "dense": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() else x,
    "strided": strided,
    "misaligned": misaligned,
    "expanded": lambda x: x[:1].expand_as(x) if x.dim() else x,  # by a stride of 0
}


@st.composite
def tensors(draw, shape, dtypes=FLOATS, values=tuple(VALUES), layouts=tuple(LAYOUTS)):
    """A floating tensor without NaN or infinities."""
    dtype = draw(st.sampled_from(dtypes))
    info = torch.finfo(dtype)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    normal = torch.randn(draw(shape), generator=generator, dtype=torch.float64)
    chosen = VALUES[draw(st.sampled_from(values))](normal, info)
    return LAYOUTS[draw(st.sampled_from(layouts))](chosen.clamp(-info.max, info.max).to(dtype))


def matrices(**options):
    return tensors(st.tuples(st.integers(0, 6), st.integers(0, 33)), **options)


sparsities = st.one_of(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.floats(0, 1))
scopes = st.sampled_from(["row", "tensor"])


@st.composite
def with_pattern(draw, tensor):
    """A tensor and an n:m that divides its columns, or None where there is none."""
    x = draw(tensor)
    divisors = [m for m in range(1, x.shape[-1] + 1) if x.shape[-1] % m == 0]
    m = draw(st.sampled_from(divisors or [4]))
    return x, draw(st.integers(0, m)), m


@st.composite
def group_sizes(draw, columns):
    return draw(st.sampled_from([None, -1, "tensor", *(g for g in range(1, columns + 1) if columns % g == 0)]))


# Arguments of any kind, for what must be refused.

SHAPES = st.sampled_from([(), (0,), (3,), (2, 4), (4, 2), (0, 4), (2, 0), (1, 2, 4)])
DTYPES = (*FLOATS, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64)


@st.composite
def any_tensors(draw):
    shape, dtype = draw(SHAPES), draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    x = (3 * torch.randn(shape, generator=generator)).to(dtype)
    spoiled = draw(st.sampled_from([None, float("nan"), float("inf"), -float("inf")]))
    if spoiled is not None and x.numel() and x.dtype.is_floating_point:
        x.view(-1)[-1] = spoiled
    if x.dtype.is_floating_point and draw(st.booleans()):
        x.requires_grad_()
    return draw(st.sampled_from([x, x.detach().t() if x.dim() == 2 else x, x.to("meta"), x.detach().to_sparse()]))


numbers = st.one_of(
    st.sampled_from([0, 1, 2, 4, -1, 3.5, 0.5, 1e300, float("nan"), float("inf"), 2**31, 2**63, -(2**70)]),
    st.integers(-5, 40),
    st.floats(-2, 20),
)
words = st.sampled_from(
    ["", "row", "tensor", "2:4", "1:2", "4:2", "replace", "swap", "cpu", "cuda:99", "ß\0", "9" * 40]
)
lists = st.lists(st.integers(-3, 6), max_size=4)


def any_values(model):
    return st.one_of(any_tensors(), numbers, words, lists, st.booleans(), st.none(), st.just(model))


@functools.cache
def statistics_of(model):
    """All that methods read of the model."""
    tokens = torch.randint(0, 97, (2, 16), generator=torch.Generator().manual_seed(1))
    needs = ["wanda_sp", "flap", "llm_pruner:taylor=param_mix", "gradient_units", "sleb"]
    return hemostat.collect(model, tokens, needs, progress=False)


def any_arguments(operator, model):
    """Keyword arguments: each of the kind that its annotation names, or now and then of another; some are left out."""
    kinds = {
        "torch.Tensor": any_tensors(),
        "hemostat._C.Model": st.just(model),
        "hemostat._C.Statistics": st.builds(lambda: statistics_of(model)),
        "Sequence": lists,
        "SupportsInt": numbers,
        "SupportsFloat": numbers,
        "int": numbers,
        "float": numbers,
        "str": words,
        "bool": st.booleans(),
    }
    drawn, optional = {}, {}
    for name, annotation in parameters(operator).items():
        likely = [kind for word, kind in kinds.items() if word in annotation]
        assert likely, f"{operator.__name__}: which arguments to draw for {name}: {annotation}?"
        value = st.integers(0, 9).flatmap(
            lambda chance, likely=likely: st.one_of(*likely) if chance else any_values(model)
        )
        (optional if "=" in annotation else drawn)[name] = value
    return st.fixed_dictionaries(drawn, optional=optional)


# The public operators, and how they are called.


def operators():
    """Every function of every room, by "room.name"; but treatments, which are runs of many."""
    others = ("data", "huggingface", "mitigate")
    rooms = {name: getattr(hemostat, name) for name in hemostat.__all__ if name not in others}
    return {
        f"{room}.{name}": getattr(module, name)
        for room, module in rooms.items()
        if inspect.ismodule(module)
        for name in module.__all__
        if not inspect.isclass(getattr(module, name))
    }


def parameters(operator):
    """Name → annotation and default, of a Python function, or from what leads a binding's documentation."""
    if inspect.isfunction(operator):
        return {
            name: inspect.formatannotation(parameter.annotation)
            + ("" if parameter.default is parameter.empty else f" = {parameter.default}")
            for name, parameter in inspect.signature(operator).parameters.items()
        }
    signature = operator.__doc__.partition("\n")[0]
    inside = re.fullmatch(r"\w+\((.*)\) -> .*", signature)[1]
    return dict(re.findall(r"(\w+): ((?:[^,\[]|\[[^\]]*\])+)", inside))


def gram_of(features, seed):
    """XᵀX / tokens of few tokens, so often singular, and X itself."""
    x = torch.randn(seed % 7 + 1, features, generator=torch.Generator().manual_seed(seed)) + 0.5
    return x.T @ x / len(x), x


@st.composite
def layers(draw):
    """A weight and a Gram matrix of its inputs, of however few tokens."""
    weight = draw(matrices(values=("normal", "ties", "sparse", "zero", "constant")))
    tokens, seed = draw(st.integers(1, 40)), draw(st.integers(0, 1000))
    x = torch.randn(tokens, weight.shape[1], generator=torch.Generator().manual_seed(seed))
    x[:, : draw(st.integers(0, 2))] = 0
    return weight, x.T @ x / tokens


OPERATORS = operators()
TESTED = set()  # by the tests that were imported


def about(*names):
    """Says which operators a test is about."""
    TESTED.update(names)
    return lambda test: test


def assert_same(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def result_of(operator, *arguments, device, exact=True, **options):
    """What the operator returns: contiguous, whatever the strides, and the same in out=. No argument is changed."""
    arguments = [argument.to(device) for argument in arguments]
    before = [argument.clone() for argument in arguments]
    result = operator(*arguments, **options)
    dense = operator(*(argument.contiguous() for argument in arguments), **options)
    if exact:
        assert_same(result, dense)
    else:
        torch.testing.assert_close(result, dense)
    assert result.device == arguments[0].device and result.shape == arguments[0].shape
    assert result.is_contiguous()
    if "out" in parameters(operator):
        out = torch.full_like(result, 1)
        assert operator(*arguments, out=out, **options) is out
        assert_same(out, result)
    for argument, copy in zip(arguments, before, strict=True):
        assert_same(argument, copy)
    return result.cpu()
