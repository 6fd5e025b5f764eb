"""What a trial depends on. A trial that is kept serves every scan in which all of that is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["Settings", "baseline_differences", "digest", "differences", "specs_of", "translated"]

# A scan's settings, all that decides on its numbers:
#   model, dtype, device, evaluation, seed, bootstrap_samples, hemostat: every number depends on these
#   calibration: those of methods that need statistics; the index of all, which can be computed anew
#   generation: {always, prompts, prompt_length, new_tokens, decoder, context, eos_token_ids}: what is measured by it
#   methods: by spec {severities, options with their defaults, needs, generates, source of a user's own}
#   joint: by label {severities of both, methods: by spec as above}
#   localize_windows: localizations
Settings = dict[str, Any]

SUBJECT = {
    "model": "the model",
    "dtype": "the dtype",
    "device": "the device",
    "evaluation": "the evaluated text",
    "seed": "the seed",
    "bootstrap_samples": "bootstrap_samples",
    "hemostat": "hemostat's version",
}


def digest(settings: Settings) -> str:
    """SHA-256 of the settings, in whatever order they are."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, allow_nan=False).encode()).hexdigest()


def specs_of(trial: str) -> list[str]:
    """The methods of a trial, in order, by the name that a store knows it by."""
    first, _, second = trial.partition(" > ")
    return [first.rpartition("@")[0], second] if second else [first]


def baseline_differences(kept: Settings, now: Settings) -> list[str]:
    """What of all that the unchanged model's numbers depend on differs; a phrase each."""
    return [
        f"{what} {_was(name, kept.get(name), now.get(name))}"
        for name, what in SUBJECT.items()
        if kept.get(name) != now.get(name)
    ]


def differences(kept: Settings, now: Settings, specs: Iterable[str]) -> list[str]:
    """What of all that a trial of these methods depends on differs; a phrase each. None: the trials are one."""
    found = baseline_differences(kept, now)
    before, here = _methods(kept), _methods(now)
    generates = needs = False
    for spec in specs:
        if spec not in before:
            return [f"there is none of {spec}"]
        mine = here.get(spec, {})
        generates |= bool(mine.get("generates"))
        needs |= bool(mine.get("needs")) or bool(mine.get("options", {}).get("correct"))
        if before[spec].get("source") != mine.get("source"):
            found.append("its source changed")
        options = [each.get("options", {}) for each in (before[spec], mine)]
        found += [
            f"{name} {_was(name, options[0].get(name), options[1].get(name))}"
            for name in dict.fromkeys([*options[0], *options[1]])
            if options[0].get(name) != options[1].get(name)
        ]
    calibration = [settings.get("calibration") for settings in (kept, now)]
    if needs and calibration[0] != calibration[1]:
        found.append(f"the calibration text {_was('calibration', *calibration)}")
    protocols = [dict(settings.get("generation") or {}) for settings in (kept, now)]
    measured = [bool(protocol.pop("always", False)) or generates for protocol in protocols]
    if measured[0] != measured[1] or (generates or measured[0]) and protocols[0] != protocols[1]:
        found.append("it was measured by another generation")
    return found


def translated(kept: Settings, now: Settings, former_model: str | None) -> Settings:
    """Settings that an earlier form of the store kept, in today's form as far as they serve ``now``.

    They named no options but those given and no needs, which a version decides on, and knew the model with the text of
    its config.

    Args:
        former_model: what ``now``'s model was known by.
    """
    if isinstance(kept.get("generation"), Mapping) and "always" in kept["generation"] or "generation" not in kept:
        return kept
    entries, owned = _methods(now), {}
    for label, entry in kept.get("joint", {}).items():
        users = [spec for spec in label.split(", then ") if "source" in entries.get(spec, {})]
        owned |= dict(zip(users, entry.get("sources", []), strict=False))
        owned |= {spec: owned.get(spec) for spec in label.split(", then ")}
    owned |= {spec: entry.get("source") for spec, entry in kept.get("methods", {}).items()}
    given = kept["generation"]
    protocol = dict(now.get("generation") or {}) | (given if isinstance(given, Mapping) else {})
    return kept | {
        "model": now.get("model") if kept.get("model") == former_model else kept.get("model"),
        "methods": {
            spec: {name: value for name, value in entries[spec].items() if name != "source"}
            | ({"source": source} if source else {})
            for spec, source in owned.items()
            if spec in entries
        },
        "joint": {},
        "generation": protocol | {"always": bool(given)},
    }


def _methods(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """Each method's entry by its spec, those of pairs among them."""
    pairs: Sequence[Mapping[str, Any]] = list(settings.get("joint", {}).values())
    return {spec: entry for each in [settings, *pairs] for spec, entry in each.get("methods", {}).items()}


def _was(name: str, there: Any, here: Any) -> str:
    return f"was {_said(name, there)} and is {_said(name, here)}"


def _said(name: str, value: Any) -> str:
    if name == "model" and value:
        return f"SHA-256 {value[:12]}…"
    if isinstance(value, Mapping) and "sha256" in value:
        return f"{value['windows']} windows of {value['length']} tokens (SHA-256 {value['sha256'][:12]}…)"
    if isinstance(value, Mapping | list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
