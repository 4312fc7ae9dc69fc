"""What the closed form costs, predicted: runs of both networks, sums of products of each layer's inputs, solutions."""

from __future__ import annotations

from math import prod

from onnxprune.compensate.problem import LstsqOptions
from onnxprune.graph.cost import cost, gram_seconds, solve_seconds
from onnxprune.graph.count import Shapes
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View
from onnxprune.operators.operator import Contraction, operator_of
from onnxprune.statistics.feeds import Feed

RUNS = 4
"""Of the whole network over all samples: for scores, and both networks side by side."""
SUMS = 1
"""Sums of products of one layer's inputs in float64, which take as long as those in float32 for score and refit."""
PROBLEM = 0.04
"""Seconds of one problem whatever its size: its part of both networks is opened, its rows are gathered."""
SOLUTIONS = 12
"""Factorisations of one layer: ridge strengths, held-out halves, the score's removals."""


def closed_form_seconds(model: Model, feed: Feed, samples: int) -> float:
    """Return the predicted CPU seconds of scores and refit on so many samples that look like those of `feed`."""
    view = View(model)
    shapes = trace(view, {name: array.shape for name, array in feed.items()}).shapes
    batches = max(1.0, samples / max((len(array) for array in feed.values() if array.ndim), default=1))
    layers: dict[str, list[Node]] = {}
    for node in view.nodes:
        for weight in _weights(view, node):
            layers.setdefault(weight, []).append(node)
    fits = sum(_weight_seconds(view, weight, nodes, shapes, batches) for weight, nodes in layers.items())
    return RUNS * cost(view, shapes).seconds * batches + fits


def _contractions(view: View, node: Node) -> list[Contraction]:
    """Return which axes meet in a layer that the closed form fits: one weight, of recurrent layers all of them."""
    operator = operator_of(node)
    if operator is None or (operator.layout is None and not operator.gates):
        return []
    met = operator.contractions(node.attributes)
    found = [one for one in met if view.root(node.inputs[one.weight]) in view.parameters]
    return found if operator.gates else found[:1]


def _weights(view: View, node: Node) -> list[str]:
    return [view.root(node.inputs[met.weight]) for met in _contractions(view, node)]


def _weight_seconds(view: View, weight: str, nodes: list[Node], shapes: Shapes, batches: float) -> float:
    """Return the seconds of one problem: all readers of a weight."""
    node, dims = nodes[0], view.parameters[weight].dims
    made = [shapes.get(other.outputs[0], ()) for other in nodes]
    if len(dims) < 2 or not all(made):
        return 0.0
    met = next(one for one in _contractions(view, node) if view.root(node.inputs[one.weight]) == weight)
    operator = operator_of(node)
    gated = operator is not None and bool(operator.gates)  # the output has steps and samples first, weights gates
    outs = prod(dims[:-1]) if gated else dims[met.writes]
    features = prod(dims) // max(outs, 1)
    positions = sum(prod(shape[:2]) if gated else prod(shape) / max(outs, 1) for shape in made)
    defaults = LstsqOptions()
    rows = min(
        batches * positions,
        max(defaults.rows, defaults.rows_per_feature * features),
    )
    return PROBLEM + SUMS * gram_seconds(rows, features) + SOLUTIONS * solve_seconds(features, outs)
