"""The curves on SmolLM2-135M that the documentation shows.

    python docs/smollm2_curves.py measure 8    # on 8 windows: docs/curves/smollm2.json (an hour on two cores)
    python docs/smollm2_curves.py surface 8    # two methods together: docs/curves/smollm2_surface.json (20 minutes)
    python docs/smollm2_curves.py              # draws that: one picture a method, and the README's

`make figures` does all three. The numbers lie beside the pictures, so that they can be drawn anew without measuring;
what the files have of as many windows is not measured again.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import hemostat
from hemostat._surface import surface_facts
from hemostat.report import PALETTE, TOLERANCES, distance, number, trial_key, write_whole

HERE = Path(__file__).parent
DATA = HERE / "curves" / "smollm2.json"
SURFACE_DATA = HERE / "curves" / "smollm2_surface.json"

# What is swept: every method, and beside it what its options make of it.
SPECS = (
    ["magnitude", "magnitude:scope=row"],
    ["wanda"],
    ["sparsegpt", "sparsegpt:m=4"],
    ["ria"],
    ["gradient", "gradient:score=taylor"],
    ["admm"],
    ["dsnot"],
    ["owl"],
    ["gradient_aware"],
    ["rtn", "rtn:group_size=64", "rtn:group_size=64,search_clip=true"],
    ["gptq:group_size=64"],
    ["nf4", "fp4", "mxfp4", "nvfp4", "fp8", "fp8:format=e5m2", "ternary"],
    ["gguf", "gguf:family=legacy", "gguf:family=iq"],
    ["awq:group_size=64"],
    ["activation"],
    ["svd"],
    ["asvd"],
    ["svd_llm"],
    ["gaussian"],
    ["bit_flip"],
    ["stuck_at"],
    ["activation_noise"],
    ["drop_layers"],
    ["wanda_sp", "flap", "llm_pruner", "gradient_units"],
    ["shortgpt", "sleb:windows=2", "slicegpt"],
    ["drop_norms"],
    ["duplicate_layers"],
    ["insert_identity"],
    ["token_noise", "token_noise:kind=drop", "token_noise:kind=swap"],
    ["temperature", "temperature:side=down"],
)
# Finer than the default grid where a model collapses within its first step: how many more parts fall.
FINER = {"drop_layers": (1, 3), "drop_norms": (1, 2, 3)}
# Fewer severities than the default grid, of methods beside which the finer curve of another stands.
COARSER = dict.fromkeys(
    ("ria", "gradient", "gradient:score=taylor", "admm", "dsnot", "owl", "gradient_aware", "asvd", "svd_llm"),
    (0.3, 0.5, 0.7),
) | dict.fromkeys(
    ("wanda_sp", "flap", "llm_pruner", "gradient_units", "slicegpt", "shortgpt", "sleb:windows=2"),
    (0.1, 0.2, 0.3),
)
OVERVIEW = ("magnitude", "wanda", "rtn:group_size=64", "activation", "drop_layers")
CALIBRATION_WINDOWS = 16
# Two methods together: the first has the rows.
SURFACE = {"wanda": (0.1, 0.2, 0.3, 0.4, 0.5), "rtn:group_size=64": (8, 6, 5, 4, 3)}

INK, SOFT, LINE = "#1c1b1a", "#6b6763", "#e3dfda"
LEAST, MOST = 1e-3, 100  # nats per token, the ends of every picture; beyond the upper one an arrow says so


def measure(windows: int) -> None:
    """Scans SmolLM2 and keeps what is drawn, method by method; what an interrupted run has kept stays."""
    subject = hemostat.data.smollm2()
    kept = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    if kept.get("windows") != windows:
        kept = {"curves": []}
    for specs in SPECS:
        if {curve["label"] for curve in kept["curves"]} >= set(specs):
            continue
        report = hemostat.scan(
            subject.model,
            subject.evaluation[:windows],
            subject.calibration[:CALIBRATION_WINDOWS],
            methods=specs,
            severities={spec: grid(subject.model, spec) for spec in specs if spec in FINER}
            | {spec: list(COARSER[spec]) for spec in specs if spec in COARSER},
        )
        facts = report.provenance
        kept |= {
            "model": "SmolLM2-135M-Instruct",
            "dtype": facts["model"]["dtype"],
            "sha256": facts["model"]["sha256"],
            "text": subject.evaluation_text,
            "windows": windows,
            "length": facts["evaluation"]["length"],
            "calibration_windows": CALIBRATION_WINDOWS,
            "command": f"python docs/smollm2_curves.py measure {windows}",
            "baseline": report.baseline,
            **{name: facts[name] for name in ("protocol", "versions", "machine", "date")},
        }
        for method in facts["methods"]:
            trials = [trial for trial in report.trials if trial_key(trial) == trial_key(method)]
            threshold = next(entry for entry in report.thresholds if trial_key(entry) == trial_key(method))
            kept["curves"].append(
                {name: method[name] for name in ("method", "options", "label", "axis")}
                | {name: threshold[name] for name in ("edge", "edge_interval", "edge_censored")}
                | {"points": [{"severity": trial["severity"]} | point(trial["damage"]) for trial in trials]}
            )
        order = [spec for row in SPECS for spec in row]
        kept["curves"].sort(key=lambda curve: order.index(curve["label"]))
        write_whole(DATA, json.dumps(rounded(kept), indent=1, ensure_ascii=False) + "\n")


def measure_surface(windows: int) -> None:
    """The damage of SURFACE on SmolLM2, at each severity of both, unless it is kept already."""
    kept = json.loads(SURFACE_DATA.read_text(encoding="utf-8")) if SURFACE_DATA.exists() else {}
    if kept and kept["windows"] == windows and of_surface(kept) == SURFACE:
        return
    subject = hemostat.data.smollm2()
    model, evaluation = subject.model, subject.evaluation[:windows]
    statistics = hemostat.collect(model, subject.calibration[:CALIBRATION_WINDOWS], needs=list(SURFACE))
    surface = hemostat.surface(
        model, list(SURFACE), evaluation, statistics=statistics, severities=list(SURFACE.values())
    )
    facts = surface_facts(surface).to_json(TOLERANCES)
    kept = {name: facts[name] for name in ("methods", "axes", "severities", "additivity", "zone")} | {
        "windows": windows,
        "length": evaluation.shape[1],
        "command": f"python docs/smollm2_curves.py surface {windows}",
        "points": [
            [{name: damage[name] for name in ("perplexity", "delta_nll", "delta_nll_interval")} for damage in row]
            for row in facts["damage"]
        ],
    }
    write_whole(SURFACE_DATA, json.dumps(rounded(kept), indent=1, ensure_ascii=False) + "\n")


def of_surface(kept: dict) -> dict[str, tuple[float, ...]]:
    """What SURFACE was; each axis has the unchanged model first."""
    labels = (method["label"] for method in kept["methods"])
    return {label: tuple(axis[1:]) for label, axis in zip(labels, kept["severities"], strict=True)}


def grid(model: hemostat.Model, spec: str) -> list[float]:
    """The default grid of a method in steps, and the steps that FINER adds."""
    axis = hemostat.prepare(model, spec).axis
    return sorted({*axis.default_grid, *(round(axis.step * steps, 12) for steps in FINER[spec])})


def point(damage: dict) -> dict:
    names = ("perplexity", "delta_nll", "delta_nll_interval", "top1_agreement", "index", "within_noise_floor")
    return {name: damage[name] for name in names} | {
        "kl": damage["kl"]["mean"],
        **({"generation": damage["generation"]} if damage.get("generation") else {}),
    }


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


class Frame(NamedTuple):
    """A picture's size, and where its axes lie."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    greatest: float  # ΔNLL at the top

    def x(self, share: float) -> float:
        return self.left + share * (self.width - self.left - self.right)

    def share(self, delta: float) -> float:
        """How far ΔNLL goes from LEAST to the greatest, by its logarithm."""
        return math.log(min(max(delta, LEAST), self.greatest) / LEAST) / math.log(self.greatest / LEAST)

    def y(self, delta: float) -> float:
        return self.height - self.bottom - self.share(delta) * (self.height - self.top - self.bottom)


def framed(curves: Sequence[dict], width: int, height: int, right: int) -> Frame:
    greatest = max(delta_of(p) for curve in curves for p in curve["points"])
    top = MOST if greatest > MOST else 10 ** max(0, math.ceil(math.log10(max(greatest, LEAST))))
    return Frame(width, height, 70, right, 60, 52, top)


def delta_of(measured: dict) -> float:
    """A point's ΔNLL; one that is not finite lies beyond every picture."""
    return math.inf if measured["delta_nll"] is None else measured["delta_nll"]


def picture(frame: Frame, title: str, subtitle: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" '
        f'height="{frame.height}" font-family="system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, DejaVu Sans, '
        f'sans-serif" role="img">\n<title>{escape(title)}</title>\n'
        + "\n".join(
            [
                f'<rect width="{frame.width}" height="{frame.height}" fill="#ffffff"/>',
                text(frame.left, 26, title, size=17, weight=600),
                text(frame.left, 44, subtitle, fill=SOFT),
                *parts,
            ]
        )
        + "\n</svg>\n"
    )


def lines(frame: Frame, kept: dict, tolerances: Sequence[float]) -> list[str]:
    floor = kept["baseline"]["noise_floor"]
    left, right = frame.x(0), frame.x(1)
    parts = []
    if floor["delta_nll"] > LEAST:
        top = frame.y(floor["delta_nll"])
        parts.append(
            f'<rect x="{left}" y="{top:.1f}" width="{right - left}" height="{frame.y(LEAST) - top:.1f}" '
            'fill="#f1eeea"/>'
        )
        parts.append(text(right - 6, top + 14, f"noise floor ({floor['against']})", fill=SOFT, anchor="end"))
    decade = LEAST
    while decade <= frame.greatest * 1.001:
        parts.append(line(left, frame.y(decade), right, frame.y(decade), LINE))
        parts.append(text(left - 8, frame.y(decade) + 4, f"{decade:g}", fill=SOFT, anchor="end"))
        decade *= 10
    for tolerance in tolerances:
        parts.append(line(left, frame.y(tolerance), right, frame.y(tolerance), SOFT, dash="3 3"))
        label = f"tolerance {tolerance}"
        parts.append(text(right - 6, frame.y(tolerance) - 4, label, fill=SOFT, size=10, anchor="end"))
    return parts


def curve_parts(frame: Frame, curve: dict, color: str, place: Callable[[float], float]) -> tuple[list[str], tuple]:
    """A curve's line, intervals and points, and its label as (height, start, color, text)."""
    points = [(frame.x(place(p["severity"])), frame.y(delta_of(p)), p) for p in curve["points"]]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2.2" stroke-linejoin="round"/>']
    for x, y, p in points:
        if delta_of(p) > MOST:
            parts.append(f'<path d="M{x - 5:.1f} {y:.1f}h10l-5 -9z" fill="{color}"/>')
            continue
        low, high = p["delta_nll_interval"]
        parts.append(line(x, frame.y(low), x, frame.y(high), color))
        fill = "#ffffff" if p["within_noise_floor"] or p["delta_nll"] < LEAST else color  # hollow: no damage
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{color}"/>')
    x, y, _ = points[-1]
    return parts, (y, x, color, curve["label"])


def overview(kept: dict) -> str:
    """Five methods on the axis that all have in common."""
    curves = [next(curve for curve in kept["curves"] if curve["label"] == label) for label in OVERVIEW]
    frame = framed(curves, 880, 470, right=190)
    parts, labels = lines(frame, kept, TOLERANCES[1:2]), []
    for step in range(6):
        parts.append(text(frame.x(step / 5), frame.height - 32, f"{step / 5:g}", fill=SOFT, anchor="middle"))
    legend = "distance from the unchanged model on each method's own axis"
    parts.append(text(frame.x(0.5), frame.height - 12, legend, fill=SOFT, anchor="middle"))
    for curve, color in zip(curves, PALETTE, strict=False):
        drawn, label = curve_parts(frame, curve, color, lambda severity, axis=curve["axis"]: distance(axis, severity))
        parts += drawn
        labels.append(label)
    return picture(frame, "How SmolLM2-135M bleeds", subtitle(kept), [*parts, *label_parts(frame, labels)])


def one_method(kept: dict, name: str) -> str:
    """A method's curves on its own axis; curves on another axis (the other side of neutral) go the other way."""
    curves = [curve for curve in kept["curves"] if curve["method"] == name]
    frame = framed(curves, 720, 380, right=30 + 8 * max(len(short_label(curve)) for curve in curves))
    severities = [severity for curve in curves for severity in (*grid_of(curve), curve["axis"]["neutral"])]
    if curves[0]["axis"]["neutral"] > max(grid_of(curves[0])):  # bits: the unchanged model is far to the left
        severities = [severity for curve in curves for severity in grid_of(curve)]
        start, end = max(severities) + 0.5, min(severities)
    else:
        start, end = min(severities), max(severities)

    def place(severity: float) -> float:
        return (severity - start) / (end - start)

    parts, labels = lines(frame, kept, TOLERANCES), []
    shown: list[float] = []
    for severity in sorted(set(severities), key=place):
        at = frame.x(place(severity))
        if not shown or at - shown[-1] > 30:
            shown.append(at)
            parts.append(text(at, frame.height - 32, number(severity, 3), fill=SOFT, anchor="middle"))
    parts.append(text(frame.x(0.5), frame.height - 12, axis_title(curves[0]["axis"]), fill=SOFT, anchor="middle"))
    for curve, color in zip(curves, PALETTE, strict=False):
        drawn, label = curve_parts(frame, curve, color, place)
        parts += drawn
        height, start_of_label, color, _ = label
        labels.append((height, start_of_label, color, short_label(curve)))
    return picture(frame, f"{name} on SmolLM2-135M", subtitle(kept), [*parts, *label_parts(frame, labels)])


def surface_picture(kept: dict) -> str:
    """ΔNLL of each pair of severities, darker where it is more, and the edge of the joint zone."""
    rows, columns = kept["severities"]
    tolerance = TOLERANCES[-1]
    left, top, cell_width, cell_height = 80, 92, 96, 44
    foot = top + cell_height * len(rows)
    greatest = max(delta_of(measured) for row in kept["points"] for measured in row)
    frame = Frame(left + cell_width * len(columns) + 24, foot + 52, 24, 0, 0, 0, min(greatest, MOST))
    parts = []
    for i, row in enumerate(kept["points"]):
        y = top + i * cell_height
        parts.append(text(left - 12, y + 27, number(rows[i], 3), fill=SOFT, anchor="end"))
        for j, measured in enumerate(row):
            x, delta = left + j * cell_width, delta_of(measured)
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell_width}" height="{cell_height}" fill="{PALETTE[0]}" '
                f'fill-opacity="{0.7 * frame.share(delta):.2f}" stroke="#ffffff"/>'
            )
            safe = delta <= tolerance
            weight = 600 if safe else 400
            parts.append(text(x + cell_width / 2, y + 27, number(delta, 3), weight=weight, size=13, anchor="middle"))
            if safe:
                parts.append(line(x + 14, y + 36, x + cell_width - 14, y + 36, INK))
    for j, severity in enumerate(columns):
        parts.append(text(left + (j + 0.5) * cell_width, foot + 18, number(severity, 3), fill=SOFT, anchor="middle"))
    first, second = kept["methods"]
    title_of_columns = f"{second['label']}: {axis_title(kept['axes'][1])}"
    parts.append(text(left + cell_width * len(columns) / 2, foot + 40, title_of_columns, fill=SOFT, anchor="middle"))
    parts.append(text(24, top - 12, f"{first['label']}: {axis_title(kept['axes'][0])}", fill=SOFT))
    unchanged = number(kept["points"][0][0]["perplexity"])
    about = (
        f"ΔNLL in nats per token; perplexity {unchanged} unchanged; {kept['windows']} windows of "
        f"{kept['length']} tokens; underlined: at most {tolerance}"
    )
    return picture(frame, f"{first['label']}, then {second['label']} on SmolLM2-135M", about, parts)


def axis_title(axis: dict) -> str:
    return axis["name"] + (f", {axis['unit']}" if axis["unit"] not in ("", axis["name"]) else "")


def grid_of(curve: dict) -> list[float]:
    return [p["severity"] for p in curve["points"]]


def short_label(curve: dict) -> str:
    return curve["label"].partition(":")[2].replace(",", ", ") or curve["label"]


def subtitle(kept: dict) -> str:
    return (
        f"ΔNLL in nats per token; perplexity {number(kept['baseline']['perplexity'])} unchanged; "
        f"{kept['windows']} windows of {kept['length']} tokens, 95 % intervals"
    )


def label_parts(frame: Frame, labels: Sequence[tuple]) -> list[str]:
    """Labels at the curves' ends; where columns overlap, pushed down until none covers another."""
    placed: list[tuple] = []
    for height, start, color, label in sorted(labels):
        near = [other for other in placed if abs(other[1] - start) < 150]
        placed.append((max([height, *(other[0] + 17 for other in near)]), start, color, label))
    return [
        text(max(start, frame.x(0)) + 11, height + 4, label, fill=color, weight=600, size=13)
        for height, start, color, label in placed
    ]


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


def pictures(kept: dict, surface: dict) -> dict[Path, str]:
    names = dict.fromkeys(curve["method"] for curve in kept["curves"])
    return {
        HERE / "smollm2-curves.svg": overview(kept),
        HERE / "curves" / "surface.svg": surface_picture(surface),
        **{HERE / "curves" / f"{name}.svg": one_method(kept, name) for name in names},
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(int(sys.argv[2]))
    elif sys.argv[1:2] == ["surface"]:
        measure_surface(int(sys.argv[2]))
    measured = (json.loads(file.read_text(encoding="utf-8")) for file in (DATA, SURFACE_DATA))
    for path, drawing in pictures(*measured).items():
        write_whole(path, drawing)
        print(path)
