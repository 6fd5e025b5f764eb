"""Where a damaged model bleeds: each part damaged alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from hemostat import _C
from hemostat._baseline import warn_of_baseline
from hemostat._columns import aligned
from hemostat._damage import seeded_spec
from hemostat._methods import collect
from hemostat._number_text import interval, number, signed, windows_text
from hemostat._progress import Progress, bar
from hemostat.report._bleeding import where
from hemostat.report._document import LocalizationFacts, read

if TYPE_CHECKING:
    import pandas

__all__ = ["localize"]


def localize(
    model: _C.Model,
    method: str | _C.Model,
    tokens: torch.Tensor | None = None,
    *,
    severity: float | None = None,
    statistics: _C.Statistics | None = None,
    linears: bool = False,
    control: bool = True,
    predicted: bool = False,
    judge: _C.Statistics | None = None,
    unigram: torch.Tensor | None = None,
    byte_count: int | None = None,
    batch: int = 4,
    memory_budget: float = 2**30,
    bootstrap_samples: int = 2000,
    seed: int = 0,
    progress: Progress = None,
    **options: Any,
) -> _C.Localization:
    """Damages each block (or linear) alone and says where the model bleeds; or predicts it.

    The method is prepared once; then each part of the damaged model is put into the baseline by itself. The hidden
    states up to it are the baseline's, computed once for each batch of windows, so that a site at block l of L costs
    L − l blocks and the head. A final norm or head that the method changed is a site too. Beside every site stands what
    isotropic Gaussian noise does there that is, in each linear, as large as the method's change.

    With ``predicted=True`` nothing is evaluated: each site's ΔNLL is the :func:`predicted_damage` of its linears,
    ½ Σ_r f_r ΔW_r G ΔW_rᵀ nats per token, with G the Gram matrix of the input and f the row Fisher. So is the noise's:
    ½ ‖ΔW‖²/(out·in) · Σ f · tr G. What would have been measured is None.

    Args:
        model: The baseline.
        method: A method's name, or a spec with options, ``"rtn:group_size=64"``. Or a changed model, whose parts are
            put into ``model`` as they are; then there are no severity and options, nor statistics unless ``predicted``.
        tokens: int64 [windows, length] on the model's device. With ``predicted`` they may be left out; where they are
            given, the statistics to predict by are collected from them, by a forward and a backward pass.
        severity: On the method's axis.
        statistics: What :func:`hemostat.collect` gathered, for methods that need it.
        linears: Damage each linear alone, instead of each block.
        control: False: no isotropic noise, which halves the time.
        predicted: Predict instead of measuring.
        judge: Statistics to predict by, with gram and row_fisher, of another text than the method is calibrated on,
            which flatters it. None: those of ``tokens``, else ``statistics``.
        unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from ``tokens``.
        byte_count: UTF-8 bytes of all targets, for bits per byte.
        batch: Windows at a time; their residual stream before every block is held in memory.
        memory_budget: Bytes for the baseline's logits of one batch; where they do not fit, they are computed for each
            site anew.
        bootstrap_samples: Resamples of windows behind each interval.
        seed: Of the resampling, of the noise, and of the method where it has an option of that name.
        progress: None: a bar where there is a terminal; True or False: always or never; or a function
            ``(done, total)`` of windows, over all sites.
        **options: The method's own options; see :func:`hemostat.methods`.

    Returns:
        Localization: ``.sites``, over which it iterates; ``.whole``, ``.additivity``, ``.layer_error``,
        ``.cascade_gain``, ``.worst(n)``, ``.to_dataframe()``, ``.predicted``.

    Raises:
        ValueError: For an unknown method or option, a severity out of range, statistics that are needed but not given,
            or a method that does not change blocks in place (it drops or repeats blocks, or changes what the model
            reads or how it decodes); with ``predicted``, for a change of other things than weights.
        TypeError: For a method without a severity, a model with one, or no tokens to measure on.
        NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.

    Warns:
        BaselineWarning: Where the baseline is no better than the unigram model.

    Example:
        >>> sites = hemostat.localize(model, "rtn", evaluation, severity=3)
        >>> first, share = sites.worst(1)[0].name, sites.additivity
        >>> statistics = hemostat.collect(model, calibration, needs=["rtn", "predict"])
        >>> predicted = hemostat.localize(model, "rtn", severity=3, statistics=statistics, predicted=True)
    """
    given = isinstance(method, _C.Model)
    if given and (severity is not None or (statistics is not None and not predicted) or options):
        raise TypeError("hemostat.localize: a changed model takes no severity, statistics or options of a method")
    if not given and severity is None:
        raise TypeError(f"hemostat.localize: severity is missing: how far {method} goes")
    severity = math.nan if severity is None else severity
    if predicted:
        if tokens is not None and judge is not None:
            raise TypeError("hemostat.localize: give the statistics to predict by (judge) or the tokens, not both")
        spec = method if given else seeded_spec(method, seed, options)
        if tokens is not None:
            judge = collect(
                model, tokens, ["predict"], seed=seed, memory_budget=memory_budget, batch=batch, progress=progress
            )
        judge = statistics if judge is None else judge
        if judge is None:
            raise ValueError(
                'hemostat.localize: predicted needs statistics with gram and row_fisher: collect "predict"'
            )
        return _C.localize_predicted(
            model, spec, severity=severity, statistics=statistics, judge=judge, linears=linears, control=control
        )
    if tokens is None:
        raise TypeError("hemostat.localize: tokens are missing: what to measure on; predicted=True takes none")
    if judge is not None:
        raise TypeError("hemostat.localize: judge is what predicted=True predicts by")
    with bar(progress, "localize" if given else f"localize {method}", "window") as update:
        found = _C.localize(
            model,
            method if given else seeded_spec(method, seed, options),
            tokens,
            severity=severity,
            statistics=statistics,
            linears=linears,
            control=control,
            unigram=unigram,
            byte_count=byte_count,
            batch=batch,
            memory_budget=memory_budget,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            progress=update,
        )
    warn_of_baseline(found.whole)
    return found


def table(localization: _C.Localization) -> str:
    """Its sites for a terminal, under a sentence about the whole."""
    found = localization.to_dict()
    title = f"{localization.method} at {number(found['severity'])}" if localization.method else "the damaged model"
    if localization.predicted:
        return _predicted_table(found, title)
    bounds = localization.whole.delta_nll_interval
    within = interval(bounds, signed) if bounds else "no interval"
    lines = [
        f"{title}, {windows_text(found['windows'])}: ΔNLL {signed(found['delta_nll'])} ({within}), "
        f"KL {number(found['kl'], 3)}; the sites add up to {_times(found['additivity'])} of it, "
        f"their KL to {_times(found['additivity_kl'])}"
    ]
    head = ["site", "ΔNLL", "95 % interval", "KL", "noise ΔNLL", "noise KL", "error", "gain"]
    rows = [
        [
            site["name"],
            signed(site["delta_nll"]),
            interval(site["delta_nll_interval"], signed) or "–",
            number(site["kl"], 3),
            signed(site["noise_delta_nll"]),
            number(site["noise_kl"], 3),
            number(site["error"], 3),
            number(site["cascade_gain"], 3),
        ]
        for site in found["sites"]
    ]
    return "\n".join([*lines, "", *aligned(head, rows), "", _sentence(found, title)])


def _predicted_table(found: dict[str, Any], title: str) -> str:
    head = ["site", "ΔNLL", "noise ΔNLL"]
    rows = [[site["name"], signed(site["delta_nll"]), signed(site["noise_delta_nll"])] for site in found["sites"]]
    first = f"{title}, predicted: ΔNLL {signed(found['delta_nll'])}"
    return "\n".join([first, "", *aligned(head, rows), "", _sentence(found, title)])


def _sentence(found: dict[str, Any], title: str) -> str:
    """Where it bleeds, in words."""
    named = {"method": found["method"] or "", "options": found["options"] or {}, "severity": found["severity"] or 0.0}
    claim, evidence = where(read(LocalizationFacts, found | named, "the localization"))
    return f"{title[:1].upper()}{title[1:]} bleeds {claim}. {evidence}"


def dataframe(localization: _C.Localization) -> pandas.DataFrame:
    """One row a site; the interval in two columns."""
    import pandas

    rows = []
    for site in localization.to_dict()["sites"]:
        low, high = site.pop("delta_nll_interval") or (None, None)
        rows.append(site | {"delta_nll_low": low, "delta_nll_high": high})
    return pandas.DataFrame(rows)


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"
