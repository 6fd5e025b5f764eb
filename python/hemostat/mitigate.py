"""Treatments: a damaged model's predictions brought back towards the unchanged model's, and judged on unseen text."""

from __future__ import annotations

import torch

from hemostat import _C
from hemostat._C import Treatment
from hemostat._progress import StagedProgress, staged_bar

__all__ = ["Treatment", "gradient_aware_pruning"]


def gradient_aware_pruning(
    model: _C.Model,
    calibration: torch.Tensor,
    *,
    sparsity: float | None = None,
    pattern: str | None = None,
    evaluation: torch.Tensor | None = None,
    allocation: bool = True,
    width: float = 0.2,
    propagate: bool = True,
    gram: str = "plain",
    refine: bool = False,
    iterations: int = 20,
    untreated: str = "wanda",
    include: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    memory_budget: float = 2**30,
    progress: StagedProgress = None,
) -> Treatment:
    """Prunes where predicted damage is least, and aims what is kept at what the unchanged model gives.

    A change of a linear's weight costs about ½ Σ_r f_r ΔW_r G ΔW_rᵀ nats per token, with G the Gram matrix of its input
    and f the row Fisher. That quantity decides how much of the sparsity each linear takes, and how much each row
    counts when weights are removed and the others adjusted (ADMM), block by block. Of the calibration windows the last
    ones, an eighth, at least 8 but no more than half, are held out: they predict damage and choose the settings.

    Args:
        model: The model to prune.
        calibration: int64 [windows, length], at least two windows of at least two tokens.
        sparsity: Fraction of the linears' weights that falls, 0 to 1; give this or ``pattern``.
        pattern: ``"n:m"`` keeps n of every m weights of a row, in each linear.
        evaluation: int64 [windows, length] that the result is judged on, and on nothing else. None: it is not.
        allocation: Each linear has a sparsity of its own; False: all have the same. A pattern is not allocated.
        width: How far a linear's sparsity may be from the mean.
        propagate: Block by block, towards the unchanged model's outputs; False: from the unchanged model's statistics.
        gram: ``"plain"``: all tokens count alike; ``"guided"``: as the loss depends on them.
        refine: Whether what is kept is trained towards the unchanged model's distribution at the end: one pass over
            the calibration windows, left out where it does not lower KL.
        iterations: How often ADMM adjusts weights and mask.
        untreated: Method that the treatment is compared with, at the same sparsity or pattern.
        include: fnmatch pattern or patterns on the linears' names. None: the linears inside blocks.
        exclude: Pattern or patterns of names to leave out.
        memory_budget: Bytes of activations and statistics in memory; what is beyond lies in temporary files.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(stage, done, total)``.

    Returns:
        Treatment: ``.model``; with ``evaluation`` also ``.untreated``, ``.treated`` and ``.recovery``.

    Raises:
        ValueError: For both or none of sparsity and pattern, one out of range, or too little text; before any work.
        NumericalError: Where what the changed model computes is not finite.

    Example:
        >>> treatment = hemostat.mitigate.gradient_aware_pruning(model, calibration, sparsity=0.6)
        >>> treatment.model.save("pruned")
    """
    with staged_bar(progress) as update:
        return _C.gradient_aware_pruning(
            model,
            calibration,
            sparsity=sparsity,
            pattern=pattern,
            evaluation=evaluation,
            allocation=allocation,
            width=width,
            propagate=propagate,
            gram=gram,
            refine=refine,
            iterations=iterations,
            untreated=untreated,
            include=include,
            exclude=exclude,
            memory_budget=memory_budget,
            progress=update,
        )
