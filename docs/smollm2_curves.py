"""Draws docs/smollm2-curves.svg, the picture in the README, from a scan's report.json.

make demo
python docs/smollm2_curves.py demo/report.json
"""

import math
import sys
from html import escape
from pathlib import Path

from hemostat.report import PALETTE, TOLERANCES, Report, distance, number, trial_key

WIDTH, HEIGHT = 880, 470
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 54, 52
INK, SOFT, LINE = "#1c1b1a", "#6b6763", "#e3dfda"
LEAST = 1e-3  # nats per token, the bottom of the picture


def draw(report: Report) -> str:
    points = {trial_key(method): [] for method in report.provenance["methods"]}
    for trial in report.trials:
        axis = next(m["axis"] for m in report.provenance["methods"] if trial_key(m) == trial_key(trial))
        delta = trial["damage"]["delta_nll"]
        if delta is not None:
            points[trial_key(trial)].append((distance(axis, trial["severity"]), delta, trial["damage"]))
    greatest = 10 ** math.ceil(math.log10(max(delta for curve in points.values() for _, delta, _ in curve)))

    def x(at: float) -> float:
        return LEFT + at * (WIDTH - LEFT - RIGHT)

    def y(delta: float) -> float:
        share = math.log(max(delta, LEAST) / LEAST) / math.log(greatest / LEAST)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    baseline, floor = report.baseline, report.baseline["noise_floor"]
    evaluation = report.provenance["evaluation"]
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 26, "How SmolLM2-135M bleeds", size=17, weight=600),
        text(
            LEFT,
            44,
            f"ΔNLL in nats per token; perplexity {number(baseline['perplexity'])} unchanged; "
            f"{evaluation['windows']} windows of {evaluation['length']} tokens, 95 % intervals",
            fill=SOFT,
        ),
    ]
    if floor["delta_nll"] > LEAST:
        top = y(floor["delta_nll"])
        parts.append(
            f'<rect x="{x(0)}" y="{top:.1f}" width="{x(1) - x(0)}" height="{y(LEAST) - top:.1f}" fill="#f1eeea"/>'
        )
        parts.append(text(x(1) - 6, top + 14, f"noise floor ({floor['against']})", fill=SOFT, anchor="end"))
    decade = LEAST
    while decade <= greatest * 1.001:
        parts.append(line(x(0), y(decade), x(1), y(decade), LINE))
        parts.append(text(LEFT - 8, y(decade) + 4, f"{decade:g}", fill=SOFT, anchor="end"))
        decade *= 10
    for tolerance in TOLERANCES[1:2]:
        parts.append(line(x(0), y(tolerance), x(1), y(tolerance), SOFT, dash="3 3"))
        parts.append(text(x(1) - 6, y(tolerance) - 5, f"tolerance {tolerance}", fill=SOFT, anchor="end"))
    for step in range(6):
        parts.append(text(x(step / 5), HEIGHT - BOTTOM + 20, f"{step / 5:g}", fill=SOFT, anchor="middle"))
    parts.append(
        text(
            x(0.5),
            HEIGHT - 12,
            "distance from the unchanged model on each method's own axis",
            fill=SOFT,
            anchor="middle",
        )
    )

    labels = []
    for method, color in zip(report.provenance["methods"], PALETTE, strict=False):
        curve = points[trial_key(method)]
        path = " ".join(f"{x(at):.1f},{y(delta):.1f}" for at, delta, _ in curve)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.2" stroke-linejoin="round"/>'
        )
        for at, delta, damage in curve:
            low, high = damage["delta_nll_interval"]
            parts.append(line(x(at), y(low), x(at), y(high), color))
            fill = "#ffffff" if damage["within_noise_floor"] or delta < LEAST else color  # hollow: no damage
            parts.append(f'<circle cx="{x(at):.1f}" cy="{y(delta):.1f}" r="4" fill="{fill}" stroke="{color}"/>')
        labels.append((y(curve[-1][1]), x(curve[-1][0]), color, method["label"]))
    for height, start, color, label in apart(labels, 17):
        parts.append(text(max(start, x(0)) + 11, height + 4, label, fill=color, weight=600, size=13))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, sans-serif" role="img">\n'
        "<title>Damage to SmolLM2-135M by method and distance from the unchanged model</title>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def apart(labels: list, gap: float) -> list:
    """Labels whose columns overlap, pushed down until none covers another."""
    placed: list = []
    for height, start, color, label in sorted(labels):
        near = [other for other in placed if abs(other[1] - start) < 150]
        placed.append((max([height, *(other[0] + gap for other in near)]), start, color, label))
    return placed


def text(x: float, y: float, content: str, fill=INK, size=12, weight=400, anchor="start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(content)}</text>'
    )


def line(x1: float, y1: float, x2: float, y2: float, color: str, dash: str = "none") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="1.2" '
        f'stroke-dasharray="{dash}"/>'
    )


if __name__ == "__main__":
    target = Path(__file__).parent / "smollm2-curves.svg"
    target.write_text(draw(Report.load(sys.argv[1])), encoding="utf-8")
    print(target)
