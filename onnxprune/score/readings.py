"""Who reads the channels of a group: a linear operator that contracts an activation with a stored weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.channels.groups import ChannelGroup
from onnxprune.graph.view import Node, View
from onnxprune.score.weights import read_weight
from onnxprune.types import Array, FloatArray, IntArray

RECURRENT = ("LSTM", "GRU", "RNN")
PASSING = ("Identity", "Cast", "DequantizeLinear", "Transpose")


@dataclass(frozen=True, eq=False)
class Reading:
    """One activation that an operator contracts with a weight: position p of one axis meets position p of the other.

    tensor, axis: the activation. weight, weight_axis: the stored tensor.
    input: which input of the node the activation is; -1: the node's own first output (the state of a recurrence).
    """

    node: Node
    input: int
    tensor: str
    axis: int
    weight: str
    weight_axis: int

    @property
    def stored(self) -> tuple[str, int]:
        """The weight and its axis: several readings share them where one weight has several readers."""
        return self.weight, self.weight_axis

    def matrix(self, view: View) -> FloatArray:
        """Return (positions, elements): the weights that multiply each position."""
        array = read_weight(view, self.weight).astype(np.float64)
        return np.moveaxis(array, self.weight_axis, 0).reshape(array.shape[self.weight_axis], -1)

    def positions(self, group: ChannelGroup) -> IntArray | None:
        """Return (channels, positions per channel) of a group on the axis, None if it does not stand there."""
        for site in group.sites:
            if (site.tensor, site.axis, site.role) == (self.weight, self.weight_axis, "reads"):
                return site.positions
        return None


def find_readings(view: View) -> list[Reading]:
    """Return the readings of the main graph in topological order; grouped convolutions are left out."""
    main = {name for node in view.model.proto.graph.node for name in node.output if name}
    main |= {value.name for value in view.model.proto.graph.input}
    found = [reading for node in view.nodes for reading in _readings(view, node)]
    return [reading for reading in found if reading.tensor in main and reading.tensor not in view.parameters]


def _readings(view: View, node: Node) -> Iterator[Reading]:
    for data_input, axis, weight_input, weight_axis in _places(view, node):
        if not node.has_input(weight_input) or (data_input >= 0 and not node.has_input(data_input)):
            continue
        source = _source(view, node.inputs[weight_input])
        if source is None:
            continue
        key, order = source
        rank = len(order)
        tensor = node.inputs[data_input] if data_input >= 0 else node.outputs[0]
        if tensor and -rank <= weight_axis < rank:
            yield Reading(node, data_input, tensor, axis, key, order[weight_axis % rank])


def _places(view: View, node: Node) -> list[tuple[int, int, int, int]]:
    """Return (input of the activation, its axis, input of the weight, its axis)."""
    if node.domain not in ("", "ai.onnx"):
        return []
    if node.op_type in ("Conv", "ConvTranspose") and node.attribute("group", 1) == 1:
        return [(0, 1, 1, 1 if node.op_type == "Conv" else 0)]
    if node.op_type == "Gemm":
        left, right = int(node.attribute("transA", 0)), int(node.attribute("transB", 0))
        return [(0, 1 - left, 1, right), (1, right, 0, 1 - left)]
    if node.op_type == "MatMul":
        return [(0, -1, 1, -2), (1, -2, 0, -1)]
    if node.op_type in RECURRENT:
        return [(0, 2, 1, 2), (-1, 3, 2, 2)]
    return []


def _source(view: View, key: str) -> tuple[str, tuple[int, ...]] | None:
    """Return the stored tensor behind a weight and, for each axis of the weight, which axis of the tensor it is."""
    order: tuple[int, ...] | None = None
    key = view.root(key)
    while key not in view.parameters:
        node = view.producers.get(key)
        if node is None or node.op_type not in PASSING or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Transpose":
            perm = node.attribute("perm")
            if perm is None:
                return None
            order = tuple(int(perm[axis]) for axis in order) if order else tuple(int(axis) for axis in perm)
        key = view.root(node.inputs[0])
    rank = len(view.parameters[key].dims)
    return key, order or tuple(range(rank))


def as_rows(array: Array, axis: int) -> Array:
    """Return (rows, positions): the axis last, all others flat."""
    return np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
