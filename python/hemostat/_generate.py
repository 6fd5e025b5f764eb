"""Text that a model writes: the continuation of prompts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hemostat import _C

__all__ = ["Generation", "generate"]


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        tokens: The continuation of each prompt, without the prompt, and with the end-of-text token where one came.
    """

    tokens: list[list[int]]


def generate(
    model: _C.Model,
    prompts: Sequence[Sequence[int]],
    decoder: _C.Decoder | None = None,
    *,
    max_new_tokens: int,
    seed: int = 0,
    eos_token_id: int | Sequence[int] | None | Literal["model"] = "model",
    batch: int = 16,
) -> Generation:
    """Continues each prompt, token by token.

    Tokens are sampled from the model's distribution unless the decoder says otherwise:
    ``hemostat.Decoder(do_sample=False)`` takes the most likely one each time. Random numbers are hashed from the seed,
    the prompt's index, the position and the token, so that two models, or one at two temperatures, share them: equal
    models sample equal text, and similar ones stay together for as long as they can.

    Args:
        model: The model that writes.
        prompts: Token IDs, a list (or a one-dimensional tensor or array) for each prompt, or a tensor [prompts, T].
            A text's are ``model.tokenizer.encode(text).ids``.
        decoder: How a token is chosen. None: the model's own decoder, which samples at temperature 1 unless a method
            changed it.
        max_new_tokens: At most so many a prompt; with the prompt within the model's context.
        seed: Of the random numbers.
        eos_token_id: The token or tokens that end a text. "model": those of the model's config. None: never stop.
        batch: Prompts at a time. It alters no random number, and logits by no more than a matrix product's rounding.

    Returns:
        Generation: ``.tokens``, the continuations without their prompts, in the prompts' order.

    Raises:
        ValueError: For an empty prompt, an ID out of range, a prompt that with the new tokens exceeds the context, or a
            temperature that is not positive; before any work.
        TypeError: For prompts that are not lists of integers.

    Example:
        >>> prompt = model.tokenizer.encode("Once upon a time").ids
        >>> written = hemostat.generate(model, [prompt], hemostat.Decoder(do_sample=False), max_new_tokens=20)
        >>> text = model.tokenizer.decode(written.tokens[0])
    """
    if eos_token_id == "model":
        ends = None
    elif eos_token_id is None:
        ends = []
    else:
        ends = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
    tokens = _C.generate(
        model,
        [_ids(prompt) for prompt in prompts],
        model.decoder if decoder is None else decoder,
        max_new_tokens=max_new_tokens,
        seed=seed,
        eos_token_ids=ends,
        batch=batch,
    )
    return Generation(tokens)


def _ids(prompt: Any) -> list[int]:
    listed = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    try:
        return [operator.index(token) for token in listed]
    except TypeError:
        message = f"hemostat.generate: prompts has {prompt!r}, but takes a list of token IDs for each prompt"
        raise TypeError(message) from None
