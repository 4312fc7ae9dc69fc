"""Sizes that do not go together: what shape inference accepts, or cannot see, but no runtime runs.

Exporters bake the size that they saw into a graph whose inputs are declared dynamic: the length in the target of a
Reshape, the batch in a constant initial state. Such a graph runs at that size alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxprune.graph.view import Node, View
from onnxprune.types import Array

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Values = Mapping[str, Array]

LARGEST_SIZE = 4096
"""Larger numbers in a conflict are no sizes of dynamic axes to try."""
MOST_SPELLED = 16
SPELLED = 8
"""Integer inputs with more entries are data, not sizes."""


def conflict(node: Node, shapes: Shapes, values: Values) -> str | None:
    """Return what does not fit about a node at these shapes; None where nothing is seen."""
    check = _CHECKS.get(node.op_type) if not node.domain else None
    return check(node, shapes, values) if check is not None else None


def _reshape(node: Node, shapes: Shapes, values: Values) -> str | None:
    """y holds as many elements as x."""
    source, target = shapes.get(node.inputs[0]), values.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if source is None or target is None or target.ndim != 1:
        return None
    sizes = [int(size) for size in target]
    if not node.attribute("allowzero", 0):
        sizes = [source[i] if size == 0 and i < len(source) else size for i, size in enumerate(sizes)]
    have, known = math.prod(source), math.prod(size for size in sizes if size != -1)
    fits = have == known if -1 not in sizes else known > 0 and have % known == 0
    return None if fits else f"{list(source)} cannot become {sizes}"


def _recurrent(node: Node, shapes: Shapes, values: Values) -> str | None:
    """Sequence lengths (input 4) and initial states (5, and 6 of an LSTM) have the batch of x."""
    source, layout = shapes.get(node.inputs[0]), node.attribute("layout", 0)
    if source is None or len(source) != 3:
        return None
    batch = source[0 if layout else 1]
    for index, axis in ((4, 0), (5, 0 if layout else 1), (6, 0 if layout else 1)):
        shape = shapes.get(node.inputs[index]) if node.has_input(index) else None
        if shape is not None and len(shape) > axis and shape[axis] != batch:
            return f"input {index} is {list(shape)} where the batch is {batch}"
    return None


def _gather(node: Node, shapes: Shapes, values: Values) -> str | None:
    """Positions that are known lie on the axis that they choose from."""
    source, chosen = shapes.get(node.inputs[0]), values.get(node.inputs[1])
    axis = node.attribute("axis", 0)
    if not source or chosen is None or chosen.size == 0 or not -len(source) <= axis < len(source):
        return None
    highest, size = int(np.max(chosen)), source[axis]
    return f"position {highest} is chosen from {size}" if highest >= size else None


def _expand(node: Node, shapes: Shapes, values: Values) -> str | None:
    """Sizes that are not 1 are equal, counted from the last axis."""
    source, target = shapes.get(node.inputs[0]), values.get(node.inputs[1])
    if source is None or target is None or target.ndim != 1:
        return None
    pairs = zip(reversed(source), reversed([int(size) for size in target]), strict=False)
    return (
        f"{list(source)} cannot become {target.tolist()}" if any(1 not in p and p[0] != p[1] for p in pairs) else None
    )


def _convolution(node: Node, shapes: Shapes, values: Values) -> str | None:
    """x has as many channels as every group reads."""
    source, weight = shapes.get(node.inputs[0]), shapes.get(node.inputs[1])
    if source is None or weight is None or len(source) < 3 or len(weight) < 2:
        return None
    read = weight[1] * node.attribute("group", 1)
    return f"{source[1]} channels enter where {read} are read" if source[1] != read else None


_RECURRENT = ("LSTM", "GRU", "RNN")

_CHECKS: dict[str, Callable[[Node, Shapes, Values], str | None]] = {
    "Conv": _convolution,
    "Reshape": _reshape,
    "Gather": _gather,
    "Expand": _expand,
    **dict.fromkeys(_RECURRENT, _recurrent),
}


@dataclass(frozen=True, eq=False)
class Clash:
    """A node whose inputs do not go together, with what is known about them."""

    node: Node
    shapes: Shapes
    values: Values

    def holds(self, size: int) -> bool:
        """Tell whether a size may be part of an axis of the inputs."""
        return any(size > 1 and axis % size == 0 for shape in self.shapes.values() for axis in shape)

    def spelled(self) -> list[int]:
        """Return the sizes that the inputs have, and integers that are given to the node: small ones first, 1 never."""
        numbers = {axis for shape in self.shapes.values() for axis in shape}
        for value in self.values.values():
            if value.dtype.kind in "iu" and value.size <= SPELLED:
                numbers.update(int(number) for number in value.ravel())
        return sorted(number for number in numbers if 1 < number <= LARGEST_SIZE)

    def quotients(self, size: int) -> list[int]:
        """Return what `size` must become so that a Reshape keeps its elements, where that is whole."""
        source = self.shapes.get(self.node.inputs[0])
        target = self.values.get(self.node.inputs[1]) if len(self.node.inputs) > 1 else None
        if self.node.op_type != "Reshape" or not source or target is None or -1 in target.tolist():
            return []
        have, wanted = math.prod(source), math.prod(int(number) for number in target if number > 0)
        if have == 0 or have % size or wanted % (have // size):
            return []
        found = wanted // (have // size)
        return [found] if 0 < found <= LARGEST_SIZE else []


def spelled_sizes(view: View) -> list[int]:
    """Return sizes that a graph spells: small integers, declared axes, axes of states and of what bodies read."""
    numbers: set[int] = set()
    for parameter in view.parameters.values():
        if parameter.data_type in (TensorProto.INT64, TensorProto.INT32) and parameter.elements <= SPELLED:
            numbers.update(int(number) for number in view.model.array(parameter.tensor).ravel())
    for declared in view.declared.values():
        if declared.HasField("tensor_type"):
            numbers.update(dim.dim_value for dim in declared.tensor_type.shape.dim)
    states = (key for node in view.nodes if node.op_type in _RECURRENT for key in node.inputs[5:7])
    for key in (*states, *view.captured):
        numbers.update(view.parameters[key].dims if key in view.parameters else ())
    return sorted(number for number in numbers if 1 < number <= LARGEST_SIZE)[:MOST_SPELLED]
