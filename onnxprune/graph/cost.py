"""CPU seconds of running a network, predicted from concrete shapes: multiply-adds and numbers moved, node by node.

No clock is read, so the same network and shapes always give the same prediction. `benchmarks/cost_table.py` compares
whole networks with their measured times (within a factor of 1.5 where the rates were measured). Another machine differs
by a factor that is about the same for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.graph.cost_rules import CALL, FREE, FUSED, NANO, work
from onnxprune.graph.count import Shape, Shapes, node_key
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import View

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

    Of an If every branch is counted; the bodies of Loop and Scan are not.
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
        table[key] = table.get(key, 0.0) + CALL + work(node, shapes, fixed)
    return table


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
