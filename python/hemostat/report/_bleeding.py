"""Where damage sits: in which blocks, against noise of equal norm, and on which tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hemostat._number_text import known, listed, nats, number, whole_percent, windows_text
from hemostat.report._curve import Curve
from hemostat.report._document import LocalizationFacts, Site
from hemostat.report._reach import Finding, Reach


def bleeding(reaches: Sequence[Reach]) -> list[Finding]:
    """Where each curve bleeds, as far as the run says."""
    localized = [r.curve for r in reaches if r.curve.localization and block_sites(r.curve.localization)]
    missing = [r.curve.label for r in reaches if r.curve not in localized]
    findings = [_by_block(curve) for curve in localized]
    if not localized and reaches:
        findings.append(Finding("Not localized in this run", "Which layers carry the damage was not measured."))
    elif missing:
        findings.append(Finding("Not localized", f"Which layers carry it was not measured for {listed(missing)}."))
    return findings + list(_by_token(reaches))


def block_sites(localization: LocalizationFacts) -> list[Site]:
    """Whole blocks where they were localized, else single linears; embedding, final norm and head where they changed.
    Those without a finite ΔNLL are left out."""
    sites = [site for site in localization.sites if site.delta_nll is not None]
    if any(is_block(site) for site in sites):
        return [site for site in sites if site.linear is None]
    return sites


def is_block(site: Site) -> bool:
    """Whether the site is a whole block."""
    return site.block is not None and site.linear is None


def site_name(site: Site) -> str:
    """Block 3; block 3 q_proj; the last part of its name where the site is in no block."""
    last = (site.linear or site.name).split(".")[-1]
    return last if site.block is None else f"block {site.block}" + (f" {last}" if site.linear else "")


def site_names(sites: Sequence[Site]) -> str:
    """Block 3; blocks 0, 3 and 29; block 0 q_proj and block 3 up_proj."""
    if len(sites) > 1 and all(map(is_block, sites)):
        return f"blocks {listed([str(site.block) for site in sites])}"
    return listed([site_name(site) for site in sites])


def summed(sites: Sequence[Site]) -> float:
    """What all of them cost, each alone."""
    return sum(max(0.0, site.delta_nll) for site in sites)


def worst_sites(localization: LocalizationFacts) -> tuple[list[Site], float]:
    """The fewest sites that make half of the sum of what each costs alone, worst first, and the share they make."""
    sites = sorted(block_sites(localization), key=lambda site: -site.delta_nll)
    total, part, worst = summed(sites), 0.0, []
    for site in sites:
        if part >= total / 2 or site.delta_nll <= 0:
            break
        worst.append(site)
        part += site.delta_nll
    return worst, part / total if total else 0.0


def is_concentrated(localization: LocalizationFacts) -> bool:
    """Whether a fifth of the sites, or one, makes half of the damage, and each of these does some for certain, or is
    predicted to."""
    worst, _ = worst_sites(localization)
    certain = localization.windows is None or all(
        site.delta_nll_interval is not None and (site.delta_nll_interval[0] or 0) > 0 for site in worst
    )
    return bool(worst) and certain and len(worst) <= max(1, len(block_sites(localization)) // 5)


def _by_block(curve: Curve) -> Finding:
    claim, evidence = where(curve.localization)
    return Finding(f"at {curve.at(curve.localization.severity)}: {claim}", evidence, curve)


def where(found: LocalizationFacts) -> tuple[str, str]:
    """Where it bleeds, and what that rests on."""
    sites, (worst, share) = block_sites(found), worst_sites(found)
    if not worst:
        return "in no part alone", "No part, changed alone, costs anything."
    if is_concentrated(found):
        claim = f"mostly in {site_names(worst)}"
        sentences = [
            f"Changed alone, {'it makes' if len(worst) == 1 else 'they make'} {whole_percent(share)} of the sum over "
            f"all {len(sites)}, where an even share would be {whole_percent(len(worst) / len(sites))}."
        ]
    else:
        claim = f"spread over the {_parts(sites)}"
        top = worst[0].delta_nll / summed(sites)
        sentences = [
            f"It takes {len(worst)} of {len(sites)}, each changed alone, to make half of the sum; the worst, "
            f"{site_name(worst[0])}, makes {whole_percent(top)}."
        ]
    sentences += [*_additivity(found), *_against_noise(worst), *_error(found)]
    sentences.append("Predicted, not measured." if found.windows is None else f"On {windows_text(found.windows)}.")
    return claim, " ".join(sentences)


def _parts(sites: Sequence[Site]) -> str:
    return "blocks" if any(map(is_block, sites)) else "linear layers"


def _additivity(found: LocalizationFacts) -> Iterable[str]:
    whole, additivity = found.delta_nll, found.additivity
    if whole is None or additivity is None:
        return
    if additivity < 0.8:
        meaning = "Together they do more than apart"
    elif additivity > 1.25:
        meaning = "Together they do less than apart"
    else:
        meaning = "The parts nearly add up"
    yield f"{meaning}: the sum is {whole_percent(additivity)} of the whole model's {nats(whole)} nats."


def _against_noise(worst: Sequence[Site]) -> Iterable[str]:
    noise = [site.noise_delta_nll for site in worst if site.noise_delta_nll is not None]
    if len(noise) < len(worst) or sum(noise) <= 0:
        return
    ratio = sum(noise) / summed(worst)
    if ratio > 1.25:
        meaning = "the method spares what matters"
    elif ratio < 0.8:
        meaning = "the method hits what matters more than chance would"
    else:
        meaning = "the place hurts, whatever is done to it"
    there = "there" if len(worst) == 1 else "in these"
    times = number(ratio, 2)
    often = "" if times == "1" else f"{times} times "
    yield f"Random noise of equal norm {there} costs {often}as much: {meaning}."


def _error(found: LocalizationFacts) -> Iterable[str]:
    errors = [error for error in found.layer_error if error]
    if len(errors) > 1:
        yield (
            "With the whole model changed, the relative error of the hidden state goes from "
            f"{number(errors[0], 2)} to {number(errors[-1], 2)} at the last block."
        )


def _by_token(reaches: Sequence[Reach]) -> Iterable[Finding]:
    """Which tokens move, from the first severity that does harm; nothing where no side stands out."""
    shares = []
    for r in reaches:
        trial = r.unsafe or r.open
        quarters = trial.damage.kl.by_confidence if trial else []
        if len(quarters) == 4 and all(map(known, quarters)) and sum(quarters) > 0:
            shares.append([value / sum(quarters) for value in quarters])
    if not shares:
        return
    unsure, sure = [share[0] for share in shares], [share[3] for share in shares]
    if min(unsure) > 0.3:
        claim = "Mostly on tokens that the model was unsure of"
    elif min(sure) > 0.3:
        claim = "Mostly on tokens that the model was sure of"
    else:
        return
    yield Finding(
        claim,
        f"Where damage begins, the quarter of the tokens with the least confident predictions takes {_span(unsure)} of "
        f"the KL divergence, the most confident quarter {_span(sure)}.",
    )


def _span(shares: Sequence[float]) -> str:
    low, high = whole_percent(min(shares)), whole_percent(max(shares))
    return high if low == high else f"{low.removesuffix(' %')} to {high}"
