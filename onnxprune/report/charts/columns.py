"""Columns along the network: how wide it was, how wide it is, and what a place costs below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.report import figures
from onnxprune.report.charts.frame import LEFT, columns_of, element, horizontal_grid, ticks

TALL, BELOW = 190, 52


@dataclass(frozen=True)
class Column:
    """A place in the network: `cost` is drawn below the axis, None where it is not known."""

    name: str
    before: float
    after: float
    cost: float | None = None


def columns(items: Sequence[Column], unit: str) -> tuple[str, int]:
    """Return SVG elements and their height."""
    most = max((item.before for item in items), default=1.0) or 1.0
    dearest = max((item.cost or 0.0 for item in items), default=0.0)
    base, room = TALL - 4, TALL - 22

    def place(value: float) -> float:
        return base - room * value / most

    parts = [horizontal_grid(ticks(0, most), place, lambda value: figures.count(value).replace(" ", ""))]
    pitch, wide = columns_of(len(items))
    for number, item in enumerate(items):
        x = LEFT + pitch * number + (pitch - wide) / 2
        tip = f"{item.name}: {figures.count(item.after)} of {figures.count(item.before)} {unit}"
        tip += f", {figures.count(item.cost)} MACs run through it" if item.cost is not None else ""
        for kind, value in (("before", item.before), ("after", item.after)):
            y, tall = place(value), max(0.5, base - place(value))
            box = {"x": x, "width": wide, "y": f"{y:.1f}", "height": f"{tall:.1f}"}
            parts.append(element("rect", None, tip, class_=kind, **box))
        if item.cost is not None and dearest:
            deep = f"{max(1.0, (BELOW - 8) * item.cost / dearest):.1f}"
            parts.append(element("rect", None, tip, class_="cost", x=x, y=TALL + 4, width=wide, height=deep))
    return "".join(parts), TALL + (BELOW if dearest else 0)
