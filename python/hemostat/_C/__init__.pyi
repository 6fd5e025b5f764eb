"""
The C++ library behind the hemostat package.
"""

from __future__ import annotations

import collections.abc
import os
import typing

import numpy
import torch

from . import ablate, context, decode, extend, lowrank, metrics, noise, normalize, prune, quantize, solve

__all__: list[str] = [
    "Attention",
    "Axis",
    "BaselineEvaluation",
    "Block",
    "CacheQuantization",
    "Composition",
    "Damage",
    "Decoder",
    "Experts",
    "GenerationDamage",
    "GenerationProtocol",
    "GradientStatistics",
    "Head",
    "InputPerturbation",
    "InputStatistics",
    "KlSummary",
    "KvCache",
    "Linear",
    "LinearInput",
    "Linears",
    "Localization",
    "LogitMap",
    "Method",
    "MethodSpec",
    "Mlp",
    "Model",
    "ModelConfig",
    "NoiseFloor",
    "Norm",
    "NumericalError",
    "Observer",
    "OptionSpec",
    "PlannedMethod",
    "PlannedSurface",
    "Prepared",
    "Rope",
    "ScanResult",
    "Site",
    "Statistics",
    "Surface",
    "SweepCurve",
    "Threshold",
    "Trial",
    "Zone",
    "ablate",
    "collect",
    "compare",
    "compose",
    "compress",
    "context",
    "decode",
    "difference_interval",
    "estimated_work",
    "every_need",
    "extend",
    "family_config",
    "find_method",
    "find_threshold",
    "first_nonfinite",
    "generate",
    "gguf_tokenizer",
    "gradient_needs",
    "held_bytes",
    "isotropic_control",
    "judge",
    "localize",
    "lowrank",
    "measure_noise_floor",
    "methods",
    "metrics",
    "needs_of",
    "noise",
    "normalize",
    "plan",
    "plan_joint",
    "prepare",
    "prune",
    "quantize",
    "register_method",
    "scan",
    "solve",
    "structure",
    "surface",
    "sweep",
]

class LinearInput:
    """
    What happens to a linear layer's input first. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def bits(self) -> float:
        """
        Below 16: each token is fake-quantized to round(2^bits) levels.
        """
    @property
    def neutral(self) -> bool:
        """
        Whether the input is left as it is.
        """
    @property
    def noise(self) -> float:
        """
        σ of the noise, relative to the token's standard deviation.
        """
    @property
    def noise_seed(self) -> int:
        """
        Seed of the noise.
        """
    @property
    def rotation(self) -> torch.Tensor | None:
        """
        [in_features, in_features]: x @ rotation; None: no rotation.
        """
    @property
    def scale(self) -> torch.Tensor | None:
        """
        [in_features]: x · scale; None: no scaling.
        """
    @property
    def symmetric(self) -> bool:
        """
        Whether that quantization is symmetric.
        """

class Linear:
    """
    y = weight · x + bias, held as a weight, as two factors, or as packed codes. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def dense(self) -> torch.Tensor:
        """
        The weight [out_features, in_features], factors multiplied out and codes dequantized.
        """
    @property
    def a(self) -> torch.Tensor | None:
        """
        [out_features, r], the first factor, or None.
        """
    @property
    def b(self) -> torch.Tensor | None:
        """
        [r, in_features], the second factor, or None.
        """
    @property
    def bias(self) -> torch.Tensor | None:
        """
        [out_features], or None.
        """
    @property
    def defined(self) -> bool:
        """
        False: the model has no such layer.
        """
    @property
    def factored(self) -> bool:
        """
        Whether the layer is held as two factors.
        """
    @property
    def in_features(self) -> int:
        """
        Features of the input.
        """
    @property
    def input(self) -> LinearInput:
        """
        What happens to the input first.
        """
    @property
    def out_features(self) -> int:
        """
        Features of the output.
        """
    @property
    def packed(self) -> quantize.PackedWeight | None:
        """
        The codes as stored, or None.
        """
    @property
    def stored_bits(self) -> float:
        """
        Bits per weight of the format that a dense weight was rounded to, scales and zero points included; 0: none, so those of its dtype.
        """
    @property
    def weight(self) -> torch.Tensor | None:
        """
        [out_features, in_features]; None where the layer is factored or packed.
        """

class Norm:
    """
    A normalization layer. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def alpha(self) -> float:
        """
        dynamic_tanh: weight · tanh(alpha · x) + bias.
        """
    @property
    def bias(self) -> torch.Tensor | None:
        """
        [features], or None.
        """
    @property
    def epsilon(self) -> float:
        """
        Added to the mean square (rms) or the variance (layer).
        """
    @property
    def kind(self) -> str:
        """
        'rms', 'layer', 'dynamic_tanh' or 'none'.
        """
    @property
    def weight(self) -> torch.Tensor | None:
        """
        [features], or None.
        """

class Rope:
    """
    Rotary position embedding. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def attention_scale(self) -> float:
        """
        Multiplies cosine and sine (YaRN).
        """
    @property
    def inverse_frequencies(self) -> torch.Tensor | None:
        """
        float32 [rotary_dim / 2], radians per position; None: no rotation.
        """

class CacheQuantization:
    """
    Fake quantization of the key-value cache. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def bits(self) -> float:
        """
        Below 16: round(2^bits) levels.
        """
    @property
    def key_max(self) -> torch.Tensor | None:
        """
        float32 [kv_heads, head_dim]; None: keys are quantized per token.
        """
    @property
    def key_min(self) -> torch.Tensor | None:
        """
        float32 [kv_heads, head_dim]; None: keys are quantized per token.
        """

class Attention:
    """
    A block's attention. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def cache(self) -> CacheQuantization:
        """
        Quantization of the key-value cache.
        """
    @property
    def head_dim(self) -> int:
        """
        Features of a head.
        """
    @property
    def heads(self) -> int:
        """
        Query heads.
        """
    @property
    def k(self) -> Linear:
        """
        Key projection.
        """
    @property
    def k_norm(self) -> Norm:
        """
        Norm of each key head, before the rotation.
        """
    @property
    def kv_heads(self) -> int:
        """
        Key-value heads.
        """
    @property
    def o(self) -> Linear:
        """
        Output projection.
        """
    @property
    def q(self) -> Linear:
        """
        Query projection.
        """
    @property
    def q_norm(self) -> Norm:
        """
        Norm of each query head, before the rotation.
        """
    @property
    def rope(self) -> Rope:
        """
        Rotary position embedding.
        """
    @property
    def scale(self) -> float:
        """
        Of q·k; 0: 1/sqrt(head_dim).
        """
    @property
    def sinks(self) -> int:
        """
        With a window: first positions that stay visible.
        """
    @property
    def v(self) -> Linear:
        """
        Value projection.
        """
    @property
    def window(self) -> int:
        """
        Tokens that one sees, itself included; 0: all before it.
        """

class Mlp:
    """
    down(activation(gate(x)) · up(x)), or down(activation(up(x))). Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def activation(self) -> str:
        """
        'silu', 'gelu', 'gelu_tanh' or 'relu'.
        """
    @property
    def down(self) -> Linear:
        """
        Down projection.
        """
    @property
    def gate(self) -> Linear:
        """
        Gate projection; not defined where there is none.
        """
    @property
    def up(self) -> Linear:
        """
        Up projection.
        """

class Experts:
    """
    A mixture of MLPs and how it chooses. Read-only.
    """
    def __len__(self) -> int: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def mlps(self) -> list[Mlp]:
        """
        The experts; empty where the block has a dense MLP.
        """
    @property
    def normalize(self) -> bool:
        """
        Whether the chosen weights sum to 1.
        """
    @property
    def router(self) -> Linear:
        """
        [experts, hidden_size].
        """
    @property
    def temperature(self) -> float:
        """
        softmax(router(x)/temperature) chooses.
        """
    @property
    def top_k(self) -> int:
        """
        Experts that each token uses.
        """

class Block:
    """
    One transformer block. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def attention(self) -> Attention:
        """
        The attention sublayer.
        """
    @property
    def attention_norm(self) -> Norm:
        """
        Norm of the attention sublayer.
        """
    @property
    def attention_output_norm(self) -> Norm:
        """
        Norm of the attention's output before it is added.
        """
    @property
    def attention_residual(self) -> bool:
        """
        False: the attention's input is not added to its output.
        """
    @property
    def experts(self) -> Experts:
        """
        The mixture of experts; empty where the MLP is dense.
        """
    @property
    def mlp(self) -> Mlp:
        """
        The dense MLP; its layers are not defined where there are experts.
        """
    @property
    def mlp_norm(self) -> Norm:
        """
        Norm of the MLP sublayer.
        """
    @property
    def mlp_output_norm(self) -> Norm:
        """
        Norm of the MLP's output before it is added.
        """
    @property
    def mlp_residual(self) -> bool:
        """
        False: the MLP's input is not added to its output.
        """
    @property
    def origin(self) -> int:
        """
        Index of the checkpoint's block that this one came from.
        """
    @property
    def placement(self) -> str:
        """
        'pre': x + f(norm(x)); 'post': norm(x + f(x)).
        """
    @property
    def skip_attention(self) -> bool:
        """
        The attention is not computed and adds nothing.
        """
    @property
    def skip_mlp(self) -> bool:
        """
        The MLP is not computed and adds nothing.
        """

class InputPerturbation:
    """
    What happens to the tokens that a model reads. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def kind(self) -> str:
        """
        'none', 'replace', 'drop' or 'swap'.
        """
    @property
    def rate(self) -> float:
        """
        Fraction of the tokens, 0 … 1.
        """
    @property
    def seed(self) -> int:
        """
        Decides, with position and token, which fall.
        """

class LogitMap:
    """
    logits ← scale · logits + bias + a·(b·logits). Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def a(self) -> torch.Tensor | None:
        """
        [vocab_size, r], or None.
        """
    @property
    def b(self) -> torch.Tensor | None:
        """
        [r, vocab_size], or None.
        """
    @property
    def bias(self) -> torch.Tensor | None:
        """
        [vocab_size], or None.
        """
    @property
    def scale(self) -> float:
        """
        Multiplies the logits.
        """

class Head:
    """
    The output head and the map of its logits. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def linear(self) -> Linear:
        """
        [vocab_size, hidden_size]; the embedding's storage where they are tied.
        """
    @property
    def map(self) -> LogitMap:
        """
        What happens to the logits.
        """

class Decoder:
    """
    How a token is chosen from the logits. Read-only.

    The default draws from the model's own distribution.

    Args:
        temperature: Positive; the logits are divided by it. 1 changes nothing.
        do_sample: True: a token is drawn from softmax(logits / temperature). False: the most likely is taken, the lowest of
            equal ones, as transformers' ``generate`` does by default.
    """
    def __eq__(self, arg0: Decoder) -> bool: ...
    def __hash__(self) -> int: ...
    def __init__(
        self, *, temperature: typing.SupportsFloat | typing.SupportsIndex = 1.0, do_sample: bool = True
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def do_sample(self) -> bool:
        """
        Whether a token is drawn, or the most likely taken.
        """
    @property
    def temperature(self) -> float:
        """
        logits / temperature; 1 changes nothing.
        """

class ModelConfig:
    """
    What a checkpoint's config.json says. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def bos_token_id(self) -> int | None:
        """
        The token that begins a text, or None.
        """
    @property
    def context(self) -> int:
        """
        Longest sequence in tokens (max_position_embeddings).
        """
    @property
    def eos_token_ids(self) -> list[int]:
        """
        Tokens that end a text; often one, may be none.
        """
    @property
    def family(self) -> str:
        """
        model_type in config.json: 'llama', 'mistral', 'qwen2'.
        """
    @property
    def hidden_size(self) -> int:
        """
        Features of the residual stream.
        """
    @property
    def json(self) -> str:
        """
        The text of config.json as loaded.
        """
    @property
    def vocab_size(self) -> int:
        """
        Entries of the vocabulary.
        """

class Model:
    """
    A language model as data.

    From Python a model is immutable: methods that change something return another model, which shares every tensor that
    stayed as it was. Load one with :meth:`load`, or share a transformers module's with :meth:`from_transformers`.
    """
    @staticmethod
    def from_tensors(config: str | dict, tensors: collections.abc.Mapping[str, torch.Tensor]) -> Model:
        """
        A model from a config and named tensors, which are shared, gradients included.

        Args:
            config: What config.json holds, as its text or as a dict.
            tensors: By the names that the family's checkpoints give them.

        Returns:
            Model: The model.

        Raises:
            ValueError: For a config field that cannot be honoured, or a tensor that is missing, unknown or of a wrong shape.
        """
    @staticmethod
    def from_transformers(module: typing.Any) -> Model:
        """
        A model on the tensors of a transformers module.

        The tensors are shared and not detached: gradients reach the module's ``.grad``, and an optimizer's step on the
        module is seen here.

        Args:
            module: A transformers causal language model.

        Returns:
            Model: The model.

        Raises:
            ValueError: For a module whose config cannot be honoured; the message names the field.
        """
    @staticmethod
    def load(
        checkpoint: str | os.PathLike, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Model:
        """
        Loads a checkpoint.

        Args:
            checkpoint: A Hugging Face directory (config.json and one or many \\*.safetensors), a GGUF file (a path that ends in
                .gguf, of the architectures llama or qwen2), or a model's id on the Hub, which is looked for in the local cache
                first and downloaded if it is not there.
            dtype: None keeps the stored one. Of a GGUF file None keeps block formats packed in the linear layers, which
                dequantize them on use (an embedding or a head in one is dense), and the model has bfloat16 or float16 where the
                file has a matrix of it, else float32; with a dtype every weight is dense.
            device: Where the tensors go. On the CPU in the stored dtype they are views on the mapped files.

        Returns:
            Model: The model.

        Raises:
            ValueError: Where there is no such checkpoint, or it has a config field that cannot be honoured or a tensor that
                does not fit; the message names it.
        """
    def __call__(
        self,
        tokens: torch.Tensor | numpy.ndarray | list,
        *,
        cache: KvCache | None = None,
        observer: Observer | None = None,
    ) -> torch.Tensor:
        """
        The logits of each token's successor.

        Autograd works through it. Logits are raw: what decoding does to them is in :attr:`decoder`.

        Args:
            tokens: Integers [B, T] (or [T], which is one sequence), ids in 0 … vocab_size − 1: a tensor on the model's device,
                an array, or a list.
            cache: Continues after the tokens it holds and adds these to it.
            observer: Sees the pass from inside.

        Returns:
            Logits [B, T, vocab_size] in the model's dtype.

        Raises:
            ValueError: For an id out of range or tokens on another device.
            TypeError: For tokens that are not integers.
        """
    def __copy__(self) -> typing.Any: ...
    def __reduce__(self) -> tuple: ...
    def __repr__(self) -> str: ...
    def forward(
        self,
        tokens: torch.Tensor | numpy.ndarray | list,
        *,
        cache: KvCache | None = None,
        observer: Observer | None = None,
    ) -> torch.Tensor:
        """
        The logits of each token's successor.

        Autograd works through it. Logits are raw: what decoding does to them is in :attr:`decoder`.

        Args:
            tokens: Integers [B, T] (or [T], which is one sequence), ids in 0 … vocab_size − 1: a tensor on the model's device,
                an array, or a list.
            cache: Continues after the tokens it holds and adds these to it.
            observer: Sees the pass from inside.

        Returns:
            Logits [B, T, vocab_size] in the model's dtype.

        Raises:
            ValueError: For an id out of range or tokens on another device.
            TypeError: For tokens that are not integers.
        """
    def linears(
        self,
        include: str | collections.abc.Sequence[str] | None = None,
        exclude: str | collections.abc.Sequence[str] | None = None,
    ) -> Linears:
        """
        The linears, as (name, weight) pairs.

        Names are the checkpoint's own without ``.weight``; repeated blocks repeat theirs.

        Args:
            include: fnmatch pattern or patterns on names. None: the linears inside blocks, routers left out; with it, all that
                match, the head and routers too.
            exclude: Pattern or patterns of names to leave out.

        Returns:
            Linears: A sequence of pairs.

        Example:
            >>> shapes = {name: tuple(weight.shape) for name, weight in model.linears(include="*.mlp.*")}
        """
    def replace(self, weights: collections.abc.Mapping[str, torch.Tensor]) -> Model:
        """
        A model whose named linears have other weights; biases stay.

        Args:
            weights: By the names of :meth:`linears`, each [out_features, in_features]. A linear becomes dense.

        Returns:
            Model: Shares every other tensor.

        Raises:
            ValueError: For an unknown name or a wrong shape.
            TypeError: For a dtype that is not floating.

        Example:
            >>> half = model.replace({name: weight * 0.5 for name, weight in model.linears()})
        """
    def save(self, path: os.PathLike | str | bytes) -> None:
        """
        Writes what :meth:`load` and transformers read, whole or not at all.

        A directory gets config.json, model.safetensors, and what lies beside the weights in :attr:`source`: tokenizer, chat
        templates, generation config, licence, model card, custom code (not hidden files, folders and what holds other tensors).
        What transformers cannot express goes to hemostat.json, and a warning says so, as of what was left behind.

        In a directory that holds a checkpoint already, only files that are written are replaced (a link by a file), and weights,
        indexes and hemostat.json that the new model contradicts are removed; everything else stays. A process that is killed
        leaves the old model or the new one; where it was killed between the renames at the end, the next load or save does
        those that are left.

        A GGUF file holds all in one, the tokenizer included. Weights that are packed in one of its block formats keep their
        bytes; the others have the model's dtype, norms and biases float32. A warning says what transformers would overlook in
        it.

        Args:
            path: Where to: a directory, or a GGUF file where it ends in .gguf. Links are followed, missing parents made. It may
                be where the model came from.

        Raises:
            ValueError: Where it cannot be written, what is there is no checkpoint of a model that hemostat reads (or no GGUF
                file), or has an adapter_config.json; where a file beside the weights cannot be copied; or GGUF cannot express
                the model (per-layer sizes, factors, treatments, attention windows). The message names the file, and nothing is
                changed.
        """
    def tensors(self) -> dict[str, torch.Tensor]:
        """
        Named tensors as :meth:`save` writes them; a tied head is left out.

        Returns:
            dict[str, torch.Tensor]: By the names that the family's checkpoints give them.
        """
    def to(self, dtype: torch.dtype | None = None, device: str | torch.device | None = None) -> Model:
        """
        The model in another dtype or on another device.

        Args:
            dtype: None keeps it.
            device: None keeps it.

        Returns:
            Model: Shares the tensors that are already so.
        """
    def to_transformers(self) -> typing.Any:
        """
        A transformers causal language model with this model's tensors, which are shared.

        Returns:
            transformers.PreTrainedModel: In evaluation mode.

        Raises:
            ValueError: Where transformers cannot express the model (per-layer sizes, factors, input treatments).
        """
    @property
    def blocks(self) -> list[Block]:
        """
        The blocks in order.
        """
    @property
    def bytes(self) -> float:
        """
        Bytes of those, as stored: weights that a method rounded to a format as that format stores them, others in their dtype.
        """
    @property
    def config(self) -> ModelConfig:
        """
        What the checkpoint's config says.
        """
    @property
    def decoder(self) -> Decoder:
        """
        What decoding does to the logits.
        """
    @property
    def device(self) -> torch.device:
        """
        Device of the weights.
        """
    @property
    def dtype(self) -> torch.dtype:
        """
        dtype of the weights.
        """
    @property
    def embedding(self) -> torch.Tensor:
        """
        [vocab_size, hidden_size].
        """
    @property
    def final_norm(self) -> Norm:
        """
        The norm before the head.
        """
    @property
    def head(self) -> Head:
        """
        The output head.
        """
    @property
    def input(self) -> InputPerturbation:
        """
        What happens to the tokens that the model reads.
        """
    @property
    def parameters(self) -> int:
        """
        Entries of all distinct weights; packed and factored ones as stored.
        """
    @property
    def source(self) -> str:
        """
        The directory or GGUF file it was loaded from; empty: none.
        """
    @property
    def tied(self) -> bool:
        """
        Whether the head's weight is the embedding.
        """
    @property
    def tokenizer(self) -> typing.Any:
        """
        The ``tokenizers.Tokenizer`` of :attr:`source`: its tokenizer.json, or a GGUF file's own. ValueError where
        there is none.
        """

class KvCache:
    """
    Keys and values of the tokens that a model has read.

    Pass it to :meth:`Model.forward` as ``cache``: the tokens given then continue after those it holds, and are added to it.

    Args:
        model: The model that fills it; another model's shapes don't fit.
        batch: Sequences side by side.
        capacity: Tokens to reserve memory for; it grows beyond.
    """
    def __init__(
        self,
        model: Model,
        batch: typing.SupportsInt | typing.SupportsIndex = 1,
        capacity: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def length(self) -> int:
        """
        Tokens held.
        """

class Observer:
    """
    Sees a forward pass from inside: subclass it and override what you want to see.

    Tensors are live: clone what you keep and may change. An exception raised in a method ends the forward pass and reaches
    its caller. Attention probabilities are computed only where ``wants_attention`` is true (a class attribute, a property
    or a method).

    Example:
        >>> class Norms(hemostat.Observer):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norms = []
        ...     def hidden_state(self, index, x):
        ...         self.norms.append(x.norm().item())
        >>> logits = model.forward(tokens, observer=Norms())
    """

    wants_attention: typing.ClassVar[bool] = False
    def __init__(self) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def attention(self, block: typing.SupportsInt | typing.SupportsIndex, probabilities: torch.Tensor) -> None:
        """
        Called with attention probabilities [B, heads, T, S] where ``wants_attention`` is true.

        Args:
            block: Index of the block in this model.
            probabilities: Rows sum to 1 over the S visible tokens.
        """
    def hidden_state(self, index: typing.SupportsInt | typing.SupportsIndex, x: torch.Tensor) -> None:
        """
        Called with the residual stream [B, T, hidden_size] before each block and after the last.

        Args:
            index: 0 … L; L is after the last block, before the final norm.
            x: The residual stream.
        """
    def linear_input(
        self, block: typing.SupportsInt | typing.SupportsIndex, names: collections.abc.Sequence[str], x: torch.Tensor
    ) -> None:
        """
        Called before the linears ``names``, which share the input ``x`` [..., in_features].

        Args:
            block: Index of the block in this model.
            names: The linears' names.
            x: The input as it is before the linears' own input treatment.
        """
    def linear_output(self, block: typing.SupportsInt | typing.SupportsIndex, name: str, y: torch.Tensor) -> None:
        """
        Called with what the linear ``name`` gives, [..., out_features].

        Args:
            block: Index of the block in this model.
            name: The linear's name.
            y: The output; what follows may be computed in its memory.
        """
    def routing(
        self, block: typing.SupportsInt | typing.SupportsIndex, experts: torch.Tensor, weights: torch.Tensor
    ) -> None:
        """
        Called with a mixture's choice for each token.

        Args:
            block: Index of the block in this model.
            experts: int64 [tokens, top_k], the chosen experts.
            weights: [tokens, top_k], their weights.
        """

class Linears:
    """
    The linears of a model, in order: names and weights.

    A sequence of (name, weight) pairs that can be indexed by name too. A weight that is held as factors or codes is
    multiplied out or dequantized each time it is asked for.
    """
    def __contains__(self, name: str) -> bool: ...
    @typing.overload
    def __getitem__(self, index: typing.SupportsInt | typing.SupportsIndex) -> tuple[str, torch.Tensor]:
        """
        The (name, weight) pair at an index.
        """
    @typing.overload
    def __getitem__(self, name: str) -> torch.Tensor:
        """
        The weight of a name; the first of them where blocks are repeated.
        """
    def __iter__(self) -> collections.abc.Iterator[tuple[str, torch.Tensor]]: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def input_ids(self) -> list[int]:
        """
        Of each the input that it reads: those with one number share it, as q, k and v of a block do.
        """
    @property
    def names(self) -> list[str]:
        """
        Names in order; repeated blocks repeat theirs.
        """
    @property
    def roles(self) -> list[str]:
        """
        What each is: 'q', 'k', 'v', 'o', 'gate', 'up', 'down', 'router' or 'head'.
        """

class InputStatistics:
    """
    Statistics of the input of a linear layer; linears that share an input share them.

    :func:`hemostat.collect` makes them for a model; made by hand they take the inputs of any layer.

    Args:
        in_features: Features of the input.
        needs: What to collect: 'column_norm', 'absmax', 'absmean', 'gram', 'mean'. None: all.
        device: Where the sums lie.
        memory_budget: Bytes; a Gram matrix beyond it lies in a mapped temporary file.

    Raises:
        ValueError: in_features is less than 1, or there is no such statistic of an input.

    Example:
        >>> import torch, hemostat
        >>> statistics = hemostat.InputStatistics(2, needs=["absmean"])
        >>> statistics.add(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
        >>> statistics.absmean
        tensor([2., 1.])
    """
    def __init__(
        self,
        in_features: typing.SupportsInt | typing.SupportsIndex,
        *,
        needs: collections.abc.Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def add(self, x: torch.Tensor) -> None:
        """
        Adds the tokens of a batch.

        Args:
            x: ``[..., in_features]``, any floating dtype. NaN and infinities are summed as they are.

        Raises:
            ValueError: x has other features.
            TypeError: x is not floating.
        """
    @property
    def absmax(self) -> torch.Tensor:
        """
        float32 [in_features]: largest |x|. ValueError if not collected.
        """
    @property
    def absmean(self) -> torch.Tensor:
        """
        float32 [in_features]: mean |x|. ValueError if not collected.
        """
    @property
    def count(self) -> int:
        """
        Tokens that were seen.
        """
    @property
    def gram(self) -> torch.Tensor:
        """
        float32 [in_features, in_features]: XᵀX / count. ValueError if not collected.
        """
    @property
    def in_features(self) -> int:
        """
        Features of the input.
        """
    @property
    def mean(self) -> torch.Tensor:
        """
        float32 [in_features]: mean of x, with its sign. ValueError if not collected.
        """
    @property
    def needs(self) -> set[str]:
        """
        What was collected: 'column_norm', 'absmax', 'absmean', 'gram', 'mean'.
        """
    @property
    def norm(self) -> torch.Tensor:
        """
        float32 [in_features]: root mean square of each feature. ValueError if not collected.
        """

class GradientStatistics:
    """
    Statistics of the gradients of a linear layer's weight, each of one window's mean negative log-likelihood. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def absmean(self) -> torch.Tensor:
        """
        float32 [out_features, in_features]: mean |gradient|. ValueError if not collected.
        """
    @property
    def count(self) -> int:
        """
        Windows that were seen.
        """
    @property
    def in_features(self) -> int:
        """
        Columns of the weight.
        """
    @property
    def mean(self) -> torch.Tensor:
        """
        float32 [out_features, in_features]: mean gradient. ValueError if not collected.
        """
    @property
    def needs(self) -> set[str]:
        """
        What was collected: 'gradient_mean', 'gradient_absmean', 'gradient_square'.
        """
    @property
    def out_features(self) -> int:
        """
        Rows of the weight.
        """
    @property
    def square(self) -> torch.Tensor:
        """
        float32 [out_features, in_features]: mean squared gradient, the diagonal of the empirical Fisher information. ValueError if not collected.
        """

class Statistics:
    """
    What :func:`hemostat.collect` gathered, by the names of linears.

    Of the inputs: a mapping. Of the gradients, where these were collected: :attr:`gradients`.

    Example:
        >>> statistics = hemostat.collect(model, calibration, needs=["column_norm", "gradient_square"])
        >>> norm = statistics["model.layers.0.self_attn.q_proj"].norm
        >>> fisher = statistics.gradients["model.layers.0.self_attn.q_proj"].square
    """
    def __contains__(self, linear: str) -> bool: ...
    def __getitem__(self, linear: str) -> InputStatistics: ...
    def __iter__(self) -> collections.abc.Iterator[str]: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def items(self) -> list[tuple[str, InputStatistics]]:
        """
        Pairs of name and statistics.
        """
    def keys(self) -> list[str]:
        """
        The linears' names, sorted.
        """
    def merge(self, other: Statistics) -> Statistics:
        """
        Adds what another pass gathered, as if one pass had seen both texts.

        Args:
            other: Statistics of the same linears and the same kinds.

        Returns:
            Statistics: This object.

        Raises:
            ValueError: Where names, sizes or kinds differ.
        """
    def values(self) -> list[InputStatistics]:
        """
        The statistics, in the order of the names.
        """
    @property
    def gradients(self) -> dict[str, GradientStatistics]:
        """
        Statistics of the gradients, by the linears' names.
        """
    @property
    def needs(self) -> set[str]:
        """
        What every input and every weight has: 'column_norm', 'absmax', 'absmean', 'gram', 'mean', 'gradient_mean', 'gradient_absmean', 'gradient_square'.
        """

class Axis:
    """
    The severity axis of a method: what its points are measured along.

    Args:
        name: What the severity is, ``"sparsity"``.
        unit: Its unit, ``"fraction"``.
        neutral: The severity at which the model comes back unchanged.
        minimum: Least severity that a method takes, beside neutral.
        maximum: Largest severity that a method takes, beside neutral.
        farthest: The severity at distance 1, which may lie beyond the range (0 bits). None: the end that is farther from
            neutral.
        kind: ``"continuous"``, ``"integer"`` or ``"listed"`` (only those in default_grid).
        step: Of a continuous axis: severities are rounded to neutral + k · step; 0: they are not.
        default_grid: Severities that a sweep measures unless told, without neutral.
        continuous_at_neutral: False: damage jumps there, and fits leave the neutral point out.
        measured_by: ``"teacher_forcing"`` or ``"generation"``.

    Raises:
        ValueError: For a range that is empty, a severity outside it, or another word.

    Example:
        >>> axis = hemostat.Axis(name="bits", unit="bits", neutral=16, minimum=2, maximum=16, default_grid=[8, 4, 3, 2])
    """

    __hash__: typing.ClassVar[None] = None
    def __eq__(self, arg0: typing.Any) -> bool: ...
    def __getstate__(self) -> dict: ...
    def __init__(
        self,
        *,
        name: str,
        unit: str = "",
        neutral: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        minimum: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        maximum: typing.SupportsFloat | typing.SupportsIndex = 1.0,
        farthest: typing.SupportsFloat | typing.SupportsIndex | None = None,
        kind: str = "continuous",
        step: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        default_grid: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
        continuous_at_neutral: bool = True,
        measured_by: str = "teacher_forcing",
    ) -> None: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, arg0: dict) -> None: ...
    def distance(self, severity: typing.SupportsFloat | typing.SupportsIndex) -> float:
        """
        How far a severity is from neutral.

        Args:
            severity: On this axis.

        Returns:
            float: |severity − neutral| / |farthest − neutral|, 0 … 1.

        Raises:
            ValueError: For NaN and infinities.
        """
    def severity_at(self, distance: typing.SupportsFloat | typing.SupportsIndex) -> float:
        """
        The inverse of :meth:`distance`.

        Args:
            distance: 0 … 1.

        Returns:
            float: The severity.

        Raises:
            ValueError: For NaN and infinities.
        """
    def to_dict(self) -> dict:
        """
        Every field, ready for JSON.

        Returns:
            dict: What the constructor takes.
        """
    @property
    def continuous_at_neutral(self) -> bool:
        """
        False: damage jumps at neutral.
        """
    @property
    def default_grid(self) -> list[float]:
        """
        Severities measured unless told, from mild to severe.
        """
    @property
    def direction(self) -> int:
        """
        1: damage grows as the severity rises; −1: as it falls (bits).
        """
    @property
    def farthest(self) -> float:
        """
        The severity at distance 1.
        """
    @property
    def kind(self) -> str:
        """
        'continuous', 'integer' or 'listed'.
        """
    @property
    def maximum(self) -> float:
        """
        Largest severity, beside neutral.
        """
    @property
    def measured_by(self) -> str:
        """
        'teacher_forcing' or 'generation'.
        """
    @property
    def minimum(self) -> float:
        """
        Least severity, beside neutral.
        """
    @property
    def name(self) -> str:
        """
        What the severity is.
        """
    @property
    def neutral(self) -> float:
        """
        The severity at which the model comes back unchanged.
        """
    @property
    def step(self) -> float:
        """
        Severities are rounded to neutral + k · step; 0: they are not.
        """
    @property
    def unit(self) -> str:
        """
        Its unit.
        """

class OptionSpec:
    """
    An option that a method takes.

    Args:
        name: The keyword.
        default: The value unless given; its type is the option's type.
        description: With unit and range.
        choices: Of a text option; empty: any.
    """
    def __init__(
        self, name: str, default: typing.Any, description: str = "", choices: collections.abc.Sequence[str] = []
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def choices(self) -> list[str]:
        """
        Of a text option; empty: any.
        """
    @property
    def default(self) -> bool | int | float | str | list[int] | list[str]:
        """
        The value unless given.
        """
    @property
    def description(self) -> str:
        """
        What it does, with unit and range.
        """
    @property
    def name(self) -> str:
        """
        The keyword.
        """

class Method:
    """
    A perturbation in the registry. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def axis(self) -> Axis:
        """
        The severity axis for default options, before a model is known.
        """
    @property
    def changes_weights(self) -> bool:
        """
        Whether noise as large as the change can stand beside it.
        """
    @property
    def description(self) -> str:
        """
        One line.
        """
    @property
    def in_place(self) -> bool:
        """
        Whether every block stays where it is.
        """
    @property
    def kind(self) -> str:
        """
        What it changes: weights, factors, activations, architecture, normalization, input, decoding; or 'user'.
        """
    @property
    def localizable(self) -> bool:
        """
        Whether parts of the changed model can be put into the unchanged one.
        """
    @property
    def name(self) -> str:
        """
        What it is called, ``'wanda'``.
        """
    @property
    def needs(self) -> set[str]:
        """
        Statistics that it reads by default: 'column_norm', 'absmax', 'absmean', 'gram', 'mean', 'gradient_mean', 'gradient_absmean', 'gradient_square'.
        """
    @property
    def on_linears(self) -> bool:
        """
        Whether it changes linear by linear, and can be calibrated block by block.
        """
    @property
    def options(self) -> list[OptionSpec]:
        """
        What its preparation takes.
        """

class MethodSpec:
    """
    A method and its options, as text: ``"rtn:group_size=64,symmetric=true"``.

    Args:
        text: A method's name, then options after a colon.
        **options: More options.

    Raises:
        ValueError: For an unknown method or option, or a bad value.
        TypeError: For an option of another type, or one that is given twice.
    """
    @staticmethod
    def parse(text: str) -> MethodSpec:
        """
        Reads a spec.

        Args:
            text: A method's name, then options after a colon.

        Returns:
            MethodSpec: The method and the options given.

        Raises:
            ValueError: For an unknown method or option, or a bad value.
        """
    def __init__(self, text: str, **kwargs) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def __str__(self) -> str: ...
    def text(self) -> str:
        """
        The canonical spelling: options sorted, defaults left out.
        """
    def to_dict(self) -> dict:
        """
        The method and its options, ready for JSON.

        Returns:
            dict: ``method`` and ``options``; numbers are numbers, also those of options that take a word too.
        """
    @property
    def method(self) -> str:
        """
        The method's name.
        """
    @property
    def options(self) -> dict[str, bool | int | float | str | list[int] | list[str]]:
        """
        The options given, by name.
        """

class Prepared:
    """
    A method made ready for one model: cheap to apply at any severity.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def at(self, severity: typing.SupportsFloat | typing.SupportsIndex) -> Model:
        """
        The model at a severity.

        Args:
            severity: On :attr:`axis`; integer axes take 4.0 too.

        Returns:
            Model: The unchanged model at neutral. Shares every tensor that the method leaves alone.

        Raises:
            ValueError: For a severity out of range or between two steps.
        """
    @property
    def axis(self) -> Axis:
        """
        The method's axis for this model and these options.
        """

class Composition:
    """
    Methods in order as one with as many axes: each changes what the one before it gave.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def at(self, *args) -> Model:
        """
        The model at a severity of each method.

        The preparation of a method after the first depends on the model that it gets, and is kept until a severity before it
        changes: walk a grid with the last severity innermost.

        Args:
            *severities: One a method, on its axis. Where one is neutral, that method does nothing.

        Returns:
            Model: The unchanged model where all are neutral. Shares every tensor that the methods leave alone.

        Raises:
            ValueError: For a severity out of range, or another number of them.
        """
    @property
    def axes(self) -> list[Axis]:
        """
        Each method's axis for the unchanged model, in order.
        """

class GenerationProtocol:
    """
    How damage by generation is measured. Read-only.

    Both models continue the first tokens of the first evaluated windows, with the same random numbers.

    Args:
        prompts: At most so many windows.
        prompt_length: Tokens of each; at most half of a window.
        new_tokens: At most, within the model's context and up to an end of text.
        decoder: Of both models, ``hemostat.Decoder(do_sample=False)`` for the most likely tokens. None: each its own.
    """
    def __init__(
        self,
        *,
        prompts: typing.SupportsInt | typing.SupportsIndex = 16,
        prompt_length: typing.SupportsInt | typing.SupportsIndex = 32,
        new_tokens: typing.SupportsInt | typing.SupportsIndex = 64,
        decoder: Decoder | None = None,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def decoder(self) -> Decoder | None:
        """
        Of both models; None: each its own.
        """
    @property
    def new_tokens(self) -> int:
        """
        At most so many new ones.
        """
    @property
    def prompt_length(self) -> int:
        """
        Tokens of each.
        """
    @property
    def prompts(self) -> int:
        """
        At most so many windows.
        """

class GenerationDamage:
    """
    Damage measured on continuations. Read-only.

    The baseline's and the damaged model's, of the same prompts, with the same random numbers.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def to_dict(self, *, positions: bool = False) -> dict:
        """
        Every field, ready for JSON: None stands for NaN.

        Args:
            positions: Whether to include each prompt's first divergence.

        Returns:
            dict: The interval is a list.
        """
    @property
    def distinct_1(self) -> float:
        """
        The same of the damaged model's.
        """
    @property
    def distinct_1_baseline(self) -> float:
        """
        Different tokens / tokens, over all of the baseline's continuations; NaN without tokens.
        """
    @property
    def distinct_2(self) -> float:
        """
        The same of the damaged model's.
        """
    @property
    def distinct_2_baseline(self) -> float:
        """
        Different pairs of neighbours / pairs, over all of the baseline's continuations.
        """
    @property
    def exact_match(self) -> float:
        """
        Fraction of prompts with equal continuations.
        """
    @property
    def first_divergence(self) -> float:
        """
        Their mean, in tokens.
        """
    @property
    def first_divergence_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of the mean, 95 %, bootstrap over prompts; None of one prompt.
        """
    @property
    def first_divergence_median(self) -> float:
        """
        Their median, in tokens.
        """
    @property
    def new_tokens(self) -> int:
        """
        Most tokens of a continuation.
        """
    @property
    def positions(self) -> list[int]:
        """
        Of each prompt: tokens in common before the first that differs or that only one has; ``new_tokens`` where none does.
        """
    @property
    def prompt_length(self) -> int:
        """
        Tokens of each.
        """
    @property
    def prompts(self) -> int:
        """
        Prompts that were continued.
        """
    @property
    def repetition(self) -> float:
        """
        The same of the damaged model's.
        """
    @property
    def repetition_baseline(self) -> float:
        """
        Fraction of 4-grams that occurred before in the same continuation, mean over the baseline's continuations; NaN where all are shorter than 4 tokens.
        """
    @property
    def seed(self) -> int:
        """
        Of the random numbers that both models share.
        """

class KlSummary:
    """
    KL(baseline ‖ damaged) over tokens, in nats. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def by_confidence(self) -> list[float]:
        """
        Mean in each quartile of the baseline's confidence, least confident first.
        """
    @property
    def max(self) -> float:
        """
        Largest.
        """
    @property
    def mean(self) -> float:
        """
        Mean.
        """
    @property
    def mean_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of the mean, 95 %, paired bootstrap over windows; None of one window.
        """
    @property
    def median(self) -> float:
        """
        Median.
        """
    @property
    def p90(self) -> float:
        """
        90th percentile.
        """
    @property
    def p99(self) -> float:
        """
        99th percentile.
        """
    @property
    def reverse_mean(self) -> float:
        """
        Mean of KL(damaged ‖ baseline).
        """

class Damage:
    """
    What was measured between a baseline and a damaged model on the same tokens.

    Teacher forcing: every target inside a window counts once. Logarithms are natural. :attr:`generation` alone is measured on
    text that the models write. Intervals are 95 %, from one paired bootstrap over windows; one window has none, they are
    None. Read-only.
    """
    @staticmethod
    def from_dict(fields: dict) -> Damage:
        """
        The inverse of :meth:`to_dict`.

        Args:
            fields: What ``to_dict(windows=True)`` gave, by this version or an earlier one. None stands for NaN.

        Returns:
            Damage: The same damage. What an earlier version did not measure is NaN, None or empty.

        Raises:
            ValueError: For a field that is missing, other than the windows' means, generation, and what earlier versions did
                not store.
        """
    def __getstate__(self) -> dict: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, arg0: dict) -> None: ...
    def to_dict(self, *, windows: bool = False, finite: bool = True) -> dict:
        """
        Every field, ready for JSON: None stands for NaN and infinity.

        Args:
            windows: Whether to include each window's NLL, KL, top-1 agreement and acceptance, which intervals of thresholds
                and of differences are made from, and each prompt's first divergence.
            finite: False: NaN and infinity stay as they are, so that :meth:`from_dict` gives back exactly this damage.

        Returns:
            dict: ``kl`` is a dict, an interval a list or None. ``generation`` is there where it was measured.
        """
    @property
    def acceptance(self) -> float:
        """
        Mean over tokens of Σ min(p, q), 0 … 1: what speculative decoding would accept.

        1 − acceptance is the mean total variation distance. NaN in damage that an earlier version stored without it.
        """
    @property
    def acceptance_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of acceptance; None of one window.
        """
    @property
    def accuracy(self) -> float:
        """
        The damaged model's top-1 accuracy, 0 … 1.
        """
    @property
    def accuracy_baseline(self) -> float:
        """
        The baseline's top-1 accuracy, 0 … 1.
        """
    @property
    def bits_per_byte(self) -> float | None:
        """
        NLL in bits per UTF-8 byte, comparable across tokenizers; None without a byte count.
        """
    @property
    def bytes(self) -> float | None:
        """
        Bytes of the damaged model as stored, in the formats that its weights were rounded to; None in damage that earlier versions stored.
        """
    @property
    def bytes_baseline(self) -> float | None:
        """
        Bytes of the baseline, as :attr:`Model.bytes`.
        """
    @property
    def calibration_error(self) -> float:
        """
        The damaged model's expected calibration error, 0 … 1.
        """
    @property
    def calibration_error_baseline(self) -> float:
        """
        The baseline's expected calibration error, 0 … 1.
        """
    @property
    def delta_nll(self) -> float:
        """
        nll − nll_baseline, nats per token.
        """
    @property
    def delta_nll_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of delta_nll, 95 %, paired bootstrap over windows; None of one window.
        """
    @property
    def delta_nll_unchanged(self) -> float | None:
        """
        Mean ΔNLL of the other tokens, nats; None where all changed.
        """
    @property
    def direction(self) -> float | None:
        """
        Which way it changed: mean ΔNLL of the tokens whose likeliest prediction did, nats.

        Above 0 the changes are for the worse, below for the better; None where none changed. ``delta_nll`` is
        ``volume · direction + (1 − volume) · delta_nll_unchanged``.
        """
    @property
    def direction_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of direction, a ratio of sums over windows; None unless two windows have a change.
        """
    @property
    def entropy_baseline(self) -> float:
        """
        The baseline's mean entropy, nats.
        """
    @property
    def entropy_shift(self) -> float:
        """
        Mean entropy of the damaged model minus the baseline's.
        """
    @property
    def flips_right_to_wrong(self) -> float:
        """
        Fraction of tokens that only the baseline got right.
        """
    @property
    def flips_wrong_to_right(self) -> float:
        """
        Fraction of tokens that only the damaged model got right.
        """
    @property
    def generation(self) -> GenerationDamage | None:
        """
        Damage measured on continuations, a :class:`GenerationDamage`; None where it was not.
        """
    @property
    def index(self) -> float | None:
        """
        The hemorrhage index, (NLL − NLL_base)/(NLL_unigram − NLL_base), from 0.

        0 for the unchanged model, 1 where it is no better than the unigram model; None where the baseline is no better.
        """
    @property
    def index_source(self) -> str:
        """
        Where the unigram counts came from: 'given' or 'evaluated tokens'.
        """
    @property
    def kl(self) -> KlSummary:
        """
        KL(baseline ‖ damaged).
        """
    @property
    def nll(self) -> float:
        """
        The damaged model's mean NLL, nats per token.
        """
    @property
    def nll_baseline(self) -> float:
        """
        The baseline's mean NLL, nats per token.
        """
    @property
    def no_better_than_unigram(self) -> bool:
        """
        Whether the baseline predicts the text no better than the unigram model does: then damage to it says nothing about what is safe, and there is no index.
        """
    @property
    def perplexity(self) -> float:
        """
        exp(nll) of the damaged model.
        """
    @property
    def perplexity_baseline(self) -> float:
        """
        exp(nll_baseline).
        """
    @property
    def silent(self) -> bool | None:
        """
        Whether delta_nll_interval holds 0: no damage was shown, which does not prove that there is none.

        None where there is no interval.
        """
    @property
    def tokens(self) -> int:
        """
        Targets that were evaluated.
        """
    @property
    def top1_agreement(self) -> float:
        """
        Fraction of tokens with the same likeliest prediction.
        """
    @property
    def top1_agreement_interval(self) -> tuple[float, float] | None:
        """
        (low, high) of top1_agreement; None of one window.
        """
    @property
    def top5_overlap(self) -> float:
        """
        Mean shared fraction of the five likeliest predictions.
        """
    @property
    def unigram_nll(self) -> float | None:
        """
        Mean NLL of the unigram model on the targets, nats per token; None in damage that earlier versions stored.
        """
    @property
    def volume(self) -> float:
        """
        How much changed: fraction of tokens whose likeliest prediction did, 1 − top1_agreement.
        """
    @property
    def window_acceptance(self) -> list[float]:
        """
        acceptance of each window.
        """
    @property
    def window_kl(self) -> list[float]:
        """
        Mean KL(baseline ‖ damaged) of each window.
        """
    @property
    def window_nll(self) -> list[float]:
        """
        The damaged model's mean NLL of each window.
        """
    @property
    def window_nll_baseline(self) -> list[float]:
        """
        The baseline's mean NLL of each window.
        """
    @property
    def window_top1_agreement(self) -> list[float]:
        """
        top1_agreement of each window.
        """
    @property
    def windows(self) -> int:
        """
        Windows that were evaluated.
        """
    @property
    def within_noise_floor(self) -> bool:
        """
        Whether a sweep found no more damage than numerics alone do.
        """

class BaselineEvaluation:
    """
    A baseline evaluated once, to be compared with many.

    Keeps the baseline's logits where they fit into the budget, else its final hidden states.

    Args:
        baseline: The unchanged model.
        tokens: int64 [windows, length] on the model's device.
        unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from the evaluated tokens.
        byte_count: UTF-8 bytes of all targets, for bits per byte.
        batch: Windows at a time.
        memory_budget: Bytes.
        bootstrap_samples: Resamples of the intervals.
        seed: Of the resampling, and of sampled text.
        generation: How :meth:`compare_generation` measures.
        progress: Called with (done, total) windows; what it raises ends the work.

    Raises:
        NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.
    """
    def __init__(
        self,
        baseline: Model,
        tokens: torch.Tensor,
        *,
        unigram: torch.Tensor | None = None,
        byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
        batch: typing.SupportsInt | typing.SupportsIndex = 4,
        memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
        bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
        seed: typing.SupportsInt | typing.SupportsIndex = 0,
        generation: GenerationProtocol = ...,
        progress: collections.abc.Callable | None = None,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def compare(self, damaged: Model) -> Damage:
        """
        The damage between the baseline and another model, by teacher forcing.

        Args:
            damaged: A model with the same vocabulary.

        Returns:
            Damage: What was measured.

        Raises:
            ValueError: Where the vocabularies differ.
        """
    def compare_generation(self, damaged: Model) -> GenerationDamage:
        """
        Compares both models' continuations of the same prompts.

        The baseline's are made once, at the first call. Models that choose the same tokens give exactly no damage.

        Args:
            damaged: A model with the same vocabulary.

        Returns:
            GenerationDamage: What was measured.

        Raises:
            ValueError: Where the vocabularies differ.
        """
    def unchanged(self) -> Damage:
        """
        The baseline compared with itself, without another forward pass: its perplexity, and no damage.
        """
    @property
    def bytes(self) -> float:
        """
        Memory that the kept logits or hidden states take.
        """
    @property
    def keeps_logits(self) -> bool:
        """
        Whether the baseline's logits fit into the budget.
        """
    @property
    def model(self) -> Model:
        """
        The baseline.
        """
    @property
    def tokens(self) -> torch.Tensor:
        """
        int64 [windows, length], what it was evaluated on.
        """

class Zone:
    """
    The robust zone at a tolerance: how far one can go. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def by(self) -> str:
        """
        'delta_nll', 'kl' or 'top1_agreement'.
        """
    @property
    def censored(self) -> bool:
        """
        Every measured severity is safe: the zone ends at the farthest of them.
        """
    @property
    def edge(self) -> float | None:
        """
        The estimate: where damage itself meets the tolerance, interpolated.
        """
    @property
    def edge_censored(self) -> bool:
        """
        The tolerance is never exceeded: the edge is the farthest measured severity.
        """
    @property
    def interval(self) -> tuple[float, float] | None:
        """
        (low, high) of the edge, 95 %, bootstrap over windows; None for one window and for plain arrays.
        """
    @property
    def severity(self) -> float | None:
        """
        How far safety is shown.

        Where the interpolated upper end of damage's 95 % interval meets the tolerance. None: even the mildest measured severity
        is not safe and damage jumps at neutral, or there is no interval (one window), or the baseline is no better than the
        unigram. Neutral: nothing beyond the unchanged model is known to be safe.
        """
    @property
    def tolerance(self) -> float:
        """
        Largest damage inside the zone: nats per token, or a share of tokens.
        """

class Threshold:
    """
    Where a damage curve turns. Read-only.

    Example:
        >>> threshold = hemostat.find_threshold(curve)
        >>> largest_safe_sparsity = threshold.zone(0.05)
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def edge(self, tolerance: typing.SupportsFloat | typing.SupportsIndex, *, by: str = "delta_nll") -> float | None:
        """
        The severity at which damage is estimated to reach a tolerance, interpolated as in :meth:`zone`.

        Args:
            tolerance: Damage, above 0.
            by: As in :meth:`zone`.

        Returns:
            float | None: The severity; the farthest measured one where none exceeds the tolerance; None where even the mildest one
            does.

        Raises:
            ValueError: For a tolerance that is not above 0, or another word.
        """
    def edge_interval(
        self, tolerance: typing.SupportsFloat | typing.SupportsIndex, *, by: str = "delta_nll"
    ) -> tuple[float, float] | None:
        """
        The 95 % interval of :meth:`edge`, bootstrap over windows.

        Args:
            tolerance: Damage, above 0.
            by: As in :meth:`zone`.

        Returns:
            tuple[float, float] | None: (low, high); None for one window and for plain arrays.

        Raises:
            ValueError: For a tolerance that is not above 0, or another word.
        """
    def to_dict(
        self, *, tolerances: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [0.02, 0.05, 0.1]
    ) -> dict:
        """
        The threshold, ready for JSON.

        Args:
            tolerances: Of the zones.

        Returns:
            dict: ``point``, ``interval`` and ``zone``, whose keys are the tolerances as text.
        """
    def zone(self, tolerance: typing.SupportsFloat | typing.SupportsIndex, *, by: str = "delta_nll") -> float | None:
        """
        The largest severity that is shown to be safe, seen from neutral.

        Where the upper end of damage's 95 % interval meets the tolerance: made monotone (running maximum), then interpolated
        linearly in distance from neutral. Integer axes step back to the last whole step within the tolerance. Of plain arrays,
        whose numbers are taken as known, the same as :meth:`edge`.

        Args:
            tolerance: Largest damage that is still safe, above 0.
            by: What the tolerance is about: ``"delta_nll"`` or ``"kl"`` (the mean), nats per token; ``"top1_agreement"``: the share
                of tokens whose prediction changed, 1 − agreement.

        Returns:
            float | None: The severity; the farthest measured one where all are safe (see :meth:`zone_details`); None where even the
            mildest one is not, where there is one window and so no interval, and where the baseline is no better than the unigram.

        Raises:
            ValueError: For a tolerance that is not above 0, or another word.
        """
    def zone_details(self, tolerance: typing.SupportsFloat | typing.SupportsIndex, *, by: str = "delta_nll") -> Zone:
        """
        Zone and edge with the edge's interval, and whether they are censored.

        Args:
            tolerance: Largest damage that is still safe, above 0.
            by: As in :meth:`zone`.

        Returns:
            Zone: The zone.
        """
    @property
    def interval(self) -> tuple[float, float] | None:
        """
        (low, high) of the point, or None.
        """
    @property
    def point(self) -> float | None:
        """
        The phase-transition point, a severity; None where none is fitted.
        """

class Site:
    """
    A part of a model that was damaged alone, and what that did. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def block(self) -> int | None:
        """
        Index of its block in the model; None: the embedding, final norm or head.
        """
    @property
    def cascade_gain(self) -> float | None:
        """
        Relative error after the last block, divided by :attr:`error`; None where that is 0.
        """
    @property
    def control(self) -> Damage | None:
        """
        What isotropic noise as large as the change does there.

        None where no weight changed, or no control was asked for.
        """
    @property
    def damage(self) -> Damage:
        """
        What damaging it alone did.
        """
    @property
    def delta_nll(self) -> float:
        """
        Of :attr:`damage`, nats per token.
        """
    @property
    def error(self) -> float | None:
        """
        Relative error of the residual stream right after the block.

        ‖h′ − h‖/‖h‖, Frobenius norms over all tokens; None for the final norm and the head, which change none.
        """
    @property
    def kl(self) -> float:
        """
        Mean KL of :attr:`damage`, nats per token.
        """
    @property
    def linear(self) -> str | None:
        """
        Of a linear, its name within the block: 'mlp.down_proj'; None: not a linear.
        """
    @property
    def name(self) -> str:
        """
        As checkpoints spell it: 'model.layers.3', or a linear's full name.
        """
    @property
    def noise_delta_nll(self) -> float | None:
        """
        ΔNLL of :attr:`control`, nats per token.
        """
    @property
    def noise_kl(self) -> float | None:
        """
        Mean KL of :attr:`control`, nats per token.
        """

class Localization:
    """
    Where a damaged model bleeds. Read-only.

    A sequence of its :attr:`sites`; ``print`` shows them as a table.
    """
    @staticmethod
    def from_dict(fields: dict) -> Localization:
        """
        The inverse of :meth:`to_dict`.

        Args:
            fields: What ``to_dict(complete=True)`` gave.

        Returns:
            Localization: The same.

        Raises:
            ValueError: For a field that is missing.
        """
    def __getitem__(self, index: int | slice) -> typing.Any:
        """
        The site at an index, or a list of them.
        """
    def __getstate__(self) -> dict: ...
    def __iter__(self) -> collections.abc.Iterator[Site]: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def __setstate__(self, arg0: dict) -> None: ...
    def __str__(self) -> str: ...
    def to_dataframe(self) -> typing.Any:
        """
        One row a site, of the numbers in :meth:`to_dict`.

        Returns:
            pandas.DataFrame: In the model's order.
        """
    def to_dict(self, *, complete: bool = False) -> dict:
        """
        What ``report.json`` holds of it: None stands for NaN and infinity.

        Args:
            complete: Also each damage as a whole, and NaN as it is: what :meth:`from_dict` reads.

        Returns:
            dict: ``sites`` is a list of dicts.
        """
    def worst(self, count: typing.SupportsInt | typing.SupportsIndex = 5) -> list[Site]:
        """
        The sites that do most damage.

        Args:
            count: At most so many.

        Returns:
            list[Site]: The largest ΔNLL first.
        """
    @property
    def additivity(self) -> float | None:
        """
        Sum of the sites' ΔNLL, divided by the whole's.

        1 where the parts add up, above 1 where they hide each other, below 1 where they make each other worse. None where the
        whole's interval of ΔNLL holds 0, or a number is not finite.
        """
    @property
    def additivity_kl(self) -> float | None:
        """
        The same of mean KL; None where the whole's is 0 or a number is not finite.
        """
    @property
    def cascade_gain(self) -> list[float]:
        """
        Error out / error in of each block, L numbers; NaN where the error before it is 0.
        """
    @property
    def layer_error(self) -> list[float]:
        """
        Relative error of the whole damaged model's residual stream.

        L + 1 numbers: before each block and after the last.
        """
    @property
    def method(self) -> str:
        """
        The method's canonical spec; empty: two models were given.
        """
    @property
    def seconds(self) -> float:
        """
        What it took.
        """
    @property
    def severity(self) -> float:
        """
        On the method's axis; NaN: two models were given.
        """
    @property
    def sites(self) -> list[Site]:
        """
        Each part damaged alone, in the model's order.
        """
    @property
    def whole(self) -> Damage:
        """
        The damage of the model with all of its parts damaged.
        """

class Trial:
    """
    One method at one severity, and what it did. Read-only.

    Args:
        method: The method's canonical spec.
        severity: On its axis.
        damage: What was measured.
        seconds: What applying and evaluating took.
        seconds_prepare: What preparing the method took, where this trial was the first to need it.
    """
    def __init__(
        self,
        method: str,
        severity: typing.SupportsFloat | typing.SupportsIndex,
        damage: Damage,
        seconds: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        seconds_prepare: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def damage(self) -> Damage:
        """
        What was measured.
        """
    @property
    def method(self) -> str:
        """
        The method's canonical spec.
        """
    @property
    def seconds(self) -> float:
        """
        What applying and evaluating took.
        """
    @property
    def seconds_prepare(self) -> float:
        """
        What preparing the method took, where this trial was the first to need it.
        """
    @property
    def severity(self) -> float:
        """
        On the method's axis.
        """

class NoiseFloor:
    """
    The damage that numerics alone do. Read-only.

    A float32 model against itself computed in bfloat16, half types against float32.

    Args:
        against: The other compute type.
        delta_nll: abs(ΔNLL), nats per token.
        kl: Mean KL, nats per token.
        top1_agreement: Fraction of tokens.
    """
    def __init__(
        self,
        against: str,
        delta_nll: typing.SupportsFloat | typing.SupportsIndex,
        kl: typing.SupportsFloat | typing.SupportsIndex,
        top1_agreement: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def to_dict(self) -> dict:
        """
        Every field, ready for JSON.
        """
    @property
    def against(self) -> str:
        """
        The other compute type.
        """
    @property
    def delta_nll(self) -> float:
        """
        Farther end of ΔNLL's interval, of one window abs(ΔNLL); nats per token.
        """
    @property
    def kl(self) -> float:
        """
        Mean KL, nats per token.
        """
    @property
    def top1_agreement(self) -> float:
        """
        Fraction of tokens with the same top-1 prediction.
        """

class SweepCurve:
    """
    Damage along one method's axis. Read-only.

    Args:
        method: The method's canonical spec.
        axis: Its axis for the model.
        severities: From mild to severe.
        damages: One for each severity.
        noise_floor: The damage that numerics alone do; None where it is unknown.
        seconds_prepare: What preparing took.
        seconds: What each trial took.

    Raises:
        ValueError: Where damages and severities differ in number.
    """
    def __init__(
        self,
        method: str,
        axis: Axis,
        severities: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex],
        damages: collections.abc.Sequence[Damage],
        noise_floor: NoiseFloor | None,
        seconds_prepare: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        seconds: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] = [],
    ) -> None: ...
    def __len__(self) -> int: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def to_dict(self, *, windows: bool = False) -> dict:
        """
        Every field, ready for JSON.

        Args:
            windows: Whether damages include each window's NLL.

        Returns:
            dict: ``axis``, ``noise_floor`` and each damage are dicts.
        """
    @property
    def axis(self) -> Axis:
        """
        Its axis for the model.
        """
    @property
    def damages(self) -> list[Damage]:
        """
        What each severity did.
        """
    @property
    def distances(self) -> list[float]:
        """
        The severities' distances from neutral, 0 … 1.
        """
    @property
    def method(self) -> str:
        """
        The method's canonical spec.
        """
    @property
    def noise_floor(self) -> NoiseFloor | None:
        """
        The damage that numerics alone do. None: unknown, since the other compute type gives no finite numbers.
        """
    @property
    def seconds(self) -> list[float]:
        """
        What each trial took.
        """
    @property
    def seconds_prepare(self) -> float:
        """
        What preparing took.
        """
    @property
    def severities(self) -> list[float]:
        """
        From mild to severe.
        """

class PlannedMethod:
    """
    The severities that a scan gives a method. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def axis(self) -> Axis:
        """
        The method's axis for the model.
        """
    @property
    def method(self) -> str:
        """
        The method's canonical spec.
        """
    @property
    def severities(self) -> list[float]:
        """
        In the order of the scan.
        """

class Surface:
    """
    What two methods in order do together, over a grid of both severities. Read-only.

    The first row of the grid is the second method alone, the first column the first method alone.

    Args:
        methods: Both canonical specs, in the order in which they are applied.
        axes: Their axes for the unchanged model.
        severities: Of each, from mild to severe; the first of each is neutral.
        damages: A list for each severity of the first, with one for each severity of the second.
        noise_floor: The damage that numerics alone do; None where it is unknown.
        seconds_prepare: What preparing took.
        seconds: What each trial took, as ``damages``.

    Raises:
        ValueError: Where damages are not such a grid, or severities don't begin with neutral.

    Example:
        >>> surface = hemostat.surface(model, ("wanda", "rtn"), evaluation, statistics=statistics)
        >>> fewest_bits = dict(zip(surface.severities[0], surface.zone(0.05)))
    """
    def __init__(
        self,
        methods: typing.Annotated[collections.abc.Sequence[str], "FixedSize(2)"],
        axes: typing.Annotated[collections.abc.Sequence[Axis], "FixedSize(2)"],
        severities: typing.Annotated[
            collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]],
            "FixedSize(2)",
        ],
        damages: collections.abc.Sequence[collections.abc.Sequence[Damage]],
        noise_floor: NoiseFloor | None,
        seconds_prepare: typing.SupportsFloat | typing.SupportsIndex = 0.0,
        seconds: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]] = [],
    ) -> None: ...
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def __str__(self) -> str: ...
    def to_dataframe(self) -> typing.Any:
        """
        One row a point, with both severities and every number of its damage.

        Returns:
            pandas.DataFrame: ``first``, ``first_severity``, ``second``, ``second_severity``, ``additivity``,
            ``delta_nll`` ….
        """
    def to_dict(self, *, windows: bool = False) -> dict:
        """
        Every field, ready for JSON.

        Args:
            windows: Whether damages include each window's NLL.

        Returns:
            dict: ``axes``, ``noise_floor`` and each damage are dicts.
        """
    def zone(self, tolerance: typing.SupportsFloat | typing.SupportsIndex) -> list[float | None]:
        """
        The joint zone: how far the second method may go, for each severity of the first.

        The upper end of damage's interval is made monotone along both axes, then interpolated linearly along the second's, from
        what the first alone does.

        Args:
            tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

        Returns:
            list[float | None]: One for each severity of the first: the largest safe severity of the second; None where the
            first alone is not safe, and everywhere with one window, which has no interval.

        Raises:
            ValueError: For a tolerance that is not above 0.
        """
    def zone_details(self, tolerance: typing.SupportsFloat | typing.SupportsIndex) -> list[Zone]:
        """
        The same with whether it is censored.

        Args:
            tolerance: Largest ΔNLL that is still safe, above 0, nats per token.

        Returns:
            list[Zone]: Without intervals.
        """
    @property
    def additivity(self) -> list[list[float | None]]:
        """
        Of each point: the sum of what both cost alone / what they cost together, ΔNLL. 1 where they add up, below 1 where they make each other worse. None where one is neutral, or where the damage of both is not told from none.
        """
    @property
    def axes(self) -> typing.Annotated[list[Axis], "FixedSize(2)"]:
        """
        Their axes for the unchanged model.
        """
    @property
    def damages(self) -> list[list[Damage]]:
        """
        What each point did: ``damages[i][j]``, i of the first, j of the second.
        """
    @property
    def distances(self) -> typing.Annotated[list[list[float]], "FixedSize(2)"]:
        """
        The severities' distances from neutral, 0 … 1.
        """
    @property
    def methods(self) -> typing.Annotated[list[str], "FixedSize(2)"]:
        """
        Both canonical specs, in the order in which they are applied.
        """
    @property
    def noise_floor(self) -> NoiseFloor | None:
        """
        The damage that numerics alone do; None: unknown.
        """
    @property
    def seconds(self) -> list[list[float]]:
        """
        What each trial took, as :attr:`damages`.
        """
    @property
    def seconds_prepare(self) -> float:
        """
        What preparing took.
        """
    @property
    def severities(self) -> typing.Annotated[list[list[float]], "FixedSize(2)"]:
        """
        Of each, from mild to severe; the first of each is neutral.
        """

class PlannedSurface:
    """
    The grid that a scan gives two methods. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    def trial(
        self, first: typing.SupportsInt | typing.SupportsIndex, second: typing.SupportsInt | typing.SupportsIndex
    ) -> tuple[str, float] | None:
        """
        The method and the severity under which a point's trial is kept.

        Args:
            first: Index of the first method's severity.
            second: Index of the second's.

        Returns:
            tuple[str, float] | None: None of the unchanged model, which is no trial.
        """
    @property
    def methods(self) -> typing.Annotated[list[PlannedMethod], "FixedSize(2)"]:
        """
        Both, in order; severities of each begin with neutral.
        """

class ScanResult:
    """
    What a whole scan measured. Read-only.
    """
    def __reduce__(self) -> typing.Any: ...
    def __repr__(self) -> str: ...
    @property
    def baseline(self) -> Damage:
        """
        The baseline against itself: its perplexity.
        """
    @property
    def curves(self) -> list[SweepCurve]:
        """
        One for each method.
        """
    @property
    def localizations(self) -> list[Localization]:
        """
        One for each method that was localized.
        """
    @property
    def noise_floor(self) -> NoiseFloor | None:
        """
        The damage that numerics alone do; None: unknown.
        """
    @property
    def surfaces(self) -> list[Surface]:
        """
        One for each pair of methods.
        """

def _explain_refusals(message: collections.abc.Callable) -> None:
    """
    Takes the function that says what is wrong with a call.
    """

def _find_checkpoints(directory: collections.abc.Callable) -> None:
    """
    Takes the function that says where a checkpoint lies, which may have to fetch it.
    """

def _restored_model(state: dict) -> Model:
    """
    A model of what pickling keeps of one.
    """

def _restored_packed_weight(state: tuple) -> quantize.PackedWeight:
    """
    A packed weight of what pickling keeps of one.
    """

def collect(
    model: Model,
    tokens: torch.Tensor,
    needs: collections.abc.Sequence[str] | None = None,
    *,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    batch: typing.SupportsInt | typing.SupportsIndex = 8,
    include: str | collections.abc.Sequence[str] | None = None,
    exclude: str | collections.abc.Sequence[str] | None = None,
    progress: collections.abc.Callable | None = None,
) -> Statistics:
    """
    What hemostat.collect calls.
    """

def compare(
    baseline: Model,
    damaged: Model,
    tokens: torch.Tensor,
    *,
    unigram: torch.Tensor | None = None,
    byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
    batch: typing.SupportsInt | typing.SupportsIndex = 4,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    generation: bool | GenerationProtocol = False,
    progress: collections.abc.Callable | None = None,
) -> Damage:
    """
    What hemostat.compare calls.
    """

def compose(model: Model, methods: collections.abc.Sequence[str], statistics: Statistics | None = None) -> Composition:
    """
    Methods in order as one with as many axes: prune, then quantize.

    Each method is prepared on the model that those before it gave, since scores and ranges depend on the weights.

    Args:
        model: The model to change.
        methods: Names or specs with options, in the order in which they are applied.
        statistics: What :func:`hemostat.collect` gathered on ``model``, for methods that need it. They serve a method too
            whose model an earlier one changed.

    Returns:
        Composition: With ``axes`` and ``at(severity, …)``.

    Raises:
        ValueError: For no methods, an unknown method or option, or statistics that are needed but not given.

    Example:
        >>> both = hemostat.compose(model, ["wanda", "rtn"], statistics)
        >>> pruned_and_quantized = both.at(0.3, 4)
    """

def compress(
    model: Model,
    methods: collections.abc.Sequence[tuple[str, typing.SupportsFloat | typing.SupportsIndex]],
    calibration: torch.Tensor,
    *,
    propagate: bool = True,
    correct: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    correct_damp: typing.SupportsFloat | typing.SupportsIndex = 0.1,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    batch: typing.SupportsInt | typing.SupportsIndex = 8,
    progress: collections.abc.Callable | None = None,
) -> Model:
    """
    What hemostat.compress calls.
    """

def difference_interval(
    first: Damage,
    second: Damage,
    *,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
) -> tuple[float, float] | None:
    """
    The 95 % interval of one ΔNLL minus another, both measured on the same windows.

    Args:
        first: Damage whose windows are known.
        second: Likewise, on the same windows.
        bootstrap_samples: Resamples of windows.
        seed: Of the resampling.

    Returns:
        tuple[float, float] | None: (low, high), paired bootstrap over windows; None where windows are not known or there is
        one.

    Raises:
        ValueError: For different numbers of windows.
    """

def estimated_work(model: Model, method: str) -> float:
    """
    Arithmetic that grows with the model as a method's does.
    """

def every_need() -> set[str]:
    """
    Names of every statistic that needs no gradient.
    """

def family_config(model: Model) -> str:
    """
    config.json for a model as it is now, as :meth:`Model.save` writes it.

    Args:
        model: The model.

    Returns:
        str: JSON.

    Raises:
        ValueError: Where the family's config cannot express the model.
    """

def find_method(name: str) -> Method:
    """
    The method of a name.

    Args:
        name: Without options.

    Returns:
        Method: Its entry in the registry.

    Raises:
        ValueError: For an unknown name; the message lists near ones.
    """

@typing.overload
def find_threshold(curve: SweepCurve) -> Threshold:
    """
    The phase-transition point of a sweep's curve, and its robust zones, with intervals from its windows.

    Args:
        curve: What :func:`hemostat.sweep` gave.

    Returns:
        Threshold: ``zone(tolerance)``, ``edge(tolerance)``, ``edge_interval(tolerance)``; ``point`` (None: the data show no
        transition), ``interval``.
    """

@typing.overload
def find_threshold(
    severities: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex | None] | torch.Tensor,
    perplexities: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex | None] | torch.Tensor,
    *,
    baseline: typing.SupportsFloat | typing.SupportsIndex | None = None,
    neutral: typing.SupportsFloat | typing.SupportsIndex = 0.0,
) -> Threshold:
    """
    The same on plain arrays.

    Args:
        severities: On one side of neutral.
        perplexities: Above 0; NaN, infinity or None: collapsed, beyond every tolerance.
        baseline: The unchanged model's perplexity. None: the one at ``neutral`` among the severities, else the smallest.
        neutral: The severity at which the model is unchanged.

    Returns:
        Threshold: Without intervals, which need a sweep's windows.

    Raises:
        ValueError: For arrays of different lengths or severities on both sides of neutral.
    """

def first_nonfinite(model: Model, tokens: torch.Tensor | None = None) -> str | None:
    """
    Where a model's numbers stop being finite.

    Args:
        model: The model.
        tokens: int64 [windows, length], whose forward pass is followed. None: only the stored tensors are looked at.

    Returns:
        str | None: The first tensor that has NaN or infinite entries, or the first layer that gives some, and the dtype's
        part in it. None: all is finite.
    """

def generate(
    model: Model,
    prompts: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    decoder: Decoder,
    *,
    max_new_tokens: typing.SupportsInt | typing.SupportsIndex,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    eos_token_ids: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None = None,
    batch: typing.SupportsInt | typing.SupportsIndex = 16,
) -> list[list[int]]:
    """
    What hemostat.generate calls. eos_token_ids None: the model's.
    """

def gguf_tokenizer(path: os.PathLike | str | bytes) -> str | None:
    """
    tokenizer.json of the tokenizer in a GGUF file.

    Args:
        path: The file.

    Returns:
        str | None: JSON; None where the file has no tokenizer.

    Raises:
        ValueError: Where the file is malformed, or its tokenizer is of another kind than gpt2 and llama.
    """

def gradient_needs() -> set[str]:
    """
    Names of every statistic of gradients.
    """

def held_bytes(model: Model, method: str) -> float:
    """
    Bytes that a prepared method holds beside the statistics.
    """

def isotropic_control(
    baseline: Model, damaged: Model, *, seed: typing.SupportsInt | typing.SupportsIndex = 0
) -> Model | None:
    """
    The baseline with isotropic noise as large as each change.

    Args:
        baseline: The unchanged model.
        damaged: The changed one, of the same linears.
        seed: Of the noise's directions.

    Returns:
        Model | None: In place of each linear's change Gaussian noise of the same Frobenius norm; None where no weight
        changed.
    """

def judge(damage: Damage, tolerance: typing.SupportsFloat | typing.SupportsIndex, *, by: str = "delta_nll") -> str:
    """
    Whether damage is safe at a tolerance.

    ``"safe"``: the upper end of its 95 % interval is within the tolerance. ``"unsafe"``: the lower end is above it, or the
    damage is not finite. ``"undecided"``: neither; or there is no interval (one window); or
    the baseline is itself no better than the unigram (``damage.index`` is None), so that nothing is shown to be safe.

    Args:
        damage: What :func:`compare` gave, or a sweep's.
        tolerance: Largest damage that is still safe, above 0.
        by: ``"delta_nll"`` or ``"kl"``, nats per token; ``"top1_agreement"``: the share of predictions that changed.

    Returns:
        str: ``"safe"``, ``"unsafe"`` or ``"undecided"``.

    Raises:
        ValueError: For a tolerance that is not above 0, or another word.
    """

def localize(
    model: Model,
    method: MethodSpec | Model,
    tokens: torch.Tensor,
    *,
    severity: typing.SupportsFloat | typing.SupportsIndex = ...,
    statistics: Statistics | None = None,
    linears: bool = False,
    control: bool = True,
    unigram: torch.Tensor | None = None,
    byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
    batch: typing.SupportsInt | typing.SupportsIndex = 4,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    progress: collections.abc.Callable | None = None,
) -> Localization:
    """
    What hemostat.localize calls.
    """

def measure_noise_floor(baseline: BaselineEvaluation) -> NoiseFloor | None:
    """
    The damage that numerics alone do.

    Args:
        baseline: An evaluated baseline; it is evaluated again in another compute type.

    Returns:
        NoiseFloor | None: A float32 model against itself in bfloat16, half types against float32. None where the other type
        cannot hold the weights, or gives no finite numbers: then it is unknown.

    Raises:
        NumericalError: Where the baseline itself is not finite.
    """

def methods() -> list[Method]:
    """
    All registered methods: ours in catalogue order, then users'.

    Returns:
        list[Method]: With ``name``, ``kind``, ``axis``, ``needs``, ``options``, ``description``.
    """

def needs_of(methods: collections.abc.Sequence[str], propagate: bool = False) -> set[str]:
    """
    What methods need with their options, together.

    Args:
        methods: Names or specs.
        propagate: Of the unchanged model, where they are calibrated block by block.

    Returns:
        set[str]: Names of statistics.
    """

def plan(
    model: Model,
    methods: collections.abc.Sequence[str | MethodSpec],
    *,
    severities: collections.abc.Mapping[str, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]]
    | None = None,
    points: typing.SupportsInt | typing.SupportsIndex | None = None,
    joint: collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[MethodSpec], "FixedSize(2)"]] = [],
) -> list[PlannedMethod]:
    """
    The severities that a scan gives each method.

    Args:
        model: The baseline.
        methods: Names or specs.
        severities: By spec as given in ``methods`` or ``joint``; others take their axis's default grid.
        points: At most so many severities a method, spread over its grid.
        joint: Pairs of methods that are measured together; see :func:`plan_joint`.

    Returns:
        list[PlannedMethod]: In the order of the methods.

    Raises:
        ValueError: For an unknown method or option, or a severity out of range.
    """

def plan_joint(
    model: Model,
    joint: collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[MethodSpec], "FixedSize(2)"]],
    *,
    severities: collections.abc.Mapping[
        str, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]
    ] = {},
    points: typing.SupportsInt | typing.SupportsIndex | None = None,
) -> list[PlannedSurface]:
    """
    The grids that a scan gives to pairs of methods.

    Args:
        model: The baseline.
        joint: Pairs of methods, the second of which changes what the first gave.
        severities: By spec; others take their axis's default grid.
        points: At most so many severities a method, spread over its grid.

    Returns:
        list[PlannedSurface]: In the order of the pairs.

    Raises:
        ValueError: For a severity out of range, or a pair that is given twice.
    """

def prepare(
    model: Model,
    method: str,
    statistics: Statistics | None = None,
    *,
    calibration: torch.Tensor | None = None,
    propagate: bool = False,
    correct: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    correct_damp: typing.SupportsFloat | typing.SupportsIndex = 0.1,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    **kwargs,
) -> Prepared:
    """
    Does the work that does not depend on severity; ``at(severity)`` is then cheap.

    Args:
        model: The model to change.
        method: A method's name, or a spec with options, ``"rtn:group_size=64"``.
        statistics: What :func:`hemostat.collect` gathered, for methods that need it.
        calibration: int64 ``[windows, length]`` token IDs, from which to collect what ``statistics`` are not given for.
        propagate: Calibrate block by block, and in a block q k v, o, gate up, down one after the other: each linear on what
            reaches it in the model that is changed so far, instead of in the unchanged one. Every ``at(severity)`` is then
            a pass over ``calibration``. For methods on linears.
        correct: With ``propagate``, 0 to 1: how far each linear is aimed at what the unchanged model gives there,
            W + correct · W · C · (H + correct_damp · mean(diag H) · I)⁻¹, with H = E[x̂x̂ᵀ] and C = E[(x − x̂)x̂ᵀ] of the
            unchanged model's input x and the changed one's x̂.
        correct_damp: What keeps that from fitting the calibration text; more than 0.
        memory_budget: Bytes of statistics and of activations in memory; more goes to temporary files.
        **options: The method's own options; see :func:`hemostat.methods`.

    Returns:
        Prepared: With ``axis`` and ``at(severity)``.

    Raises:
        ValueError: For an unknown method or option, a value out of range, statistics that are needed but not given, or
            ``propagate`` for a method that changes the model as a whole.
        TypeError: For an option of another type.

    Example:
        >>> pruned = hemostat.prepare(model, "wanda", statistics).at(0.5)
        >>> pruned = hemostat.prepare(model, "sparsegpt", calibration=calibration, propagate=True).at(0.5)
    """

def register_method(
    *,
    name: str,
    kind: str,
    description: str,
    axis: Axis,
    needs: collections.abc.Set[str],
    options: collections.abc.Sequence[OptionSpec],
    function: collections.abc.Callable,
    axis_for: collections.abc.Callable | None = None,
) -> None:
    """
    What hemostat.method calls.
    """

def scan(
    model: Model,
    evaluation: torch.Tensor,
    calibration: torch.Tensor,
    methods: collections.abc.Sequence[str | MethodSpec],
    *,
    severities: collections.abc.Mapping[str, collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex]]
    | None = None,
    points: typing.SupportsInt | typing.SupportsIndex | None = None,
    unigram: torch.Tensor | None = None,
    byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    batch: typing.SupportsInt | typing.SupportsIndex = 4,
    generation: bool | GenerationProtocol = False,
    baseline: tuple[Damage, NoiseFloor | None] | None = None,
    on_baseline: collections.abc.Callable | None = None,
    known: collections.abc.Callable | None = None,
    on_trial: collections.abc.Callable | None = None,
    localize_windows: typing.SupportsInt | typing.SupportsIndex = 0,
    known_localization: collections.abc.Callable | None = None,
    on_localization: collections.abc.Callable | None = None,
    joint: collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[MethodSpec], "FixedSize(2)"]] = [],
    progress: collections.abc.Callable | None = None,
    propagate: bool = False,
    correct: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    correct_damp: typing.SupportsFloat | typing.SupportsIndex = 0.1,
) -> ScanResult:
    """
    What hemostat.scan calls. on_baseline: (damage, noise floor); known: (method, severity) → Trial or None; known_localization: (method, severity) → Localization or None; progress: (stage, done, total).
    """

def structure(model: Model) -> str:
    """
    Everything of a model but its tensors' data and its source, as JSON.

    Models of equal structure and equal tensors compute the same.
    """

def surface(
    model: Model,
    methods: typing.Annotated[collections.abc.Sequence[MethodSpec], "FixedSize(2)"],
    tokens: torch.Tensor,
    *,
    statistics: Statistics | None = None,
    severities: typing.Annotated[
        collections.abc.Sequence[collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] | None],
        "FixedSize(2)",
    ] = [None, None],
    unigram: torch.Tensor | None = None,
    byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
    batch: typing.SupportsInt | typing.SupportsIndex = 4,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    generation: bool | GenerationProtocol = False,
    on_trial: collections.abc.Callable | None = None,
) -> Surface:
    """
    What hemostat.surface calls.
    """

def sweep(
    model: Model,
    method: str | MethodSpec,
    tokens: torch.Tensor,
    *,
    statistics: Statistics | None = None,
    severities: collections.abc.Sequence[typing.SupportsFloat | typing.SupportsIndex] | None = None,
    unigram: torch.Tensor | None = None,
    byte_count: typing.SupportsInt | typing.SupportsIndex | None = None,
    batch: typing.SupportsInt | typing.SupportsIndex = 4,
    memory_budget: typing.SupportsFloat | typing.SupportsIndex = 1073741824.0,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
    generation: bool | GenerationProtocol = False,
    on_trial: collections.abc.Callable | None = None,
    progress: collections.abc.Callable | None = None,
    calibration: torch.Tensor | None = None,
    correct: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    correct_damp: typing.SupportsFloat | typing.SupportsIndex = 0.1,
) -> SweepCurve:
    """
    What hemostat.sweep calls.
    """

class NumericalError(ArithmeticError): ...
