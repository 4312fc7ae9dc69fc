"""How a model fits a target, as data of a report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from onnxprune.hardware.fit import fit
from onnxprune.methods.width_rule import stored_precision

if TYPE_CHECKING:
    from onnxprune.graph.trace import Trace
    from onnxprune.graph.view import View
    from onnxprune.hardware.target import Target


def target_lines(view: View, traced: Trace, target: Target, precision: str | None = None) -> dict[str, object]:
    """Return how a model fits a target, as JSON data.

    Args:
        precision: numbers that it will compute in; None: those of its weights, or of the target.

    Raises:
        UsageError: the target does not compute in them.
    """
    found = fit(view, traced, target, target.precision_for(precision, stored_precision(view)))
    layers = [
        {**asdict(layer), "good": list(layer.good), "padding": round(layer.padding, 4), "says": str(layer)}
        for layer in found.layers
    ]
    return {
        "target": target.name,
        "about": target.about,
        "source": target.source,
        "precision": found.precision,
        "padding": round(found.padding, 4),
        "elsewhere": found.elsewhere,
        "layers": layers,
    }
