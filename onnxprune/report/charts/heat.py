"""A map of cells, darker for more: what cutting each group costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from onnxprune.report.charts.frame import element, short

ROW, NAMES = 24, 34.0


def heat(rows: Sequence[tuple[str, Sequence[float]]], headers: Sequence[str]) -> tuple[str, int]:
    """Return SVG elements and their height; shades are logarithmic, from the least to the most of all cells."""
    known = [value for _, values in rows for value in values if value > 0 and math.isfinite(value)]
    low, high = math.log10(min(known, default=1e-6)), math.log10(max(known, default=1.0))
    pitch = (100.0 - NAMES) / max(1, len(headers))
    parts = [
        element("text", header, class_="tick", x=NAMES + pitch * (column + 0.5), y=14, text_anchor="middle")
        for column, header in enumerate(headers)
    ]
    for number, (name, values) in enumerate(rows, 1):
        parts.append(element("text", short(name, 20), name, class_="name", x=0.0, y=number * ROW + 16))
        for column, value in enumerate(values):
            x = NAMES + pitch * column
            share = (math.log10(value) - low) / ((high - low) or 1.0) if value > 0 else 0.0
            shade = f"{0.06 + 0.94 * min(1.0, max(0.0, share)):.2f}"
            tip = f"{name}, {headers[column]} gone: error {value:.3g}"
            place = {"x": x, "y": number * ROW, "width": pitch * 0.97, "height": ROW - 2}
            parts.append(element("rect", None, tip, class_="cell", fill_opacity=shade, **place))
            over = "value over" if share > 0.7 else "value"
            middle = x + pitch * 0.485
            said = element("text", f"{value:.2g}", class_=over, x=middle, y=number * ROW + 15, text_anchor="middle")
            parts.append(said)
    return "".join(parts), ROW * (len(rows) + 1)
