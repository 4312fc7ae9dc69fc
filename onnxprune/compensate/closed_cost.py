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
SUMS = 1
"""Sums of products of one layer's inputs in float64, which take as long as those in float32 for score and refit."""
PROBLEM = 0.04
"""Seconds of one problem whatever its size: its part of both networks is opened, its rows are gathered."""
SOLUTIONS = 12
"""Factorisations of one layer: ridge strengths, held-out halves, the score's removals."""
LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def closed_form_seconds(model: Model, feed: Feed, samples: int) -> float:
    """Return the predicted CPU seconds of scores and refit on so many samples that look like those of `feed`."""
    view = View(model)
    shapes = trace(view, {name: array.shape for name, array in feed.items()}).shapes
    batches = max(1.0, samples / max((len(array) for array in feed.values() if array.ndim), default=1))
    layers: dict[str, list[Node]] = {}
    for node in view.nodes:
        weight = next((view.root(key) for key in node.inputs[:2] if view.root(key) in view.parameters), "")
        if node.op_type in LAYERS and weight:
            layers.setdefault(weight, []).append(node)
    fits = sum(_weight_seconds(view, weight, nodes, shapes, batches) for weight, nodes in layers.items())
    return RUNS * cost(view, shapes).seconds * batches + fits


def _weight_seconds(view: View, weight: str, nodes: list[Node], shapes: Shapes, batches: float) -> float:
    """Return the seconds of one problem: all readers of a weight."""
    node, dims = nodes[0], view.parameters[weight].dims
    made = [shapes.get(other.outputs[0], ()) for other in nodes]
    if len(dims) < 2 or not all(made):
        return 0.0
    outs = dims[0] if node.op_type == "Conv" or node.attribute("transB", 0) else dims[-1]
    features = prod(dims) // max(outs, 1)
    defaults = LstsqOptions()
    rows = min(
        batches * sum(prod(shape) for shape in made) / max(outs, 1),
        max(defaults.rows, defaults.rows_per_feature * features),
    )
    return PROBLEM + SUMS * gram_seconds(rows, features) + SOLUTIONS * solve_seconds(features, outs)
