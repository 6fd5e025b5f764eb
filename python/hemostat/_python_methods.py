"""What of the extension is written in Python: it gets that here, at import, and knows no module of the package."""

import inspect
import typing
from collections.abc import Callable

from hemostat import _C, _localize, _refusals, _surface, huggingface

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


_C._find_checkpoints(huggingface.checkpoint_directory)
_C._explain_refusals(_refusals.message)
