"""CPU seconds of running a network, predicted from concrete shapes: multiply-adds and numbers moved, node by node.

No clock is read, so the same network and shapes always give the same prediction. `benchmarks/cost_table.py` compares
whole networks with their measured times (within a factor of 1.5 where the rates were measured). Another machine differs
by a factor that is about the same for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnxprune.errors import OnnxpruneError
from onnxprune.graph.cost_rules import CALL, FREE, FUSED, NANO, work
from onnxprune.graph.count import Shapes, node_key
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View
from onnxprune.operators.call import Shape

TRIP = 15e-6
"""Seconds of one run of a body besides its nodes."""
REPEATED = frozenset({"Scan", "Loop"})
GRADIENT = 10
"""Seconds of a gradient over those of the network, roughly; where it is close, the graph of the gradient is counted."""
MAC64 = 1 / 22e9
"""Seconds of one multiply-add of a matrix product in float64 (numpy)."""


@dataclass(frozen=True)
class Cost:
    """Predicted CPU seconds of one run: `calls` whatever the batch, `work` in proportion to it."""

    calls: float
    work: float

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.calls + self.work

    def at(self, scale: float) -> float:
        """Return the seconds of a run on inputs `scale` times as large."""
        return self.calls + self.work * scale


def cost(view: View, shapes: Shapes) -> Cost:
    """Return the predicted cost of one run.

    Args:
        view: the model.
        shapes: tensor key -> concrete shape, of the original, as it would be after pruning, or at another batch.
    """
    table = seconds(view, shapes)
    calls = sum(min(CALL, value) for value in table.values())
    return Cost(calls, sum(table.values()) - calls)


def cost_of(model: Model, sizes: Mapping[str, Shape]) -> Cost:
    """Return the predicted cost of one run of a model on inputs of these shapes."""
    view = View(model)
    return cost(view, trace(view, dict(sizes)).shapes)


def seconds(view: View, shapes: Shapes) -> dict[str, float]:
    """Return node key -> predicted CPU seconds; nodes that depend on no input are computed once and cost nothing.

    Of an If every branch is counted; of Scan and Loop the body, as often as it runs where that is known.
    """
    fixed = fixed_tensors(view)
    convolved: set[str] = set()
    table: dict[str, float] = {}
    for node in view.nodes:
        if node.op_type in FREE or all(name in fixed for name in node.outputs if name):
            continue
        if node.op_type in FUSED and node.inputs[0] in convolved and len(view.readers[node.inputs[0]]) == 1:
            convolved.update(node.outputs)
            continue
        if node.op_type == "Conv":
            convolved.update(node.outputs)
        key = node_key(node)
        inside = body_seconds(node, view, shapes) if node.op_type in REPEATED else work(node, shapes, fixed)
        table[key] = table.get(key, 0.0) + CALL + inside
    return table


def body_seconds(node: Node, view: View, shapes: Shapes) -> float:
    """Return the predicted seconds of all runs of a body, inputs of unknown shape taken for single numbers."""
    body = next((a.g for a in node.proto.attribute if a.name == "body"), None)
    if body is None:
        return 0.0
    count = int(node.attribute("num_scan_inputs", 0))
    scanned = range(len(node.inputs) - count, len(node.inputs)) if count else range(0)
    given = [shapes.get(name, ()) if name else () for name in node.inputs]
    sizes = [shape[1:] if place in scanned else shape for place, shape in enumerate(given)]
    runs = given[-1][0] if count and given[-1] else _loop_runs(node, shapes, len(body.output) - 1)
    inner = dict(zip((value.name for value in body.input), sizes, strict=False))
    try:
        return runs * (TRIP + sum(seconds(*_opened(body, inner, view, node, shapes)).values()))
    except (OnnxpruneError, ValueError, TypeError):  # a body that cannot be read alone
        return runs * (TRIP + 2 * CALL * len(body.node))


def _loop_runs(node: Node, shapes: Shapes, outputs: int) -> int:
    """Return how often a Loop runs: as often as the length of what it collects, 1 where nothing tells."""
    carried = len(node.inputs) - 2
    collected = [shapes.get(name, ()) for name in node.outputs[carried:outputs]]
    return max((shape[0] for shape in collected if shape), default=1)


def _opened(
    body: onnx.GraphProto, inner: dict[str, Shape], view: View, node: Node, shapes: Shapes
) -> tuple[View, Shapes]:
    """Return a body as a model of its own, what it captures as inputs, and its shapes."""
    graph = onnx.GraphProto()
    graph.CopyFrom(body)
    for value in graph.input:
        element = value.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, element, inner.get(value.name, ())))
    for name in node.captured:
        if name in view.parameters:
            graph.initializer.append(view.parameters[name].tensor)
            graph.initializer[-1].name = name
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes.get(name, ())))
    model = onnx.helper.make_model(graph, opset_imports=view.model.proto.opset_import)
    opened = View(Model(model))
    return opened, trace(opened).shapes


def fixed_tensors(view: View) -> set[str]:
    """Return the tensors that depend on no input: parameters and what is made of them."""
    fixed = set(view.parameters)
    for node in view.nodes:
        random = node.op_type.startswith("Random") or node.branches
        if not random and all(name in fixed for name in (*node.inputs, *node.captured) if name):
            fixed.update(name for name in node.outputs if name)
    return fixed


def gram_seconds(rows: float, columns: float) -> float:
    """Return the predicted seconds of X^T X in float64 for X of (rows, columns)."""
    return MAC64 * rows * columns * columns + 1.5 * NANO * rows * columns


def solve_seconds(size: float, columns: float = 0.0) -> float:
    """Return the predicted seconds to factorise a symmetric (size, size) matrix and solve for some columns."""
    return 2 * MAC64 * (size**3 / 3 + size * size * columns)
