"""What the closed form costs, predicted: runs of both networks, sums of products of each layer's inputs, solutions."""

from __future__ import annotations

from math import prod

from onnxprune.compensate.problem import LstsqOptions
from onnxprune.graph.cost import cost, gram_seconds, solve_seconds
from onnxprune.graph.count import Shapes
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View
from onnxprune.statistics.feeds import Feed

RUNS = 4
"""Of the whole network over all samples: for scores, and both networks side by side."""
SUMS = 2
"""Sums of products of one layer's inputs: for its score, and for its refit."""
SOLUTIONS = 12
"""Factorisations of one layer: ridge strengths, held-out halves, the score's removals."""
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def closed_form_seconds(model: Model, feed: Feed, samples: int) -> float:
    """Return the predicted CPU seconds of scores and refit on so many samples that look like those of `feed`."""
    view = View(model)
    shapes = trace(view, {name: array.shape for name, array in feed.items()}).shapes
    batches = max(1.0, samples / max((len(array) for array in feed.values() if array.ndim), default=1))
    layers = sum(_layer_seconds(view, node, shapes, batches) for node in view.nodes if node.op_type in LAYERS)
    return RUNS * cost(view, shapes).seconds * batches + layers


def _layer_seconds(view: View, node: Node, shapes: Shapes, batches: float) -> float:
    weight = next((key for key in node.inputs[:2] if view.root(key) in view.parameters), "")
    dims, made = shapes.get(weight, ()), shapes.get(node.outputs[0], ())
    if len(dims) < 2 or not made:
        return 0.0
    outs = dims[0] if node.op_type == "Conv" or node.attribute("transB", 0) else dims[-1]
    features = prod(dims) // max(outs, 1)
    defaults = LstsqOptions()
    rows = min(batches * prod(made) / max(outs, 1), max(defaults.rows, defaults.rows_per_feature * features))
    return SUMS * gram_seconds(rows, features) + SOLUTIONS * solve_seconds(features, outs)
