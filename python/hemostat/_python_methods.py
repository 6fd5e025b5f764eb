"""What of the extension is written in Python: it gets that here, at import, and knows no module of the package."""

import inspect
import typing
from collections.abc import Callable

from hemostat import _C, _foreign, _localize, _refusals, _surface, _treatment, huggingface

__all__: list[str] = []


def _attached_to(kind: type) -> Callable[[type], type]:
    """Gives a class of the extension what is defined in a class here."""

    def attach(members: type) -> type:
        for name, member in vars(members).items():
            if callable(member) or isinstance(member, property):
                function = member.__func__ if isinstance(member, staticmethod) else member
                function.__doc__ = inspect.cleandoc(function.__doc__ or "") or None  # as the extension's own
                setattr(kind, name, member)
        return kind

    return attach


@_attached_to(_C.Model)
class Model:
    @staticmethod
    def from_transformers(module: typing.Any) -> _C.Model:
        """A model on the tensors of a transformers module.

        The tensors are shared and not detached: gradients reach the module's ``.grad``, and an optimizer's step on the
        module is seen here.

        Args:
            module: A transformers causal language model.

        Returns:
            Model: The model.

        Raises:
            ValueError: For a module whose config cannot be honoured; the message names the field.
        """
        return huggingface.from_transformers(module)

    def to_transformers(self) -> typing.Any:
        """A transformers causal language model with this model's tensors, which are shared.

        Returns:
            transformers.PreTrainedModel: In evaluation mode.

        Raises:
            ValueError: Where transformers cannot express the model (per-layer sizes, factors, input treatments).
        """
        return huggingface.to_transformers(self)

    @staticmethod
    def from_module(module: typing.Any, *, forward: typing.Any = None, loss: typing.Any = None) -> _C.Model:
        """A model whose forward is a module's own, of whatever architecture.

        Its linears are the module's ``nn.Linear`` and ``Conv1D`` layers, and each expert of parameters of three
        dimensions (``experts.gate_up_proj.0``), except the output embeddings and whatever shares a tensor with an
        embedding, which ``include`` patterns bring back. Each forward calls the module with the changed weights in the
        place of its own; hooks that see the linears' inputs live for that call. The module itself stays as it is: what
        is called is a copy of its structure in evaluation mode, so without dropout, that shares its parameters
        (gradients reach their ``.grad``). Methods on weights and on the inputs of linears, statistics, ``compare``,
        ``sweep``, ``scan``, ``localize`` and saving work on it; what takes blocks says that there are none.

        Args:
            module: A ``torch.nn.Module``. Without ``forward`` and ``loss`` it is a language model: called with tokens
                [B, T], it gives logits [B, T, vocabulary], alone, as ``.logits``, or first in a tuple. An
                encoder-decoder reads the same tokens at both ends.
            forward: ``(module, tokens)`` → logits; with a loss, ``(module, batch)`` → what that takes.
            loss: ``(output, batch)`` or ``(output)`` → the loss of one sample, a tensor, of which the mean is taken.
                The model then takes samples of any dtype [samples, …] in the place of tokens, and damage is measured
                in it: ``damage.nll`` is the loss, ``damage.index`` and ``damage.kl`` are None.

        Returns:
            Model: The model.

        Raises:
            TypeError: For what is no module, or a function of other arguments.
            ValueError: For a module without linears, or one that is no language model where there is no loss.

        Example:
            >>> import torch
            >>> classifier = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8))
            >>> model = hemostat.Model.from_module(classifier, loss=torch.nn.functional.mse_loss)
            >>> samples = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
            >>> curve = hemostat.sweep(model, "rtn", samples, severities=[4, 2], progress=False)
        """
        return _foreign.from_module(module, forward=forward, loss=loss)

    def to_module(self) -> typing.Any:
        """The module of :meth:`from_module` with this model's weights: a copy, in which they are parameters.

        Returns:
            torch.nn.Module: In evaluation mode.

        Raises:
            ValueError: For a model of blocks, which :meth:`to_transformers` gives, and where inputs of linears are
                quantized or noisy, which no weight expresses.
        """
        return _foreign.to_module(self)

    @property
    def tokenizer(self) -> typing.Any:
        """The ``tokenizers.Tokenizer`` of :attr:`source`: its tokenizer.json, or a GGUF file's own. ValueError where
        there is none.
        """
        return huggingface.tokenizer(self.source)


@_attached_to(_C.Surface)
class Surface:
    def to_dataframe(self) -> typing.Any:
        """One row a point, with both severities and every number of its damage.

        Returns:
            pandas.DataFrame: ``first``, ``first_severity``, ``second``, ``second_severity``, ``additivity``,
            ``delta_nll`` ….
        """
        return _surface.dataframe(self)

    def __str__(self) -> str:
        return _surface.table(self)


@_attached_to(_C.Localization)
class Localization:
    def to_dataframe(self) -> typing.Any:
        """One row a site, of the numbers in :meth:`to_dict`.

        Returns:
            pandas.DataFrame: In the model's order.
        """
        return _localize.dataframe(self)

    def __str__(self) -> str:
        return _localize.table(self)


@_attached_to(_C.Treatment)
class Treatment:
    def to_dict(self) -> dict[str, typing.Any]:
        """Both damages, the recovery and what was chosen, in JSON's types.

        Returns:
            dict: ``untreated``, ``treated``, ``recovery``, ``recovery_interval``, ``settings``, ``severities``; None
            for what was not judged.
        """
        return _treatment.to_dict(self)

    def __str__(self) -> str:
        return _treatment.table(self)


_C._find_checkpoints(huggingface.checkpoint_directory, _foreign.load)
_C._explain_refusals(_refusals.message)
