"""What every chart is made of: elements, axes, scales, and the figure that they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from onnxprune.files.shown import one_line

LEFT, RIGHT = 9.0, 99.0
"""Percent of the width between which values are drawn; tick labels stand left of it."""
MOST_MARKS = 160
"""Marks of one picture; a larger network is told by its table."""
LONGEST_TIP = 140


@dataclass(frozen=True)
class Chart:
    """A picture.

    title: what it shows. description: what a reader who does not see it should know.
    body: SVG elements, x in percent of the width. height: in pixels.
    legend: (class of the mark, what it means).
    """

    title: str
    description: str
    body: str
    height: int
    legend: tuple[tuple[str, str], ...] = ()


def element(tag: str, text: str | None = None, tip: str = "", /, **attributes: object) -> str:
    """Return an SVG element with its tip: floats are percents, whole numbers and texts are as they are."""
    said = "".join(f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items())
    hint = f' data-tip="{written(short(tip, LONGEST_TIP))}"' if tip else ""
    return f"<{tag}{said}{hint}/>" if text is None else f"<{tag}{said}{hint}>{written(text)}</{tag}>"


def written(text: str) -> str:
    """Return a text for a page: on one line, without control characters, escaped."""
    return escape(one_line(text))


def short(text: str, most: int) -> str:
    """Return a name, of which the end is kept if it is longer than `most` letters: there names differ."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Return round numbers from low to high: 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten from low to high, every second or third where they are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 4))]


def horizontal_grid(values: Sequence[float], place: Callable[[float], float], label: Callable[[float], str]) -> str:
    """Return lines across the picture with their labels; `place` gives pixels from the top."""
    parts = []
    for value in values:
        y = f"{place(value):.1f}"
        parts.append(element("line", class_="grid", x1=LEFT, x2=RIGHT, y1=y, y2=y))
        parts.append(element("text", label(value), class_="tick", x=LEFT - 1, y=y, dy="4", text_anchor="end"))
    return "".join(parts)


def columns_of(count: int) -> tuple[float, float]:
    """Return how far apart marks stand and how wide each may be, in percent."""
    pitch = (RIGHT - LEFT) / max(1, count)
    return pitch, min(pitch * 0.72, 6.0)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
    return escape(str(value))
