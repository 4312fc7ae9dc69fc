"""Who reads the channels of a group: a linear operator that contracts an activation with a stored weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.graph.view import Node, View
from onnxprune.operators.operator import operator_of
from onnxprune.score.stored_numbers import read_weight
from onnxprune.types import Array, FloatArray

PASSING = ("Identity", "Cast", "DequantizeLinear", "Transpose")


@dataclass(frozen=True, eq=False)
class Reading:
    """One activation that an operator contracts with a weight: position p of one axis meets position p of the other.

    tensor, axis: the activation. weight, weight_axis: the stored tensor.
    input: which input of the node the activation is; -1: the node's own first output (the state of a recurrence).
    written, output_axis: axis of the stored tensor and of the node's first output that meet.
    """

    node: Node
    input: int
    tensor: str
    axis: int
    weight: str
    weight_axis: int
    written: int
    output_axis: int

    @property
    def stored(self) -> tuple[str, int]:
        """The weight and its axis: several readings share them where one weight has several readers."""
        return self.weight, self.weight_axis

    def matrix(self, view: View) -> FloatArray:
        """Return (positions, elements): the weights that multiply each position."""
        array = read_weight(view, self.weight).astype(np.float64)
        return np.moveaxis(array, self.weight_axis, 0).reshape(array.shape[self.weight_axis], -1)

    def spread(self, view: View, values: FloatArray) -> FloatArray:
        """Return (elements,): for each column of the matrix the value of the output position that it writes."""
        shape = list(view.parameters[self.weight].dims)
        along = [len(values) if axis == self.written else 1 for axis in range(len(shape))]
        wide = np.broadcast_to(values.reshape(along), shape)
        return np.asarray(np.take(wide, 0, axis=self.weight_axis).reshape(-1))


def find_readings(view: View) -> list[Reading]:
    """Return the readings of the main graph in topological order; grouped convolutions are left out."""
    main = {name for node in view.model.proto.graph.node for name in node.output if name}
    main |= {value.name for value in view.model.proto.graph.input}
    found = [reading for node in view.nodes for reading in _readings(view, node)]
    return [reading for reading in found if reading.tensor in main and reading.tensor not in view.parameters]


def _readings(view: View, node: Node) -> Iterator[Reading]:
    operator = operator_of(node)
    for met in operator.contractions(node.attributes) if operator is not None else ():
        if met.groups > 1 or not node.has_input(met.weight) or (met.data >= 0 and not node.has_input(met.data)):
            continue
        stored = view.stored(node.inputs[met.weight], PASSING)
        if stored is None:
            continue
        order, rank = stored.order, len(stored.order)
        tensor = node.inputs[met.data] if met.data >= 0 else node.outputs[0]
        if tensor and -rank <= met.reads < rank:
            axes = order[met.reads % rank], order[met.writes % rank]
            yield Reading(node, met.data, tensor, met.data_axis, stored.parameter.key, *axes, met.output_axis)


def as_rows(array: Array, axis: int) -> Array:
    """Return (rows, positions): the axis last, all others flat."""
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
