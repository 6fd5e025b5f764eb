"""What a treatment tells of itself."""

from __future__ import annotations

from typing import Any

from hemostat import _C
from hemostat._columns import aligned
from hemostat._number_text import interval, number, percent, signed

__all__ = ["table", "to_dict"]


def to_dict(treatment: _C.Treatment) -> dict[str, Any]:
    """JSON's types; damages with what :meth:`Damage.to_dict` gives."""
    bounds = treatment.recovery_interval
    return {
        "untreated": treatment.untreated and treatment.untreated.to_dict(),
        "treated": treatment.treated and treatment.treated.to_dict(),
        "recovery": treatment.recovery,
        "recovery_interval": bounds and list(bounds),
        "settings": dict(treatment.settings),
        "severities": dict(treatment.severities),
    }


def table(treatment: _C.Treatment) -> str:
    """Perplexity and ΔNLL untreated and treated, and what share of the damage was spared."""
    if treatment.treated is None or treatment.untreated is None:
        return "not judged: no evaluation text was given"
    head = ["", "perplexity", "ΔNLL", "95 %", "KL", "top-1 agreement"]
    rows = [["unchanged", number(treatment.treated.perplexity_baseline), "", "", "", ""]]
    for name, damage in (("untreated", treatment.untreated), ("treated", treatment.treated)):
        rows.append(
            [
                name,
                number(damage.perplexity),
                signed(damage.delta_nll),
                interval(damage.delta_nll_interval, signed),
                number(damage.kl.mean),
                number(damage.top1_agreement),
            ]
        )
    text = "\n".join(aligned(head, rows))
    if treatment.recovery is not None:
        text += f"\nrecovery {percent(treatment.recovery)}"
        if within := interval(treatment.recovery_interval, percent):
            text += f" ({within})"
    return text
