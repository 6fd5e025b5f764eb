"""
Damage measured on logits and on continuations. Logarithms are natural.
"""

from __future__ import annotations

import collections.abc
import typing

import torch

__all__: list[str] = [
    "GenerationDivergence",
    "TokenDivergence",
    "divergence",
    "expected_calibration_error",
    "generation_divergence",
    "unigram_nll",
]

class TokenDivergence:
    """
    How two models differ on each token. Read-only.

    Tensors have the targets' shape; NLL, KL and entropy are in nats.
    """
    def __repr__(self) -> str: ...
    @property
    def acceptance(self) -> torch.Tensor:
        """
        float32, 0 … 1: Σ min(p, q), the chance that speculative decoding accepts a token.
        """
    @property
    def agree(self) -> torch.Tensor:
        """
        bool: whether these are the same.
        """
    @property
    def confidence_baseline(self) -> torch.Tensor:
        """
        float32: the baseline's largest probability.
        """
    @property
    def confidence_damaged(self) -> torch.Tensor:
        """
        float32: the damaged model's largest probability.
        """
    @property
    def entropy_baseline(self) -> torch.Tensor:
        """
        float32: entropy of the baseline.
        """
    @property
    def entropy_damaged(self) -> torch.Tensor:
        """
        float32: entropy of the damaged model.
        """
    @property
    def kl(self) -> torch.Tensor:
        """
        float32: KL(baseline ‖ damaged).
        """
    @property
    def kl_reverse(self) -> torch.Tensor:
        """
        float32: KL(damaged ‖ baseline).
        """
    @property
    def nll_baseline(self) -> torch.Tensor:
        """
        float32: −log of the baseline's probability of the target.
        """
    @property
    def nll_damaged(self) -> torch.Tensor:
        """
        float32: −log of the damaged model's probability of the target.
        """
    @property
    def right_baseline(self) -> torch.Tensor:
        """
        bool: whether the baseline's is the target.
        """
    @property
    def right_damaged(self) -> torch.Tensor:
        """
        bool: whether the damaged model's is the target.
        """
    @property
    def top1_baseline(self) -> torch.Tensor:
        """
        int64: the baseline's likeliest token.
        """
    @property
    def top1_damaged(self) -> torch.Tensor:
        """
        int64: the damaged model's likeliest token.
        """
    @property
    def top5_overlap(self) -> torch.Tensor:
        """
        float32: fraction of the baseline's five likeliest tokens that the damaged model shares.
        """

class GenerationDivergence:
    """
    How far two models' continuations stay together, and how varied each model's are. Read-only.

    Repetition is seq-rep-4 (Welleck et al., "Neural Text Generation with Unlikelihood Training", arXiv 1908.04319), distinct-n
    that of Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", arXiv 1510.03055.
    """
    def __repr__(self) -> str: ...
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
    def positions(self) -> list[int]:
        """
        Of each prompt: tokens in common before the first that differs or that only one has; ``new_tokens`` where none does.
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

def divergence(
    baseline_logits: torch.Tensor,
    damaged_logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    damaged_scale: typing.SupportsFloat | typing.SupportsIndex = 1.0,
) -> TokenDivergence:
    """
    How two models' predictions differ, token by token.

    Each logit is read once, and arithmetic is in float32 or better. Logits that hold NaN or +Inf give NaN, agree with
    nothing and are right nowhere.

    Args:
        baseline_logits: [..., vocab], float32, bfloat16 or float16.
        damaged_logits: The same shape and device; of another dtype, both are compared in float32.
        targets: int64 [...], the tokens that came, 0 … vocab − 1.
        damaged_scale: Multiplies the damaged logits: 1/temperature.

    Returns:
        TokenDivergence: Tensors of the targets' shape.

    Raises:
        ValueError: For shapes or devices that differ, or a target out of range.
        TypeError: For another dtype.
    """

def expected_calibration_error(
    confidence: torch.Tensor, right: torch.Tensor, *, bins: typing.SupportsInt | typing.SupportsIndex = 15
) -> float:
    """
    Expected calibration error: Σ over bins of |accuracy − mean confidence| · share of tokens.

    Bins of equal width, ((b − 1)/bins, b/bins] (Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599,
    equation 3).

    Args:
        confidence: floating [tokens], 0 … 1.
        right: bool [tokens].
        bins: How many bins.

    Returns:
        float: 0 … 1; 0 where the model is right as often as it says; NaN where a confidence is NaN or there are no tokens.

    Raises:
        ValueError: For shapes that differ or no bins.
    """

def generation_divergence(
    baseline_tokens: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    damaged_tokens: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]],
    *,
    new_tokens: typing.SupportsInt | typing.SupportsIndex | None = None,
    bootstrap_samples: typing.SupportsInt | typing.SupportsIndex = 2000,
    seed: typing.SupportsInt | typing.SupportsIndex = 0,
) -> GenerationDivergence:
    """
    Compares two models' continuations of the same prompts.

    Args:
        baseline_tokens: The unchanged model's, a list of token IDs a prompt, the end-of-text token included where one came.
            May be empty or of different lengths.
        damaged_tokens: The changed model's, in the same order.
        new_tokens: How long a continuation could be; what equal ones count as. None: the longest given.
        bootstrap_samples: Resamples of prompts behind the interval.
        seed: Of the resampling.

    Returns:
        GenerationDivergence: ``.first_divergence``, ``.exact_match``, ``.repetition`` and more.

    Raises:
        ValueError: Where the lists differ in length or are empty, or a continuation is longer than ``new_tokens``.

    Example:
        >>> divergence = hemostat.metrics.generation_divergence([[5, 6, 7, 8]], [[5, 6, 9]])
        >>> divergence.positions, divergence.exact_match
        ([2], 0.0)
    """

def unigram_nll(counts: torch.Tensor, targets: torch.Tensor) -> float:
    """
    Mean NLL of targets under the add-one smoothed unigram model, (count + 1)/(total + V).

    Args:
        counts: int64 [vocab_size], how often each token occurs in some text.
        targets: int64, the tokens to predict.

    Returns:
        float: Nats per token.
    """
