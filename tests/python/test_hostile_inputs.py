"""Every operator on what it cannot take: refused in a sentence that names it and the argument, or a finite result."""

import numpy as np
import pytest
import torch
from operator_strategies import OPERATORS, assert_same, parameters, statistics_of

import hemostat

LARGEST = torch.finfo(torch.float32).max


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHT, INPUT = draw(4, 32), draw(64, 32, seed=1)
TOKENS = torch.arange(32).view(2, 16)
STATISTICS, TEXT = object(), object()  # stand for what is made of a model, and for TOKENS
GRAM, NORM, ABSMEAN = INPUT.T @ INPUT / 64, INPUT.square().mean(0).sqrt(), INPUT.abs().mean(0)
GRADIENT = draw(4, 32, seed=2)
HALF = {"sparsity": 0.5}

# What each operator takes; one argument at a time is replaced.
CALLS = {
    "prune.apply": {"weight": WEIGHT, "mask": WEIGHT > 0},
    "prune.magnitude": {"weight": WEIGHT, **HALF},
    "prune.mask": {"score": WEIGHT, **HALF},
    "prune.mask_at": {"kept_until": hemostat.prune.kept_until(WEIGHT), **HALF},
    "prune.kept_until": {"score": WEIGHT},
    "prune.removed_count": {"sparsity": 0.5, "entries": 8},
    "prune.score_magnitude": {"weight": WEIGHT},
    "prune.score_wanda": {"weight": WEIGHT, "activation_norm": NORM},
    "prune.wanda": {"weight": WEIGHT, "activation_norm": NORM, **HALF},
    "prune.score_ria": {"weight": WEIGHT, "activation_norm": NORM, "alpha": 0.5},
    "prune.ria": {"weight": WEIGHT, "activation_norm": NORM, "alpha": 0.5, **HALF},
    "prune.score_taylor": {"weight": WEIGHT, "gradient": GRADIENT},
    "prune.taylor": {"weight": WEIGHT, "gradient": GRADIENT, **HALF},
    "prune.score_fisher": {"weight": WEIGHT, "gradient_square": GRADIENT.square()},
    "prune.fisher": {"weight": WEIGHT, "gradient_square": GRADIENT.square(), **HALF},
    "prune.score_gblm": {"weight": WEIGHT, "activation_norm": NORM, "gradient_norm": GRADIENT.abs(), "alpha": 100.0},
    "prune.gblm": {"weight": WEIGHT, "activation_norm": NORM, "gradient_norm": GRADIENT.abs(), "alpha": 100.0, **HALF},
    "prune.channel_permutation": {"score": WEIGHT.abs(), "pattern": "2:4"},
    "prune.sparsegpt": {"weight": WEIGHT, "gram": GRAM, "damp": 0.01, "block_size": 16, **HALF},
    "prune.admm": {"weight": WEIGHT, "gram": GRAM, "damp": 0.1, "iterations": 8, **HALF},
    "prune.dsnot": {
        "weight": WEIGHT,
        "mask": WEIGHT > 0,
        "activation_mean": INPUT.mean(0),
        "activation_norm": NORM,
        "max_cycles": 4,
        "threshold": 0.0,
    },
    "prune.outlier_ratio": {"weights": [WEIGHT, WEIGHT], "activation_norms": [NORM, NORM], "outlier_threshold": 5.0},
    "prune.owl": {"ratios": [0.1, 0.2, 0.4], "lamda": 0.1, **HALF},
    "quantize.rtn": {"weight": WEIGHT, "bits": 4, "group_size": 8},
    "quantize.fake_quantize": {"weight": WEIGHT, "bits": 4, "group_size": 8},
    "quantize.gptq": {"weight": WEIGHT, "gram": GRAM, "bits": 4, "group_size": 8, "damp": 0.01},
    "quantize.awq": {"weight": WEIGHT, "activation_absmean": ABSMEAN, "gram": GRAM, "bits": 4, "group_size": 8},
    "quantize.awq_scale": {
        "weights": [WEIGHT, WEIGHT],
        "activation_absmean": ABSMEAN,
        "gram": GRAM,
        "bits": 4,
        "group_size": 8,
    },
    "quantize.awq_scaled": {
        "weight": WEIGHT,
        "scale": NORM,
        "gram": GRAM,
        "bits": 4,
        "group_size": 8,
        "search_clip": True,
    },
    "quantize.nf4": {"weight": WEIGHT, "block_size": 16},
    "quantize.fp4": {"weight": WEIGHT, "block_size": 16},
    "quantize.mxfp4": {"weight": WEIGHT},
    "quantize.nvfp4": {"weight": WEIGHT},
    "quantize.fp8": {"weight": WEIGHT, "format": "e4m3"},
    "quantize.ternary": {"weight": WEIGHT, "group_size": 16},
    "quantize.gguf": {"weight": WEIGHT, "type": "Q4_0", "importance": NORM},
    "quantize.activation": {"input": WEIGHT, "bits": 8},
    "quantize.levels": {"bits": 4},
    "lowrank.rank_for": {"removed": 0.5, "out_features": 4, "in_features": 32},
    "lowrank.svd": {"weight": WEIGHT, "removed": 0.3},
    "lowrank.asvd": {"weight": WEIGHT, "activation_absmean": ABSMEAN, "removed": 0.3, "alpha": 0.5},
    "lowrank.svd_llm": {"weight": WEIGHT, "gram": GRAM, "removed": 0.3, "damp": 0.0},
    "lowrank.decompose": {"weight": WEIGHT},
    "lowrank.decompose_asvd": {"weight": WEIGHT, "activation_absmean": ABSMEAN, "alpha": 0.5},
    "lowrank.decompose_svd_llm": {"weight": WEIGHT, "gram": GRAM, "damp": 0.0},
    "noise.direction": {"sizes": [4, 32], "seed": 0},
    "noise.apply": {"weight": WEIGHT, "direction": GRADIENT, "sigma": 0.1},
    "noise.gaussian": {"weight": WEIGHT, "sigma": 0.1, "seed": 0},
    "noise.isotropic": {"weight": WEIGHT, "norm": 0.1, "seed": 0},
    "noise.activation_noise": {"input": INPUT, "sigma": 0.1, "seed": 0},
    "noise.bit_flip": {"weight": WEIGHT, "rate": 0.0, "seed": 0},
    "noise.stuck_at": {"weight": WEIGHT, "value": 0, "rate": 0.0, "seed": 0},
    "decode.temperature": {"logits": WEIGHT, "temperature": 0.5},
    "solve.GramFactor": {"gram": GRAM, "damp": 0.01, "block_size": 16},
    "ablate.drop_layers": {"model": None, "count": 1},
    "structured.wanda_sp": {"model": None, "statistics": STATISTICS, "sparsity": 0.3},
    "structured.flap": {"model": None, "statistics": STATISTICS, "sparsity": 0.3, "remove_heads": 0},
    "structured.llm_pruner": {"model": None, "statistics": STATISTICS, "sparsity": 0.3, "spare_first": 0},
    "structured.gradient_aware": {"model": None, "statistics": STATISTICS, "sparsity": 0.3},
    "structured.block_influence": {"model": None, "tokens": TEXT},
    "structured.shortgpt": {"model": None, "tokens": TEXT, "count": 1},
    "structured.sleb": {"model": None, "tokens": TEXT, "count": 1, "windows": 1},
    "structured.slicegpt": {"model": None, "tokens": TEXT, "sliced": 0.25, "round_interval": 4},
    "extend.duplicate_layers": {"model": None, "count": 1},
    "extend.insert_identity": {"model": None, "count": 1},
    "normalize.drop_norms": {"model": None, "count": 1},
    "normalize.norm_count": {"model": None},
    "context.token_noise": {"model": None, "rate": 0.1, "kind": "replace", "seed": 0},
}


# What they do not change stays as it was, NaN and infinities too; and a flipped bit may make one.
PASSING_ON = ("prune.apply", "decode.temperature")
OF_ANY_VALUE = ("noise.bit_flip", "noise.stuck_at")


def with_entry(value):
    def spoilt(x):
        x = x.clone()
        x.view(-1)[x.numel() // 2] = value
        return x

    return spoilt


TENSORS = {
    "NaN": with_entry(float("nan")),
    "infinity": with_entry(float("inf")),
    "minus infinity": with_entry(-float("inf")),
    "a negative entry": with_entry(-3.0),
    "largest": lambda x: torch.where(x >= 0, LARGEST, -LARGEST),
    "near the largest": lambda x: x.sign() * 3.3e38,
    "too large for products": lambda x: x * 1e25,
    "one largest": with_entry(LARGEST),
    "smallest": lambda x: x * 1e-40,
    "zeros": torch.zeros_like,
    "asymmetric": lambda x: x.triu() if x.dim() == 2 else x,
    "negated": torch.neg,
    "half, at its largest": lambda x: torch.where(x >= 0, 65504.0, -65504.0).half(),
    "float64": torch.Tensor.double,
    "complex": lambda x: x.to(torch.complex64),
    "integers": torch.Tensor.long,
    "bool": torch.Tensor.bool,
    "meta": lambda x: x.to("meta"),
    "sparse": torch.Tensor.to_sparse,
    "compressed rows": lambda x: x.to_sparse_csr() if x.dim() == 2 else x.to_sparse(),
    "quantized": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
    "of a gradient": lambda x: x.clone().requires_grad_(),
    "longer": lambda x: torch.cat([x, x]),
    "transposed": lambda x: x.t() if x.dim() == 2 else x[None],
    "a scalar": lambda x: x.view(-1)[0],
    "nothing": lambda x: x[:0],
    "a batch": lambda x: x[None],
    "a list": torch.Tensor.tolist,
    "NumPy": torch.Tensor.numpy,
    "None": lambda x: None,
    "text": lambda x: "weight",
    "a number": lambda x: 3.0,
}
NUMBERS = [float("nan"), float("inf"), -float("inf"), -1, 0, 1e300, 5e-324, 2**63, -(2**70), 0.3]
OTHERS = ["text", None, [1, 2], (), {}, object(), np.ones(3), torch.ones(3), 1j, b"2:4", True]


def operator_of(name):
    room, _, own = name.partition(".")
    return OPERATORS.get(name) or getattr(getattr(hemostat, room), own)


def same_value(a, b):
    if isinstance(a, torch.Tensor):
        if not a.is_meta and a.layout == torch.strided and not a.is_quantized:
            assert_same(a.detach(), b)
    elif isinstance(a, list) and a and isinstance(a[0], torch.Tensor):
        for one, other in zip(a, b, strict=True):
            same_value(one, other)


def copied(value):
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return [copied(one) for one in value] if isinstance(value, list) else value


def tensors_of(result):
    """All tensors that a result holds."""
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in tensors_of(part)]
    fields = ("a", "b", "us", "vh", "weight", "matrix")
    return [tensor for field in fields for tensor in tensors_of(getattr(result, field, ()))]


def refused_or_finite(name, arguments, changed):
    """The message of what is raised, None where there is a result."""
    before = {key: copied(value) for key, value in arguments.items()}
    try:
        result = operator_of(name)(**arguments)
    except (ValueError, TypeError, hemostat.NumericalError) as error:
        message = str(error)
        assert message.startswith(f"hemostat.{name}: "), message
        assert "\n" not in message and "hemostat._C" not in message and len(message) < 400, message
        assert changed in message or any(key in message.partition(": ")[2] for key in arguments), message
        return message
    finally:
        for key, value in arguments.items():
            same_value(value, before[key])
    finite = all(tensor.isfinite().all() for tensor in tensors_of(list(arguments.values())))
    if name in OF_ANY_VALUE or (name in PASSING_ON and not finite):
        return None
    for tensor in tensors_of(result):
        assert tensor.is_meta is False and tensor.isfinite().all(), f"{name}: {changed} makes the result infinite"
    if "packed" in parameters_of(name):
        packed = operator_of(name)(**arguments, packed=True)
        assert packed.dequantize().isfinite().all(), f"{name}: {changed} makes the packed result infinite"
    return None


def parameters_of(name):
    return parameters(OPERATORS[name]) if name in OPERATORS else {}


def given_to(name, model):
    def made(value):
        if value is None:
            return model
        return statistics_of(model) if value is STATISTICS else TOKENS if value is TEXT else value

    return {key: made(value) for key, value in CALLS[name].items()}


def arguments_of(kind):
    return [(name, key) for name, call in CALLS.items() for key, value in call.items() if kind(value)]


def is_tensors(value):
    return isinstance(value, torch.Tensor) or (isinstance(value, list) and isinstance(value[0], torch.Tensor))


def test_every_operator_is_here():
    assert set(CALLS) == {name for name in OPERATORS if not name.startswith("metrics.")} | {"solve.GramFactor"}


@pytest.mark.parametrize("name", CALLS)
def test_what_it_takes_is_taken(tiny_model, name):
    assert refused_or_finite(name, given_to(name, tiny_model), "") is None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "argument"), arguments_of(is_tensors))
def test_hostile_tensors(name, argument):
    for kind, change in TENSORS.items():
        arguments = dict(CALLS[name])
        value = arguments[argument]
        one = value[0] if isinstance(value, list) else value
        if one.dtype == torch.bool and not kind[0].islower():
            continue
        try:
            changed = change(one)
        except RuntimeError:  # torch makes no such tensor of a mask
            continue
        arguments[argument] = [changed, *value[1:]] if isinstance(value, list) else changed
        message = refused_or_finite(name, arguments, argument)
        if kind == "None" and argument == "importance":
            assert message is None
        elif kind in ("meta", "sparse", "compressed rows", "quantized", "complex", "a list", "NumPy", "None", "text"):
            assert message and argument in message, f"{name} takes {argument} as {kind}: {message}"


@pytest.mark.parametrize(
    ("name", "argument"), arguments_of(lambda value: isinstance(value, int | float) and not isinstance(value, bool))
)
def test_hostile_numbers(tiny_model, name, argument):
    for value in [*NUMBERS, *OTHERS]:
        message = refused_or_finite(name, given_to(name, tiny_model) | {argument: value}, argument)
        if isinstance(value, str | bytes | list | dict | np.ndarray | complex) or (
            isinstance(value, float) and not np.isfinite(value)
        ):
            assert message and argument in message, f"{name} takes {argument} = {value}: {message}"


@pytest.mark.parametrize(("name", "argument"), arguments_of(lambda value: isinstance(value, str)))
def test_hostile_words(tiny_model, name, argument):
    for value in ["", "no such", "ß\0", "9" * 40, "3:2", "-1:4", "2:4:8", 3, 0.5, None, [], WEIGHT]:
        message = refused_or_finite(name, given_to(name, tiny_model) | {argument: value}, argument)
        assert message and argument in message, f"{name} takes {argument} = {value}: {message}"


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if "model" in call])
@pytest.mark.parametrize("value", ["reference", None, torch.ones(2, 2), {}, [1]])
def test_no_model(tiny_model, name, value):
    message = refused_or_finite(name, given_to(name, tiny_model) | {"model": value}, "model")
    assert message and "takes a hemostat.Model" in message


@pytest.mark.parametrize("name", CALLS)
def test_names_of_arguments(tiny_model, name):
    """One that is not known, one too many, one given twice, one missing."""
    given, operator = given_to(name, tiny_model), operator_of(name)
    first = next(iter(given))
    calls = [
        (lambda: operator(**given, unheard_of=1), "unheard_of"),
        (lambda: operator(**{key: value for key, value in given.items() if key != first}), first),
        (lambda: operator(*[given[first]] * 12), "12 arguments"),
        (lambda: operator(given[first], **given), first),
    ]
    python = name in ("prune.sparsegpt", "prune.admm")  # Python's own words there
    for call, word in calls:
        with pytest.raises(TypeError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message and (python or (message.startswith(f"hemostat.{name}: ") and word in message))


def test_a_name_that_is_nearly_right():
    with pytest.raises(TypeError, match="there is no argument sparcity; did you mean sparsity"):
        hemostat.prune.magnitude(WEIGHT, sparcity=0.5)
    with pytest.raises(TypeError, match="there is no argument pbits; did you mean bits"):
        hemostat.quantize.rtn(WEIGHT, pbits=4)


def indefinite():
    """Its diagonal is positive, and each pair of features could be."""
    gram = torch.eye(32)
    gram[:3, :3] = torch.tensor([[1, -0.9, -0.9], [-0.9, 1, -0.9], [-0.9, -0.9, 1]])
    return gram


@pytest.mark.parametrize("name", ["awq", "awq_scale", "awq_scaled", "admm", "svd_llm", "decompose_svd_llm"])
def test_what_is_no_gram_matrix(name):
    name = next(whole for whole in CALLS if whole.endswith(f".{name}"))
    for gram, error, words in [
        (GRAM + draw(32, 32).triu(1), ValueError, "gram is not symmetric: entry"),
        (-GRAM, ValueError, "gram has 32 negative diagonal entries"),
        (indefinite(), hemostat.NumericalError, "gram is not positive semidefinite"),
        (GRAM.clone().fill_diagonal_(1e-3), hemostat.NumericalError, "gram is not positive semidefinite"),
    ]:
        with pytest.raises(error, match=words) as caught:
            operator_of(name)(**CALLS[name] | {"gram": gram})
        assert str(caught.value).startswith(f"hemostat.{name}: ")
    # Fewer tokens than features: as singular as rounding leaves it.
    for tokens in (1, 2, 20):
        x = draw(tokens, 32, seed=tokens) * torch.logspace(-3, 3, 32)
        operator_of(name)(**CALLS[name] | {"gram": x.T @ x / tokens})


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("prune.fisher", "gradient_square"),
        ("prune.score_fisher", "gradient_square"),
        ("prune.gblm", "gradient_norm"),
        ("prune.score_gblm", "gradient_norm"),
        *[(name, key) for name, key in arguments_of(is_tensors) if key in ("activation_norm", "activation_absmean")],
        ("quantize.gguf", "importance"),
        ("prune.mask_at", "kept_until"),
    ],
)
def test_what_is_never_negative(name, argument):
    negative = with_entry(-3.0)(CALLS[name][argument])
    with pytest.raises(ValueError, match=f"hemostat.{name}: {argument} has 1 (NaN, infinite or )?negative entry"):
        operator_of(name)(**CALLS[name] | {argument: negative})


def test_what_is_too_large_for_float32_is_scaled_first():
    """Power of two: the same result, moved."""
    huge = 2.0**100
    for name, argument in [("lowrank.svd", "weight"), ("prune.admm", "weight"), ("quantize.awq", "weight")]:
        plain = operator_of(name)(**CALLS[name])
        moved = operator_of(name)(**CALLS[name] | {argument: CALLS[name][argument] * huge})
        first = plain if isinstance(plain, torch.Tensor) else plain.weight
        torch.testing.assert_close((moved if isinstance(moved, torch.Tensor) else moved.weight) / huge, first)


def test_mask_at_of_what_was_widened():
    until = hemostat.prune.kept_until(WEIGHT)
    for sparsity in (0.1, 0.3, 1 / 3, 0.7):
        expected = hemostat.prune.mask(WEIGHT, sparsity=sparsity)
        assert torch.equal(hemostat.prune.mask_at(until.double(), sparsity=sparsity), expected)


BLOCKS_DO_NOT_FIT = ("gguf", "mxfp4", "nf4", "fp4", "gptq", "awq")  # of the tiny model's 48 features


@pytest.mark.parametrize("severity", [float("inf"), -float("inf"), float("nan")])
def test_a_severity_is_finite(tiny_model, tiny_tokens, statistics, severity):
    for method in hemostat.methods():
        if method.kind == "user" or not method.needs <= statistics.needs or method.name in BLOCKS_DO_NOT_FIT:
            continue
        prepared = hemostat.prepare(tiny_model, method.name, statistics)
        words = f"hemostat.{method.name}: {prepared.axis.name} is -?(inf|nan), but takes "
        with pytest.raises(ValueError, match=words):
            prepared.at(severity)
        for call in (
            lambda spec: hemostat.sweep(tiny_model, spec, tiny_tokens, statistics=statistics, severities=[severity]),
            lambda spec: hemostat.localize(tiny_model, spec, tiny_tokens, statistics=statistics, severity=severity),
            lambda spec: hemostat._C.plan(tiny_model, [spec], severities={spec: [severity]}),
            lambda spec: hemostat.compose(tiny_model, [spec], statistics).at(severity),
        ):
            with pytest.raises(ValueError, match=words):
                call(method.name)


@pytest.mark.parametrize("severity", ["text", None, [0.5], 1j, np.ones(2), torch.ones(2), {}])
def test_a_severity_is_a_number(tiny_model, tiny_tokens, severity):
    for name, call in {
        "Prepared.at": lambda: hemostat.prepare(tiny_model, "magnitude").at(severity),
        "Composition.at": lambda: hemostat.compose(tiny_model, ["magnitude"]).at(severity),
        "sweep": lambda: hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[severity]),
        "localize": lambda: hemostat.localize(tiny_model, "magnitude", tiny_tokens, severity=severity),
    }.items():
        with pytest.raises(TypeError, match=f"hemostat.{name}: severit"):
            call()


@pytest.mark.parametrize("number", [0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), np.array(0.5)])
def test_a_severity_may_be_any_kind_of_number(tiny_model, number):
    damaged = hemostat.prepare(tiny_model, "magnitude").at(number)
    assert all((weight == 0).float().mean() == 0.5 for _, weight in damaged.linears())


def test_severities_near_a_limit_of_the_axis(tiny_model):
    prepared = hemostat.prepare(tiny_model, "magnitude")
    for severity in (-0.0, 5e-324, -5e-324, 1e-12):
        assert prepared.at(severity).linears().names == tiny_model.linears().names
        for (_, weight), (_, same) in zip(prepared.at(severity).linears(), tiny_model.linears(), strict=True):
            assert weight.data_ptr() == same.data_ptr()
    for severity in (1e300, -1e300, 1.001, -0.001):
        with pytest.raises(ValueError, match="hemostat.magnitude: sparsity is .*, but takes 0 … 1"):
            prepared.at(severity)
    layers = hemostat.prepare(tiny_model, "wanda:m=4", hemostat.collect(tiny_model, torch.zeros(1, 8).long(), "wanda"))
    for severity in (1e300, 2.5, -1):
        with pytest.raises(ValueError, match="takes whole numbers 0 … 4"):
            layers.at(severity)


@pytest.mark.parametrize("field", ["neutral", "minimum", "maximum", "step", "farthest"])
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_an_axis_is_finite(field, value):
    with pytest.raises(ValueError, match=f"hemostat.Axis: {field}"):
        hemostat.Axis(name="s", **{field: value})
    axis = hemostat.Axis(name="s")
    for measure in (axis.distance, axis.severity_at):
        with pytest.raises(ValueError, match=rf"hemostat\.Axis\.{measure.__name__}"):
            measure(value)


def test_the_rest_of_the_package_refuses_in_words(tiny_model, tiny_tokens):
    for call, words in [
        (lambda: hemostat.compare(tiny_model, tiny_model, [[1, 2]]), "hemostat.compare: tokens is a list, but takes"),
        (lambda: hemostat.compare(tiny_model, "x", tiny_tokens), "hemostat.compare: damaged is 'x', but takes a hemos"),
        (
            lambda: hemostat.compare(tiny_model, tiny_model, tiny_tokens, seed=2**70),
            "hemostat.compare: seed is 11805",
        ),
        (
            lambda: tiny_model.forward(np.ones((2, 2))),
            "hemostat.Model.forward: tokens must be an integer tensor, got Double",
        ),
        (lambda: hemostat.prepare(None, "rtn"), "hemostat.prepare: model is None, but takes a hemostat.Model"),
        (
            lambda: hemostat.Axis("bits"),
            "hemostat.Axis: got 1 argument by position, but takes 0; by name it",
        ),
        (lambda: hemostat.MethodSpec(3), "hemostat.MethodSpec: text is 3, but takes a str"),
        (lambda: hemostat.prepare(tiny_model, "rtn").at(), "hemostat.Prepared.at: severity is missing"),
    ]:
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
