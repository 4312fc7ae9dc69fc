"""LSTM, GRU and RNN: what is linear in them is refitted, gate by gate before the activation.

Input weights: W' x' aims at W x of the original. Recurrent weights: R' h' aims at R h, h being what the original gave
one step before, h' its kept part; they are fitted on the original's states, so that the error does not feed on itself.
Not linear, so left alone: the candidate gate of a GRU that resets before it multiplies (linear_before_reset = 0).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.compensate.problem import Fit, Problem
from onnxprune.compensate.weights import Weights
from onnxprune.operators.layouts import Dense
from onnxprune.operators.operator import operator_of
from onnxprune.types import Array, FloatArray, IntArray

LAYOUT = Dense(transposed=True)
Values = Callable[[], Iterator[Array]]


@dataclass(frozen=True, eq=False)
class RecurrentPair:
    """A recurrent node of the pruned network and its twin in the original.

    rows, states: kept positions of the gates (axis 1 of W and R) and of the hidden units (axis 2 of R).
    full_states: hidden units of the original.
    """

    node: onnx.NodeProto
    twin: onnx.NodeProto
    w: Array
    r: Array
    bias: FloatArray | None
    rows: IntArray
    states: IntArray
    full_states: int

    @property
    def x(self) -> str:
        """What it reads."""
        return str(self.node.input[0])

    @property
    def y(self) -> str:
        """Its first output that is there."""
        return str(next(name for name in self.node.output if name))

    @property
    def sequence(self) -> str:
        """The output with all states, "" if nobody reads it."""
        return str(self.node.output[0])


def find_recurrent(
    weights: Weights, original: Weights, kept: Callable[[str, int], IntArray | None]
) -> list[RecurrentPair]:
    """Return the recurrent nodes whose weights are constants of their own.

    Args:
        kept: (tensor of the original, axis) -> kept positions, None if all.
    """
    twins = {n.output[i]: n for n in original.model.proto.graph.node for i in range(len(n.output)) if n.output[i]}
    found = []
    for node in weights.model.proto.graph.node:
        twin = twins.get(next((name for name in node.output if name), ""))
        if not _is_recurrent(node) or twin is None:
            continue
        w, r = weights.value(node.input[1]), weights.value(node.input[2])
        old_r = original.value(twin.input[2])
        if w is None or r is None or old_r is None or not all(weights.is_own(name) for name in node.input[1:3]):
            continue
        bias = weights.value(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        if bias is not None and not weights.can_change(node.input[3]):
            continue
        rows, states = kept(twin.input[2], 1), kept(twin.input[2], 2)
        rows = np.arange(old_r.shape[1]) if rows is None else rows
        states = np.arange(old_r.shape[2]) if states is None else states
        if (len(rows), len(states)) == r.shape[1:]:
            found.append(RecurrentPair(node, twin, w, r, bias, rows, states, old_r.shape[2]))
    return found


def _is_recurrent(node: onnx.NodeProto) -> bool:
    operator = operator_of(node)
    return operator is not None and operator.gates > 0 and operator.layout is not None


def input_problem(layer: RecurrentPair, original: Weights, old: Values, new: Values) -> Problem:
    """Return the refit of the input weights, all directions and gates at once."""
    before = original.value(layer.twin.input[1])
    half = layer.r.shape[1]
    matrix = layer.w.reshape(-1, layer.w.shape[2]).astype(np.float64)
    bias = np.zeros((len(matrix), 1)) if layer.bias is None else layer.bias[:, :half].reshape(-1, 1)
    wanted = np.zeros(0) if before is None else before[:, layer.rows].reshape(len(matrix), -1)

    def targets() -> Iterator[Array]:
        for x in old():
            yield x.reshape(-1, x.shape[-1]) @ wanted.T + bias[:, 0].astype(np.float32)

    def inputs() -> Iterator[Array]:
        return (x.reshape(-1, x.shape[-1]) for x in new())

    start = np.concatenate([matrix, bias], axis=1)[None]
    return Problem(LAYOUT, inputs, targets, start, free_bias=layer.bias is not None)


def state_problem(layer: RecurrentPair, original: Weights, direction: int, states: Values) -> Problem:
    """Return the refit of the recurrent weights of one direction; `states`: the original's output of all states."""
    before = original.value(layer.twin.input[2])
    half = layer.r.shape[1]
    bias = np.zeros((half, 1)) if layer.bias is None else layer.bias[direction, half:].reshape(-1, 1)
    wanted = np.zeros(0) if before is None else before[direction][layer.rows]

    def previous() -> Iterator[Array]:
        backward = _is_backward(layer.node, direction)
        for y in states():
            known = y[1:, direction] if backward else y[:-1, direction]
            yield known.reshape(-1, y.shape[-1])

    def targets() -> Iterator[Array]:
        return (h @ wanted.T + bias[:, 0].astype(np.float32) for h in previous())

    def inputs() -> Iterator[Array]:
        return (h[:, layer.states] for h in previous())

    start = np.concatenate([layer.r[direction].astype(np.float64), bias], axis=1)[None]
    return Problem(LAYOUT, inputs, targets, start, free_bias=layer.bias is not None)


def store(layer: RecurrentPair, weights: Weights, input_fit: Fit, state_fits: list[Fit]) -> None:
    """Write the fits into the graph."""
    bias = None if layer.bias is None else np.array(layer.bias, np.float64)
    half = layer.r.shape[1]
    if input_fit.used:
        weights.change(layer.node, 1, input_fit.weights[0, :, :-1])
        if bias is not None:
            bias[:, :half] = input_fit.weights[0, :, -1].reshape(len(bias), half)
    fitted = slice(0, half if _is_linear(layer.node) else half // 3 * 2)
    r = np.array(layer.r, np.float64)
    for direction, fit in enumerate(state_fits):
        if fit.used:
            r[direction, fitted] = fit.weights[0, fitted, :-1]
            if bias is not None:
                bias[direction, half:][fitted] = fit.weights[0, fitted, -1]
    if any(fit.used for fit in state_fits):
        weights.change(layer.node, 2, r)
    if bias is not None and (input_fit.used or any(fit.used for fit in state_fits)):
        weights.change(layer.node, 3, bias)


def _attribute(node: onnx.NodeProto, name: str) -> object:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)


def _is_backward(node: onnx.NodeProto, direction: int) -> bool:
    return direction == 1 or _attribute(node, "direction") == b"reverse"


def _is_linear(node: onnx.NodeProto) -> bool:
    """Tell whether every gate multiplies the state itself."""
    return node.op_type != "GRU" or _attribute(node, "linear_before_reset") == 1
