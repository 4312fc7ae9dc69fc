"""What a model takes besides its file: memory for activations, and energy, as far as they are counted in a moment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxprune.errors import OnnxpruneError

if TYPE_CHECKING:
    from onnxprune.graph.model import Model

LARGEST_BYTES, MOST_NODES = 64 << 20, 2000
"""Of a model that is counted for a report without being asked for."""


def footprint(model: Model, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, object] | None:
    """Return the peak of the activations and the estimated energy of one sample, as JSON data; None: not counted.

    Args:
        sizes: input -> full shape, where a size is not to be one sample of what a trace chooses.
    """
    from onnxprune.graph.trace import trace
    from onnxprune.graph.view import View
    from onnxprune.hardware.energy import joules
    from onnxprune.hardware.peak import activations, sample_sizes

    if model.size_bytes > LARGEST_BYTES:
        return None
    view = View(model)
    if len(view.nodes) > MOST_NODES:
        return None
    try:
        known = sample_sizes(model, sizes)
        found = activations(model, known)
        energy = joules(view, trace(view, known))
    except OnnxpruneError:
        return None
    return {"activation_bytes": found.peak, "highest": list(found.highest[:5]), "joules": float(f"{energy:.4g}")}


def footprints(before: Model, after: Model, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, object] | None:
    """Return both footprints by name, as JSON data; None where one is not counted."""
    first = footprint(before, sizes)
    second = footprint(after, sizes) if first is not None else None
    return {"before": first, "after": second} if second is not None else None
