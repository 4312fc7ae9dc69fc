"""How many samples a run should take, so that its activations fit into little memory."""

from __future__ import annotations

import math

from onnxprune.graph.count import Shapes
from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View

ACTIVATION_BYTES = 1 << 26
LARGEST_BATCH = 32


def batch_size(view: View, traced: Trace, limit: int = ACTIVATION_BYTES, largest: int = LARGEST_BATCH) -> int:
    """Return a number of samples whose activations, all of them at once, stay below `limit` bytes; 1 at least."""
    batch = next((traced.shapes[key][0] for key in view.inputs if traced.shapes.get(key)), 1)
    sample_bytes = 4 * activation_elements(view, traced.shapes) // max(1, batch)
    return int(min(largest, max(1, limit // max(1, sample_bytes))))


def activation_elements(view: View, shapes: Shapes) -> int:
    """Return how many numbers the nodes of the main graph give in one run."""
    return sum(math.prod(shapes[name]) for node in view.nodes for name in node.outputs if name in shapes)


def batch_of(view: View, traced: Trace) -> int:
    """Return the batch size that a trace was made with: 1 where it is fixed."""
    for key in view.inputs:
        shape = traced.shapes.get(key)
        if shape and traced.dynamic(key)[0]:
            return shape[0] if shape[0] <= 8 else 1
    return 1
