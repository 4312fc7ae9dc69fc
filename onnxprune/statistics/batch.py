"""How many samples a run should take, so that its activations fit into little memory."""

from __future__ import annotations

import math

from onnxprune.graph.trace import Trace
from onnxprune.graph.view import View

ACTIVATION_BYTES = 1 << 26
LARGEST_BATCH = 32


def batch_size(view: View, traced: Trace) -> int:
    """Return a number of samples whose activations, all of them at once, stay below ACTIVATION_BYTES; 1 at least."""
    made = [traced.shapes[name] for node in view.nodes for name in node.outputs if name in traced.shapes]
    batch = next((traced.shapes[key][0] for key in view.inputs if traced.shapes.get(key)), 1)
    sample_bytes = 4 * sum(math.prod(shape) for shape in made) // max(1, batch)
    return int(min(LARGEST_BATCH, max(1, ACTIVATION_BYTES // max(1, sample_bytes))))
