"""Bars from left to right, what was behind what is: costs, steps of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report.charts.frame import element, short

ROW, BAR = 46, 16


@dataclass(frozen=True)
class Pair:
    """A quantity before and after; `range_after` is its spread, in the same unit."""

    name: str
    before: float
    after: float
    told: str
    range_after: tuple[float, float] | None = None


def pairs(rows: Sequence[Pair], *, common: bool = False) -> tuple[str, int]:
    """Return SVG elements and their height.

    Args:
        common: all rows have one unit, so that the largest value fills the width; else each row has a scale of its own.
    """
    parts = []
    most = max((max(row.before, row.after) for row in rows), default=1.0)
    for number, row in enumerate(rows):
        scale = (most if common else max(row.before, row.after)) or 1.0
        top = number * ROW
        parts.append(element("text", short(row.name, 34), class_="name", x=0.0, y=top + 16))
        parts.append(element("text", row.told, class_="told", x=100.0, y=top + 16, text_anchor="end"))
        for kind, value in (("before", row.before), ("after", row.after)):
            width = 100.0 * max(0.0, value) / scale
            tip = f"{row.name}: {row.told}"
            parts.append(element("rect", None, tip, class_=kind, x=0.0, y=top + 22, width=width, height=BAR, rx=3))
        if row.range_after is not None:
            low, high = (100.0 * value / scale for value in row.range_after)
            parts.append(element("line", class_="spread", x1=low, x2=min(high, 100.0), y1=top + 30, y2=top + 30))
    return "".join(parts), ROW * len(rows)
