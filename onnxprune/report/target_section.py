"""What a report shows of how a model fits what it will run on."""

from __future__ import annotations

from collections.abc import Iterator

from onnxprune.report.record import Report
from onnxprune.report.section import Section

WORST = 12
"""So many layers are told of, those with most work on padding first."""


def target(report: Report) -> Iterator[Section]:
    """Show how much of the work is padding, the worst layers, and what runs elsewhere or waits for memory."""
    found = report.details.get("target_fit")
    if not found:
        return
    layers, elsewhere = found["layers"], found["elsewhere"]
    padded = sorted((layer for layer in layers if layer["padding"]), key=lambda layer: -_wasted(layer))
    lines = [f"{found['padding']:.0%} of the multiply-adds are padding, in {len(padded)} of {len(layers)} layers."]
    lines += [layer["says"] for layer in padded[:WORST]]
    lines += [f"and {len(padded) - WORST} more, in the JSON"] * (len(padded) > WORST)
    lines += [f"Not run there: {name} ({why})." for name, why in list(elsewhere.items())[:WORST]]
    lines += [f"and {len(elsewhere) - WORST} more, in the JSON"] * (len(elsewhere) > WORST)
    waiting = [layer["node"] for layer in layers if layer["waits"]]
    if waiting:
        named = ", ".join([*waiting[:3], *[".."] * (len(waiting) > 3)])
        lines.append(f"Memory decides the time of {len(waiting)} of {len(layers)} layers: {named}.")
    yield Section(f"{found['about']}, in {found['precision']}", tuple(lines))


def _wasted(layer: dict[str, float]) -> float:
    return layer["macs"] * layer["padding"] / (1 - layer["padding"])
