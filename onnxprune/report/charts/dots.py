"""Dots along the network: errors or noise of layers, before and after, with a bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxprune.report.charts.frame import LEFT, RIGHT, columns_of, decades, element, horizontal_grid, ticks

TALL = 220


@dataclass(frozen=True)
class Dots:
    """One value a layer for each of at most two classes of marks; None where there is none."""

    name: str
    values: tuple[tuple[str, float | None], ...]


def dots(
    layers: Sequence[Dots], tell: Callable[[float], str], *, logarithmic: bool = False, bound: float | None = None
) -> tuple[str, int]:
    """Return SVG elements and their height; values that a logarithm cannot show lie on the floor."""
    known = [value for layer in layers for _, value in layer.values if value is not None and math.isfinite(value)]
    known += [bound] if bound is not None else []
    marks, place = _scale([value for value in known if value > 0] if logarithmic else known, logarithmic)
    parts = [horizontal_grid(marks, place, tell)]
    if bound is not None:
        y = f"{place(bound):.1f}"
        parts.append(element("line", None, f"bound: {tell(bound)}", class_="bound", x1=LEFT, x2=RIGHT, y1=y, y2=y))
    pitch, _ = columns_of(len(layers))
    for number, layer in enumerate(layers):
        x = LEFT + pitch * (number + 0.5)
        shown = [(kind, value) for kind, value in layer.values if value is not None and math.isfinite(value)]
        tip = f"{layer.name}: {', '.join(f'{kind} {tell(value)}' for kind, value in shown)}"
        places = [f"{place(value):.1f}" for _, value in shown]
        if len(places) > 1:
            parts.append(element("line", class_="stem", x1=x, x2=x, y1=places[0], y2=places[1]))
        for (kind, _), y in zip(shown, places, strict=True):
            parts.append(element("circle", None, tip, class_=f"dot {kind}", cx=x, cy=y, r=4))
    return "".join(parts), TALL


def _scale(values: Sequence[float], logarithmic: bool) -> tuple[list[float], Callable[[float], float]]:
    """Return ticks, and what gives the pixels of a value."""
    if logarithmic:
        floor = max(min(values, default=1e-3), max(values, default=1.0) * 1e-9)
        marks = decades(floor, max(*values, floor * 10, 0.0) if values else 1.0)
        low, high = math.log10(marks[0]), math.log10(max(marks[-1], *values) if values else marks[-1])
        return marks, lambda value: _pixels((math.log10(max(value, marks[0])) - low) / ((high - low) or 1.0))
    low, high = min(0.0, *values) if values else 0.0, max(0.0, *values) if values else 1.0
    return ticks(low, high), lambda value: _pixels((value - low) / ((high - low) or 1.0))


def _pixels(share: float) -> float:
    return TALL - 10 - (TALL - 24) * min(1.0, max(0.0, share))
