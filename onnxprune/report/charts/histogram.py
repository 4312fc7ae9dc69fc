"""How often a time was measured, one strip a model over a common axis, with median and the middle 80 %."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxprune.report import figures
from onnxprune.report.charts.frame import element, short, ticks

STRIP, AXIS = 92, 22


def histogram(
    edges: Sequence[float], counts: Mapping[str, Sequence[int]], times: Mapping[str, Mapping[str, float]]
) -> tuple[str, int]:
    """Return SVG elements and their height.

    Args:
        edges: (bins + 1,) milliseconds. counts: model -> (bins,) runs. times: model -> median_ms, p10_ms, p90_ms.
    """
    low, span = edges[0], (edges[-1] - edges[0]) or 1.0

    def across(value: float) -> float:
        return 1 + 98 * min(1.0, max(0.0, (value - low) / span))

    parts = []
    for number, (name, bins) in enumerate(counts.items()):
        base, most = number * STRIP + STRIP - 12, max(bins, default=1) or 1
        found = times[name]
        told = f"median {figures.milliseconds(found['median_ms'])}"
        parts.append(element("text", short(name, 30), name, class_="name", x=0.0, y=base - 66))
        parts.append(element("text", told, class_="told", x=100.0, y=base - 66, text_anchor="end"))
        for index, runs in enumerate(bins):
            if runs:
                tall = max(1.0, 52 * runs / most)
                left, right = across(edges[index]), across(edges[index + 1])
                tip = f"{name}: {runs} runs of {edges[index]:.3g} to {edges[index + 1]:.3g} ms"
                box = {"x": left, "width": (right - left) * 0.92, "y": f"{base - tall:.1f}", "height": f"{tall:.1f}"}
                parts.append(element("rect", None, tip, class_="before" if number == 0 else "after", **box))
        middle, ends = across(found["median_ms"]), (across(found["p10_ms"]), across(found["p90_ms"]))
        parts.append(element("line", class_="spread", x1=ends[0], x2=ends[1], y1=base + 4, y2=base + 4))
        parts.append(element("line", class_="median", x1=middle, x2=middle, y1=base - 56, y2=base + 8))
    height = STRIP * len(counts) + AXIS
    for value in ticks(edges[0], edges[-1], 4):
        middle = across(value)
        anchor = "start" if middle < 8 else "end" if middle > 92 else "middle"
        place = {"x": middle, "y": height - 6, "text_anchor": anchor}
        parts.append(element("text", f"{value:.4g} ms", class_="tick", **place))
    return "".join(parts), height
