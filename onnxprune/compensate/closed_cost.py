"""What the closed form costs, predicted: runs of both networks, sums of products of each layer's inputs, solutions."""

from __future__ import annotations

from math import prod

from onnxprune.compensate.problem import LstsqOptions
from onnxprune.graph.cost import MAC64, cost, solve_seconds
from onnxprune.graph.cost_rules import NANO
from onnxprune.graph.count import Shapes
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View
from onnxprune.operators.operator import Contraction, operator_of
from onnxprune.statistics.feeds import Feed

RUNS = 4
"""Of the whole network over all samples: for scores, and both networks side by side."""
PROBLEM, GROUP = 0.035, 1e-3
"""Seconds of one problem whatever its size (its part of both networks is opened), and of each of its groups."""
MOVED, ROW, HIDDEN = 5.0, 3.0, 36.0
"""Nanoseconds for each number of a layer's inputs and outputs, of the rows that are fitted, and of their outputs where
a clamp behind them hides some, which takes several passes."""
TARGET = 20.0
"""Nanoseconds for each output of the rows that are fitted, whatever their features: what a vocabulary costs."""
MAC32 = 0.4 / 55e9
"""Seconds of one multiply-add of rows in float32: not all of them are used for fitting and held out alike."""
SOLUTIONS = 6
"""Factorisations of one layer: ridge strengths, held-out halves."""
REMOVALS = 4
"""Products of all channels with each other that the score's removals take."""
CLAMPS, PASSED = frozenset({"Relu", "Clip", "HardSigmoid"}), frozenset({"Add", "BatchNormalization"})
SWEEPS = 5
"""Passes of two products where a clamp hides targets."""


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
    positions = batches * sum(prod(shape[:2]) if gated else prod(shape) / max(outs, 1) for shape in made)
    given = batches * prod(shapes.get(node.inputs[met.data] if met.data >= 0 else node.outputs[0], ()))
    moved = NANO * MOVED * (given + positions * outs)
    fit = _fit_seconds(met.groups, positions, prod(dims) // max(outs, 1), outs / met.groups, _clamped(view, node))
    return PROBLEM + moved + fit + REMOVALS * MAC64 * float(dims[-1 if gated else met.reads]) ** 3


def _fit_seconds(groups: int, positions: float, features: int, outs: float, clamped: bool) -> float:
    """Return the seconds of one fit: so many outputs of every group from its features."""
    defaults = LstsqOptions()
    rows = min(positions, max(defaults.rows, defaults.rows_per_feature * features) / min(groups, 4))
    # on fewer rows than features their products are used
    size = min(float(features), rows) if groups == 1 else float(features)
    products = rows * features * (size + outs * (1 + 2 * SWEEPS * clamped))
    numbers = ROW * rows * features + (TARGET + HIDDEN * clamped) * rows * outs
    each = GROUP + MAC32 * products + NANO * numbers + SOLUTIONS * solve_seconds(size, outs) / 2
    return groups * each


def _clamped(view: View, node: Node) -> bool:
    """Tell whether a clamp stands behind a layer, or behind the one Add or BatchNormalization that follows it."""
    for _ in range(3):
        readers = view.readers.get(node.outputs[0], [])
        if len(readers) != 1 or readers[0][0].op_type not in CLAMPS | PASSED:
            return False
        node = readers[0][0]
        if node.op_type in CLAMPS:
            return True
    return False
