"""What a report shows of gradient steps: the distance to the original on held-out samples, look after look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxprune.report import figures
from onnxprune.report.charts.frame import Chart
from onnxprune.report.charts.scatter import Point, scatter
from onnxprune.report.record import Report
from onnxprune.report.section import Section, Table

FEWEST = 2
"""Looks that make a picture."""


def walk(report: Report) -> Iterator[Section]:
    """Show the distance at every look."""
    looks = _looks(report)
    if len(looks) >= FEWEST:
        rows = tuple((str(step), figures.figure(loss)) for step, loss in looks)
        yield Section("Gradient steps", table=Table(("step", "distance"), rows, 0), detail=True, picture="losses")


def losses(report: Report) -> Chart | None:
    """Draw the distance over the steps, with the best one, whose weights were taken."""
    looks = _looks(report)
    if len(looks) < FEWEST:
        return None
    best = min(looks, key=lambda look: look[1])
    points = [
        Point(step, loss, "chosen" if (step, loss) == best else "kept", f"step {step}: {figures.figure(loss)}", True)
        for step, loss in looks
    ]
    body, height = scatter(points, lambda value: f"{value:.0f}")
    told = f"{len(looks)} looks; from left to right the steps. Lowest {figures.figure(best[1])} at step {best[0]}."
    legend = (("dot kept", "held-out distance to the original"), ("dot chosen", "lowest, whose weights were taken"))
    return Chart("Gradient steps: distance on held-out samples", told, body, height, legend)


def _looks(report: Report) -> list[tuple[int, float]]:
    """Return (step, distance) of every look; what was no number is left out."""
    details = report.details
    found: dict[str, Any] = details.get("compensation", {}).get("distance") or details.get("finetune") or {}
    looks = [(0, found["before"])] if found.get("before") is not None else []
    looks += [(int(step), loss) for step, loss in found.get("curve") or () if loss is not None and loss >= 0]
    return list(dict(looks).items())
