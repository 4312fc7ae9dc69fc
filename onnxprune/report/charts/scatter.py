"""Points of two figures: what is left against how near it is, with the bound and what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from onnxprune.report.charts.frame import LEFT, RIGHT, element, horizontal_grid, ticks

TALL, AXIS = 250, 24


@dataclass(frozen=True)
class Point:
    """A candidate; `kind` is the class of its mark, `front` says that no other one beats it in both figures."""

    x: float
    y: float
    kind: str
    told: str
    front: bool = False


def scatter(points: Sequence[Point], tell_x: Callable[[float], str], bound: float | None = None) -> tuple[str, int]:
    """Return SVG elements and their height; x starts at 0, y spans what there is."""
    heights = [point.y for point in points] + ([bound] if bound is not None else [])
    low, high = min(heights), max(heights)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
    low, high, right = low - pad, high + pad, max(point.x for point in points) or 1.0

    def across(value: float) -> float:
        return LEFT + (RIGHT - 1 - LEFT) * value / right

    def down(value: float) -> float:
        return 8 + (TALL - AXIS - 12) * (high - value) / (high - low)

    parts = [horizontal_grid(ticks(low, high), down, lambda value: f"{value:.4g}")]
    for value in ticks(0, right):
        middle = {"x": across(value), "y": TALL - 6, "text_anchor": "middle" if value < right * 0.9 else "end"}
        parts.append(element("text", tell_x(value), class_="tick", **middle))
    if bound is not None:
        y = f"{down(bound):.1f}"
        parts.append(element("line", None, f"bound: {bound:g}", class_="bound", x1=LEFT, x2=RIGHT, y1=y, y2=y))
    front = sorted((point for point in points if point.front), key=lambda point: point.x)
    for one, other in pairwise(front):
        ends = {"x1": across(one.x), "x2": across(other.x), "y1": f"{down(one.y):.1f}", "y2": f"{down(other.y):.1f}"}
        parts.append(element("line", class_="front", **ends))
    for point in points:
        place = {"cx": across(point.x), "cy": f"{down(point.y):.1f}", "r": 8 if point.kind == "chosen" else 5}
        parts.append(element("circle", None, point.told, class_=f"dot {point.kind}", **place))
    return "".join(parts), TALL
