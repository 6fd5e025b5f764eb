"""Modules of any architecture: their own forward, on linears that can be replaced."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from hemostat import _C
from hemostat._source import source_hash
from hemostat.huggingface import without_bars

__all__ = ["Module", "from_module", "load", "to_module", "uncalled_linears"]

FROM_MODULE = "hemostat.Model.from_module"

Forward = Callable[[torch.nn.Module, torch.Tensor], Any]
Loss = Callable[..., torch.Tensor]
Observe = Callable[[str, torch.Tensor], None]
# Of a linear: the weight and bias in the place of its own, and what happens to its input; None: nothing.
Change = tuple[torch.Tensor | None, torch.Tensor | None, _C.LinearInput | None]

# Where modules say how long a text they take; without any, texts are as long as the caller's windows.
CONTEXTS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
UNLIMITED = 2**31 - 1

# What a warning names of linears that are never called, and from which share of the parameters on it comes.
NAMED, UNREACHED = 8, 0.05


class Place(NamedTuple):
    """Where a linear's weight lies."""

    owner: str  # the module's name
    parameter: str  # its own
    transposed: bool  # [in_features, out_features]
    expert: int | None = None  # index in a tensor of three dimensions
    bias: str | None = None

    @property
    def weight(self) -> str:
        return f"{self.owner}.{self.parameter}" if self.owner else self.parameter


class Module:
    """A module, and which of its linears can be replaced. The module given is never touched: what is called is a copy
    of its structure, in evaluation mode, on the same tensors.
    """

    def __init__(self, module: torch.nn.Module, forward: Forward | None, loss: Loss | None) -> None:
        self.name = type(module).__name__
        self.has_loss = loss is not None
        self._forward, self._loss = forward, loss
        self._loss_takes_batch = loss is not None and _positional(loss) > 1
        self._module = _structure_of(module).eval()
        self._call = _Call(self._module, self._output)
        self._lock = threading.RLock()
        self._places = {name: place for name, place in _linears_in(self._module)}
        if not self._places:
            raise ValueError(f"{FROM_MODULE}: {self.name} has no nn.Linear, no Conv1D and no experts")
        self._outputs = _output_weights(self._module, self.has_loss)
        weights = [self._stored(place) for place in self._places.values()]
        self.dtype, self.device = weights[0].dtype, weights[0].device
        devices = {str(weight.device) for weight in weights}
        if len(devices) > 1 or self.device.type == "meta":
            raise ValueError(f"{FROM_MODULE}: the weights of {self.name} are on {', '.join(sorted(devices))}")

    # --- what it is made of ---

    def linears(self) -> list[tuple[str, torch.Tensor, torch.Tensor | None, bool]]:
        """Name, weight [out_features, in_features], bias, and whether it computes logits or shares an embedding."""
        found = []
        for name, place in self._places.items():
            bias = self._module.get_parameter(place.bias) if place.bias else None
            found.append((name, self._own(place), bias, _identity(self._stored(place)) in self._outputs))
        return found

    def others(self) -> dict[str, torch.Tensor]:
        """Parameters, and buffers that are saved, beside the linears."""
        taken = {place.weight for place in self._places.values()}
        taken |= {place.bias for place in self._places.values() if place.bias}
        return {
            name: tensor
            for name, tensor in self._module.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor) and name not in taken
        }

    def structure(self) -> str:
        """What decides on its output beside its tensors."""
        config = getattr(self._module, "config", None)
        given = {"forward": self._forward, "loss": self._loss}
        own = {name: source_hash(function) for name, function in given.items() if function}
        text = config.to_json_string(use_diff=True) if hasattr(config, "to_json_string") else repr(self._module)
        return json.dumps({"class": f"{type(self._module).__module__}.{self.name}", "config": text, "functions": own})

    def tensors(self, changes: Mapping[str, Change]) -> dict[str, torch.Tensor]:
        """As its state_dict names them, shared ones once."""
        replaced = self._replacements(changes)
        found, seen = {}, set()
        for name, tensor in self._module.state_dict(keep_vars=True).items():
            tensor = replaced.get(name, tensor)
            if isinstance(tensor, torch.Tensor) and id(tensor) not in seen:
                seen.add(id(tensor))
                found[name] = tensor
        return found

    def converted(self, dtype: torch.dtype | None, device: torch.device | None) -> Module:
        """The same with its tensors in another dtype or on another device; buffers that are not saved keep theirs."""
        saved = {id(tensor) for tensor in self._module.state_dict(keep_vars=True).values()}

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            cast = dtype if tensor.is_floating_point() and id(tensor) in saved else None
            moved = _checked_cast(tensor.detach(), cast, self.name).to(device=device)
            trained = isinstance(tensor, torch.nn.Parameter)
            return torch.nn.Parameter(moved, tensor.requires_grad) if trained else moved

        return Module(_structure_of(self._module, convert), self._forward, self._loss)

    def replaced(self, changes: Mapping[str, Change]) -> torch.nn.Module:
        """A module of its class with the changed weights, what happens to inputs folded in. ValueError where it cannot
        be.
        """
        folded: dict[str, Change] = {}
        for name, change in changes.items():
            folded[name] = (_folded(name, self._own(self._places[name]), change), change[1], None)
        module = _structure_of(self._module)
        for name, tensor in self._replacements(folded).items():
            owner, _, parameter = name.rpartition(".")
            new = torch.nn.Parameter(tensor.detach().clone(), requires_grad=False)
            module.get_submodule(owner).register_parameter(parameter, new)
        return module

    def save(self, changes: Mapping[str, Change], directory: str) -> None:
        """By its own save_pretrained."""
        if not hasattr(self._module, "save_pretrained"):
            raise ValueError(
                f"hemostat.Model.save: {self.name} has no save_pretrained; save the state_dict of Model.to_module()"
            )
        for name in changes:
            if self._places[name].expert is None and self._is_tied(self._places[name]):
                raise ValueError(
                    f"hemostat.Model.save: {name} shares its tensor with an embedding, and its files hold one for both"
                )
        with without_bars():
            self.replaced(changes).save_pretrained(directory)

    # --- what it computes ---

    def run(
        self,
        changes: Mapping[str, Change],
        batch: torch.Tensor,
        on_input: Observe | None,
        on_output: Observe | None,
    ) -> torch.Tensor:
        """Logits [B, T, V], or losses [B]; what the linears read and give goes to the functions."""
        treated = {name: change[2] for name, change in changes.items() if change[2] is not None}
        weights = {f"module.{name}": tensor for name, tensor in self._replacements(changes).items()}
        with self._lock, contextlib.ExitStack() as hooks:
            if on_input or treated:
                self._attend(hooks, weights, treated, on_input, on_output)
            return torch.func.functional_call(self._call, weights, (batch,), tie_weights=False)

    def _attend(
        self,
        hooks: contextlib.ExitStack,
        weights: Mapping[str, torch.Tensor],
        treated: Mapping[str, _C.LinearInput],
        on_input: Observe | None,
        on_output: Observe | None,
    ) -> None:
        """Sees, and treats, what linears read, until the stack is left."""
        experts: dict[str, list[str]] = {}
        for name, place in self._places.items():
            if place.expert is not None:
                experts.setdefault(place.weight, []).append(name)
            elif on_input or name in treated:
                linear = self._module.get_submodule(place.owner)
                before = _before(name, treated.get(name), on_input)
                hooks.callback(linear.register_forward_pre_hook(before, with_kwargs=True).remove)
                if on_output:
                    hooks.callback(linear.register_forward_hook(_after(name, on_output)).remove)
        if experts:
            stacks = [
                (weights.get(f"module.{parameter}", self._module.get_parameter(parameter)), names)
                for parameter, names in experts.items()
            ]
            hooks.enter_context(_ObservedExperts(stacks, treated, on_input, on_output, self.name))

    def _output(self, module: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        read = batch.to(self.dtype) if batch.is_floating_point() else batch
        output = (self._forward or _own_forward)(module, read)
        if self._loss is None:
            return _logits(output, self.name)
        return torch.stack([self._loss_of(_sample(output, i, len(batch)), batch[i : i + 1]) for i in range(len(batch))])

    def _loss_of(self, output: Any, sample: torch.Tensor) -> torch.Tensor:
        assert self._loss is not None
        loss = self._loss(output, sample) if self._loss_takes_batch else self._loss(output)
        if not isinstance(loss, torch.Tensor):
            raise TypeError(f"{FROM_MODULE}: loss gave a {type(loss).__name__}, but must give a tensor")
        return loss.mean()

    # --- weights ---

    def unread(self, counts: Mapping[str, int]) -> set[str]:
        """The linears that forward never calls, as counts of tokens say of those that were asked for: an expert may
        have had none, where another of its tensor has.
        """
        read = {self._places[name].weight for name, count in counts.items() if count > 0}
        return {name for name in counts if self._places[name].weight not in read}

    def embeddings(self) -> list[torch.Tensor]:
        return [part.weight for part in self._module.modules() if isinstance(part, torch.nn.Embedding)]

    def _stored(self, place: Place) -> torch.Tensor:
        return self._module.get_parameter(place.weight)

    def _own(self, place: Place) -> torch.Tensor:
        return _view(self._stored(place), place)

    def _is_tied(self, place: Place) -> bool:
        return any(_identity(weight) == _identity(self._stored(place)) for weight in self.embeddings())

    def _replacements(self, changes: Mapping[str, Change]) -> dict[str, torch.Tensor]:
        """The changed parameters, by their names."""
        found: dict[str, torch.Tensor] = {}
        experts: dict[str, dict[int, torch.Tensor]] = {}
        for name, (weight, bias, _) in changes.items():
            place = self._places[name]
            if weight is not None and place.expert is not None:
                experts.setdefault(place.weight, {})[place.expert] = weight.t() if place.transposed else weight
            elif weight is not None:
                found[place.weight] = weight.t() if place.transposed else weight
            if bias is not None and place.bias is not None:
                found[place.bias] = bias
        for parameter, changed in experts.items():
            stack = self._module.get_parameter(parameter)
            found[parameter] = torch.stack([changed.get(i, stack[i]) for i in range(len(stack))])
        return found


class _Call(torch.nn.Module):
    """A module with another forward."""

    def __init__(self, module: torch.nn.Module, forward: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.training = False
        self.module, self._forward = module, forward

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._forward(self.module, batch)


class _ObservedExperts(TorchFunctionMode):
    """Sees products with weights of experts that lie in tensors of three dimensions, for the length of one call."""

    def __init__(
        self,
        stacks: list[tuple[torch.Tensor, list[str]]],  # with the experts' names
        treated: Mapping[str, _C.LinearInput],
        on_input: Observe | None,
        on_output: Observe | None,
        module: str,
    ) -> None:
        super().__init__()
        self._treated, self._on_input, self._on_output, self._module = treated, on_input, on_output, module
        self._unseen = {stack: names for stack, names in enumerate(names for _, names in stacks)}
        self._stack_of = {name: stack for stack, names in self._unseen.items() for name in names}
        self._stacks = {_identity(stack): names for stack, names in stacks}
        self._experts = {_identity(stack[i]): name for stack, names in stacks for i, name in enumerate(names)}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if len(args) < 2 or not isinstance(args[1], torch.Tensor):
            return func(*args, **kwargs)
        kind, (x, weight, *rest) = getattr(func, "__name__", ""), args
        if kind in ONE_PRODUCT and weight.dim() == 2 and (name := self._experts.get(_identity(weight))):
            y = func(self._read(name, x), weight, *rest, **kwargs)
            self._gave(name, y)
            return y
        if kind in GROUPED_PRODUCTS and weight.dim() == 3 and (names := self._stacks.get(_identity(weight))):
            offsets = kwargs.get("offs", rest[0] if rest else None)
            rows = [(name, part) for name, part in zip(names, _groups(x, offsets), strict=True)]
            read = [self._read(name, part) if len(part) else part for name, part in rows]
            if self._treated:
                x = torch.stack(read) if offsets is None else torch.cat([*read, x[sum(map(len, read)) :]])
            y = func(x, weight, *rest, **kwargs)
            for name, part in zip(names, _groups(y, offsets), strict=True):
                if len(part):
                    self._gave(name, part)
            return y
        return func(*args, **kwargs)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        super().__exit__(kind, *rest)
        lost = [names[0] for names in self._unseen.values() if any(name in self._treated for name in names)]
        if kind is None and lost:
            raise ValueError(
                f"hemostat.Model.forward: {self._module} computes {lost[0]} and its like in a way that shows no input "
                "to treat; transformers' set_experts_implementation('grouped_mm') is one that does"
            )

    def _read(self, name: str, x: torch.Tensor) -> torch.Tensor:
        self._unseen.pop(self._stack_of[name], None)
        if self._on_input:
            self._on_input(name, x)
        return _C._treated_input(self._treated[name], x) if name in self._treated else x

    def _gave(self, name: str, y: torch.Tensor) -> None:
        if self._on_output:
            self._on_output(name, y)


# Functions of torch, and transformers' own where torch's does not serve, that take an input and one expert's weight, or
# the rows of all experts one after the other and all their weights.
ONE_PRODUCT = ("linear", "matmul", "mm", "__matmul__")
GROUPED_PRODUCTS = ("bmm", "_grouped_mm", "grouped_mm_fallback")


def _groups(x: torch.Tensor, offsets: torch.Tensor | None) -> list[torch.Tensor]:
    """Each expert's rows of x [experts, rows, features], or of [rows, features] where they end at the offsets."""
    if offsets is None:
        return list(x)
    ends = offsets.tolist()
    return [x[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


# --- what a module is made of ---


def _structure_of(
    module: torch.nn.Module, convert: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> torch.nn.Module:
    """A copy that shares the parameters, or has what `convert` makes of them and of buffers."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():  # such as a weight that a hook computes, which cannot be copied
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
    for parameter in module.parameters():
        memo[id(parameter)] = convert(parameter) if convert else parameter
    for buffer in module.buffers():
        memo[id(buffer)] = convert(buffer) if convert else buffer.detach().clone()
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise TypeError(
            f"{FROM_MODULE}: {type(module).__name__} cannot be copied without its tensors "
            f"({type(error).__name__}: {error})"
        ) from error


def _identity(tensor: torch.Tensor) -> tuple[int, int]:
    """Of its memory."""
    return tensor.data_ptr(), tensor.numel()


def _view(stored: torch.Tensor, place: Place) -> torch.Tensor:
    one = stored if place.expert is None else stored[place.expert]
    return one.t() if place.transposed else one


def _is_plain(tensor: torch.Tensor | None, dimensions: int) -> bool:
    """Whether it is a weight that can be replaced: not one of a class of its own, packed or made by a hook."""
    return type(tensor) is torch.nn.Parameter and tensor.is_floating_point() and tensor.dim() == dimensions


def _linears_in(module: torch.nn.Module) -> Iterator[tuple[str, Place]]:
    for name, part in module.named_modules():
        is_conv1d = type(part).__name__ == "Conv1D" and hasattr(part, "nf")  # transformers', of GPT-2
        if isinstance(part, torch.nn.Linear) or is_conv1d:
            if _is_plain(part._parameters.get("weight"), 2):
                bias = f"{name}.bias" if name else "bias"
                known = _is_plain(part._parameters.get("bias"), 1)
                yield name or "weight", Place(name, "weight", is_conv1d, bias=bias if known else None)
            continue
        if isinstance(part, torch.nn.modules.conv._ConvNd):
            continue
        for parameter, tensor in part._parameters.items():
            if _is_plain(tensor, 3) and _holds_experts(name, part, tensor):
                whole = f"{name}.{parameter}" if name else parameter
                for i in range(len(tensor)):
                    yield f"{whole}.{i}", Place(name, parameter, _is_transposed(part, parameter, tensor), i)


def _holds_experts(name: str, part: torch.nn.Module, tensor: torch.Tensor) -> bool:
    counts = ("num_experts", "num_local_experts", "n_routed_experts")
    named = "expert" in name.lower() or "expert" in type(part).__name__.lower()
    return named or any(getattr(part, count, None) == len(tensor) for count in counts)


def _is_transposed(part: torch.nn.Module, parameter: str, tensor: torch.Tensor) -> bool:
    """Whether each expert's weight is [in_features, out_features]: as transformers says, else as sizes tell."""
    said = getattr(part, "is_transposed", None)
    if isinstance(said, bool):
        return said
    hidden = next((size for name in ("hidden_dim", "hidden_size") if (size := getattr(part, name, None))), None)
    rows, columns = tensor.shape[1:]
    if rows == columns or hidden not in (rows, columns):
        return False
    return (rows == hidden) != ("down" in parameter or parameter == "w2")


def _output_weights(module: torch.nn.Module, has_loss: bool) -> set[tuple[int, int]]:
    """Which weights compute logits or are embeddings, by what identifies their memory."""
    embeddings = [part.weight for part in module.modules() if isinstance(part, torch.nn.Embedding)]
    found = {_identity(weight) for weight in embeddings}
    if (output := _output_embedding(module)) is not None:
        found.add(_identity(output.weight))
    elif not has_loss and embeddings:
        shape = embeddings[0].shape  # a language model of no library: its head is as large as its embedding
        found |= {_identity(p) for p in module.parameters() if p.shape == shape}
    return found


def _output_embedding(module: torch.nn.Module) -> torch.nn.Module | None:
    output = getattr(module, "get_output_embeddings", lambda: None)()
    return output if isinstance(getattr(output, "weight", None), torch.Tensor) else None


def _vocabulary(module: torch.nn.Module, config: Any) -> int:
    if (output := _output_embedding(module)) is not None:
        return len(output.weight)
    if isinstance(size := getattr(config, "vocab_size", None), int):
        return size
    embedding = next((part for part in module.modules() if isinstance(part, torch.nn.Embedding)), None)
    if embedding is None:
        raise ValueError(
            f"{FROM_MODULE}: {type(module).__name__} has no embedding of tokens, so it is no language model; "
            "give a loss, which says what to measure"
        )
    return embedding.num_embeddings


# --- what it computes ---


def _before(name: str, treatment: _C.LinearInput | None, on_input: Observe | None) -> Callable[..., Any]:
    def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0] if args else kwargs["input"]
        if on_input:
            on_input(name, x)
        if treatment is None:
            return None
        treated = _C._treated_input(treatment, x)
        return ((treated, *args[1:]), kwargs) if args else (args, kwargs | {"input": treated})

    return hook


def _after(name: str, on_output: Observe) -> Callable[..., None]:
    def hook(_: torch.nn.Module, __: Any, y: torch.Tensor) -> None:
        on_output(name, y)

    return hook


def _own_forward(module: torch.nn.Module, batch: torch.Tensor) -> Any:
    accepted = inspect.signature(module.forward).parameters
    arguments: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if getattr(getattr(module, "config", None), "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        arguments["decoder_input_ids"] = batch
    return module(batch, **arguments)


def _logits(output: Any, name: str) -> torch.Tensor:
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(logits := getattr(output, "logits", None), torch.Tensor):
        return logits
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    raise TypeError(
        f"{FROM_MODULE}: {name} gives a {type(output).__name__} without logits; give a forward that returns them, or a "
        "loss"
    )


def _sample(output: Any, index: int, count: int) -> Any:
    """What of an output belongs to one of `count` samples."""

    def part(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[index : index + 1] if tensor.dim() > 0 and len(tensor) == count else tensor

    return tree_map_only(torch.Tensor, part, output)


def _positional(function: Callable[..., Any]) -> int:
    """How many arguments it takes by position."""
    called = function.forward if isinstance(function, torch.nn.Module) else function
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(called).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    required = [p for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    return len(required)


def _folded(name: str, own: torch.Tensor, change: Change) -> torch.Tensor | None:
    """The weight with what happens to its input, where that is linear."""
    weight, _, treatment = change
    if treatment is None:
        return weight
    if treatment.bits < 16 or treatment.noise > 0:
        raise ValueError(
            f"hemostat.Model: the input of {name} is quantized or noisy, which the module's own weights cannot express"
        )
    folded = (own if weight is None else weight).float()
    if treatment.rotation is not None:
        folded = folded @ treatment.rotation.float().t()
    if treatment.scale is not None:
        folded = folded * treatment.scale.float()
    return folded.to(own.dtype)


def _checked_cast(tensor: torch.Tensor, dtype: torch.dtype | None, name: str) -> torch.Tensor:
    result = tensor.to(dtype) if dtype else tensor
    if result.dtype != tensor.dtype and bool(tensor.isfinite().all()) and not bool(result.isfinite().all()):
        raise ValueError(
            f"hemostat.Model.to: a tensor of {name} reaches {float(tensor.abs().max()):.4g}, "
            f"but {str(dtype).removeprefix('torch.')} no further than {torch.finfo(dtype).max:.6g}"
        )
    return result


# --- models ---


def from_module(module: torch.nn.Module, *, forward: Forward | None = None, loss: Loss | None = None) -> _C.Model:
    """A model on a module's own forward; see :meth:`hemostat.Model.from_module`."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"{FROM_MODULE}: module is a {type(module).__name__}, but must be a torch.nn.Module")
    for name, function, counts, takes in (
        ("forward", forward, (2,), "(module, tokens)"),
        ("loss", loss, (1, 2), "(output) or (output, batch)"),
    ):
        if function is not None and (not callable(function) or _positional(function) not in counts):
            raise TypeError(f"{FROM_MODULE}: {name} is {function!r}, but must be a function of {takes}")
    return _model_of(_unwrapped(module), forward, loss, source=None)


def to_module(model: _C.Model) -> torch.nn.Module:
    """See :meth:`hemostat.Model.to_module`."""
    parts = _C._foreign_parts(model)
    if parts is None:
        raise ValueError("hemostat.Model.to_module: the model has blocks of its own; to_transformers() gives a module")
    foreign, changes = parts
    return foreign.replaced(changes)


def load(directory: str, dtype: torch.dtype | None, device: torch.device) -> _C.Model:
    """A model on the forward that transformers has for a checkpoint; what code lies in it is not run."""
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "hemostat.Model.load: foreign=True computes with transformers, which is not installed; "
            "run: pip install transformers"
        ) from None

    def fail(why: str) -> ValueError:
        return ValueError(f"hemostat.Model.load: {directory}: {why}")

    if not os.path.isfile(os.path.join(directory, "config.json")):
        raise fail("there is no config.json, which foreign=True takes")
    try:
        config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:
        raise fail(f"transformers cannot read its config: {_first_line(error)}") from error
    kind = next(
        (
            auto._model_mapping[type(config)]
            for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForSeq2SeqLM)
            if type(config) in auto._model_mapping
        ),
        None,
    ) or getattr(transformers, next(iter(config.architectures or []), ""), None)
    if kind is None:
        raise fail(f"transformers has no language model for a config of {type(config).__name__}")
    try:
        with without_bars():
            module, report = kind.from_pretrained(
                directory, config=config, dtype=dtype or "auto", output_loading_info=True
            )
    except Exception as error:
        raise fail(f"transformers cannot load it: {_first_line(error)}") from error
    for problem in ("missing_keys", "mismatched_keys"):
        if report[problem]:
            raise fail(f"{len(report[problem])} tensors are missing or of another shape: {sorted(report[problem])[0]}")
    return _model_of(module.to(device), None, None, source=directory)


def uncalled_linears(model: _C.Model, statistics: _C.Statistics) -> str:
    """A sentence on what no statistics reach in a foreign module; empty: next to nothing, or it is none."""
    parts = _C._foreign_parts(model)
    if parts is None:
        return ""
    foreign, _ = parts
    counts = {name: inputs.count for name, inputs in statistics.items()}
    if not counts:
        return ""
    unread, linears = foreign.unread(counts), foreign.linears()
    uncalled = [name for name, *_ in linears if name in unread]
    reached = {_identity(weight): weight.numel() for weight in foreign.embeddings()}
    for name, weight, bias, output in linears:
        if output or name not in unread:
            reached |= {_identity(part): part.numel() for part in (weight, bias) if part is not None}
    share = 1 - sum(reached.values()) / model.parameters
    if not uncalled and share < UNREACHED:
        return ""
    names = ", ".join(uncalled[:NAMED]) + (f" and {len(uncalled) - NAMED} more" if len(uncalled) > NAMED else "")
    never = f"forward never calls {names}: methods that need statistics leave them as they are; " if uncalled else ""
    return f"{never}{100 * share:.0f} % of the parameters beside embeddings and the head are in no linear that it calls"


def _model_of(module: torch.nn.Module, forward: Forward | None, loss: Loss | None, source: str | None) -> _C.Model:
    config = getattr(module, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    generation = getattr(module, "generation_config", None)
    if source is None:
        named = getattr(config, "_name_or_path", None) or ""
        source = os.path.abspath(named) if os.path.isdir(named) else ""

    def first(*names: str, of: tuple[Any, ...] = (text,)) -> Any:
        found = (getattr(owner, name, None) for owner in of for name in names)
        return next((value for value in found if value is not None), None)

    eos = first("eos_token_id", of=(generation, text, config))
    bos = first("bos_token_id", of=(generation, text, config))
    return _C._foreign_model(
        Module(module, forward, loss),
        family=first("model_type", of=(config,)) or type(module).__name__,
        vocab_size=0 if loss else _vocabulary(module, text),
        hidden_size=first("hidden_size", "d_model", "n_embd") or 0,
        context=UNLIMITED if loss else first(*CONTEXTS) or UNLIMITED,
        eos_token_ids=[
            token for token in (eos if isinstance(eos, list) else [eos]) if token is not None and token >= 0
        ],
        bos_token_id=bos,
        json=config.to_json_string() if hasattr(config, "to_json_string") else "{}",
        source=source,
    )


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """What torch.compile and wrappers for many devices hold."""
    wrappers = ("OptimizedModule", "DataParallel", "DistributedDataParallel", "FullyShardedDataParallel")
    while type(module).__name__ in wrappers:
        module = getattr(module, "_orig_mod", None) or module.module
    return module


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
