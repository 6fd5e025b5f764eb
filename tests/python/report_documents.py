"""Reports by hand, as report.json holds them, for what no scan shows at will."""

from __future__ import annotations

import copy
import functools
import math

import hemostat

SPARSITY = {"name": "sparsity", "unit": "fraction removed", "neutral": 0.0, "minimum": 0.0, "maximum": 1.0}
BITS = {"name": "bits", "unit": "bits", "neutral": 16.0, "minimum": 2.0, "maximum": 8.0, "farthest": 0.0}
LAYERS = {"name": "layers", "unit": "fraction", "neutral": 0.0, "minimum": 0.0, "maximum": 0.8, "farthest": 1.0}
TEMPERATURE = {"name": "temperature", "unit": "", "neutral": 1.0, "minimum": 1.0, "maximum": 5.0}


@functools.cache
def unchanged():
    """Every field that damage has, of a model beside itself."""
    subject = hemostat.data.reference()
    return hemostat.compare(subject.model, subject.model, subject.evaluation[:2, :32]).to_dict()


def damage(delta, half=0.0, **fields):
    """A loss with an interval of ± half; its KL is as large. None: the model has collapsed."""
    result = copy.deepcopy(unchanged()) | {"delta_nll": delta, "index": 0.1}
    result["perplexity"] = None if delta is None else 20 * math.exp(delta)
    result["delta_nll_interval"] = [None] * 2 if delta is None else [delta - half, delta + half]
    kl = None if delta is None else abs(delta)
    result["kl"] = dict.fromkeys(("mean", "median", "p90", "p99", "max", "reverse_mean"), kl) | {
        "by_confidence": [kl] * 4,
        "mean_interval": [kl, kl],
    }
    result |= {"top1_agreement": 0.9, "within_noise_floor": False}
    for name, value in fields.items():
        result[name] = result[name] | value if name == "kl" else value
    return result


def generated(**fields):
    """Damage by generation."""
    names = ("prompts", "prompt_length", "new_tokens", "first_divergence", "first_divergence_median", "exact_match")
    names += ("repetition", "repetition_baseline", "seed")
    names += ("distinct_1", "distinct_1_baseline", "distinct_2", "distinct_2_baseline")
    return dict.fromkeys(names, 0) | {"first_divergence_interval": [3, 4]} | fields


def method(name, axis, points, kind="weights", needs=(), **options):
    """A method and its trials: points are (severity, ΔNLL, half of its interval's width, further fields of damage)."""
    label = name + (":" + ",".join(f"{key}={value}" for key, value in options.items()) if options else "")
    facts = {"method": name, "options": options, "label": label, "kind": kind, "needs": list(needs)}
    trials = [
        {
            "method": name,
            "options": options,
            "severity": severity,
            "damage": damage(delta, half, **(further[0] if further else {})),
        }
        for severity, delta, half, *further in points
    ]
    return facts | {"axis": hemostat.Axis(**axis).to_dict()}, trials


def document(*methods, windows=40, localizations=(), floor=0.001, **provenance):
    trials = copy.deepcopy([trial for _, trials in methods for trial in trials])
    for trial in trials:
        trial["damage"]["windows"] = windows
        if windows < 2:
            trial["damage"]["delta_nll_interval"] = None
        trial["damage"] = hemostat.Damage.from_dict(trial["damage"]).to_dict()  # what other fields give
    return {
        "provenance": {
            "warnings": [],
            "model": {"name": "model", "source": "a checkpoint", "blocks": 5, "sha256": "aa", "dtype": "float32"},
            "protocol": "Teacher forcing.",
            "evaluation": {"windows": windows, "length": 512, "sha256": "bb", "text": "/some/where/text.txt"},
            "calibration": {"windows": 8, "length": 512, "sha256": "cc", "source": "given"},
            "methods": [facts for facts, _ in methods],
            "versions": {"hemostat": "0"},
            "date": "2026-01-02T03:04:05+00:00",
        }
        | provenance,
        "baseline": {
            "windows": windows,
            "perplexity": 20.0,
            "index": 0.0,
            "noise_floor": {"against": "bfloat16", "delta_nll": floor, "kl": 0.001, "top1_agreement": 0.99},
        },
        "trials": trials,
        "thresholds": [],
        "localizations": list(localizations),
    }


def site(name, block, delta, **fields):
    """A part of the model, damaged alone."""
    return {
        "name": name,
        "block": block,
        "linear": None,
        "delta_nll": delta,
        "delta_nll_interval": [0.9 * delta, 1.1 * delta],
        "kl": delta,
        "error": 0.1,
        "cascade_gain": 1.0,
        "noise_delta_nll": None,
        "noise_kl": None,
    } | fields


def localization(deltas, noise=None, method="wanda", **fields):
    """Of blocks by their ΔNLL; noise: how often what noise does there."""
    return {
        "method": method,
        "options": {},
        "severity": 0.5,
        "windows": 8,
        "delta_nll": 0.5,
        "kl": 0.5,
        "additivity": sum(deltas) / 0.5,
        "additivity_kl": None,
        "sites": [
            site(f"model.layers.{block}", block, delta, noise_delta_nll=None if noise is None else noise * delta)
            for block, delta in enumerate(deltas)
        ],
        "layer_error": [0.0, 0.1, 0.2, 0.4],
        "cascade_gain": [1.0] * 4,
    } | fields
