"""Loops over a body: which input of the body is what of the node, and the shapes that enter and leave.

A Loop hands its body the number of the turn, whether it goes on, and states; a Scan hands it states and slices of what
it runs along. Both take the states back, and stack what else the body gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from onnx import TensorProto, TypeProto

from onnxprune.graph.view import Node
from onnxprune.types import Array

Shape = tuple[int, ...]

LOOP_OWN = 2
"""Inputs of a Loop before its states: how often, and whether at all; its body has as many of its own."""


class Known(Protocol):
    """Types, shapes and values of tensors, by key."""

    @property
    def types(self) -> Mapping[str, TypeProto]: ...
    @property
    def shapes(self) -> Mapping[str, Shape]: ...
    @property
    def values(self) -> Mapping[str, Array]: ...


def is_followed(node: Node) -> bool:
    """Tell whether what enters and leaves a body is known by its place."""
    body, outputs = node.body, len(node.outputs)
    if body is None:
        return False
    own = 1 if node.op_type == "Loop" else 0
    return len(body.inputs) == len(node.inputs) and len(body.outputs) == outputs + own and states(node) <= outputs


def states(node: Node) -> int:
    """Return how many states a loop has."""
    if node.op_type == "Loop":
        return len(node.inputs) - LOOP_OWN
    return len(node.inputs) - int(node.attribute("num_scan_inputs", 0))


def state_places(node: Node) -> list[tuple[int, int, int]]:
    """Return (input of node and body, output of the body, output of the node) of every state."""
    first, own = (LOOP_OWN, 1) if node.op_type == "Loop" else (0, 0)
    return [(first + number, own + number, number) for number in range(states(node))]


def slice_axes(node: Node, known: Mapping[str, Shape]) -> dict[int, int]:
    """Return (input -> axis) that a Scan runs along; inputs of unknown shape are missing."""
    if node.op_type == "Loop":
        return {}
    first = states(node)
    listed = node.attribute("scan_input_axes") or [0] * (len(node.inputs) - first)
    found = zip(range(first, len(node.inputs)), listed, strict=True)
    return {index: axis % len(known[key]) for index, axis in found if known.get(key := node.inputs[index])}


def stack_axis(node: Node, output: int, rank: int) -> int:
    """Return the axis of an output (of `rank` axes) along which a loop stacks what its turns give."""
    listed = node.attribute("scan_output_axes") if node.op_type == "Scan" else None
    return int(listed[output - states(node)]) % rank if listed else 0


def entering(node: Node, known: Known) -> list[tuple[int, Shape]] | None:
    """Return data type and shape of every input of a body, None where one is unknown."""
    if not is_followed(node):
        return None
    axes, found = slice_axes(node, known.shapes), list[tuple[int, Shape]]()
    for index, key in enumerate(node.inputs):
        whole = _type(known, key)
        if node.op_type == "Loop" and index < LOOP_OWN:
            found.append(((TensorProto.INT64, TensorProto.BOOL)[index], ()))
        elif whole is None or (node.op_type == "Scan" and index >= states(node) and index not in axes):
            return None
        else:
            kept = (size for axis, size in enumerate(whole[1]) if axis != axes.get(index))
            found.append((whole[0], tuple(kept)))
    return found


def leaving(node: Node, known: Known, made_up: int) -> list[tuple[int, Shape] | None]:
    """Return data type and shape of every output of a loop; `made_up` is a size that turns decide."""
    found: list[tuple[int, Shape] | None] = [None] * len(node.outputs)
    body = node.body
    if body is None or not is_followed(node):
        return found
    for index, given, output in state_places(node):
        before, after = _type(known, node.inputs[index]), _type(known, body.outputs[given])
        if before is not None and after is not None and len(before[1]) == len(after[1]):
            sizes = zip(before[1], after[1], strict=True)
            found[output] = (after[0], tuple(one if one == two else made_up for one, two in sizes))
    own = len(body.outputs) - len(node.outputs)
    for output in range(states(node), len(found)):
        one = _type(known, body.outputs[own + output])
        if one is not None:
            shape, axis = list(one[1]), stack_axis(node, output, len(one[1]) + 1)
            shape.insert(axis, _turns(node, known, made_up))
            found[output] = (one[0], tuple(shape))
    return found


def _turns(node: Node, known: Known, made_up: int) -> int:
    if node.op_type == "Loop":
        times = known.values.get(node.inputs[0])
        return int(times.reshape(-1)[0]) if times is not None and 0 < times.reshape(-1)[0] < 1 << 20 else made_up
    axes = slice_axes(node, known.shapes)
    lengths = [known.shapes[node.inputs[index]][axis] for index, axis in axes.items()]
    return lengths[0] if lengths else made_up


def _type(known: Known, key: str) -> tuple[int, Shape] | None:
    kind = known.types.get(key) if key else None
    if kind is None or key not in known.shapes:
        return None
    return int(kind.tensor_type.elem_type), known.shapes[key]
