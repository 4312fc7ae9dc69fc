"""A camera without colour: the channels of an input become one, where the model sees that they are equal.

y = f(x, x, x) for a single channel x. What is done to every channel alike is done once; at the first operator that
tells channels apart, a Conv sums the slices of its weight, anything else gets the channel copied. Exact for equal
channels, up to rounding of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.errors import NothingToPruneError, UsageError
from onnxprune.graph.initializers import add, free_name
from onnxprune.graph.model import Model
from onnxprune.graph.trace import trace
from onnxprune.graph.view import Node, View

ALIKE = frozenset("Identity Cast Relu LeakyRelu Sigmoid Tanh Clip Neg Abs Sqrt Exp Log Add Sub Mul Div Pow".split())
"""Operators that do the same to every channel as long as their other inputs are scalars."""


@dataclass(frozen=True)
class _SingleChannel:
    """A tensor whose axis `axis` has one channel now."""

    key: str
    axis: int


def make_gray(model: Model, name: str) -> onnx.ModelProto:
    """Return the model with one channel instead of three (or any number) in an input.

    Raises:
        UsageError: there is no such input, or it has no axis of three channels.
        NothingToPruneError: a body or function reads it.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    view = View(Model(proto, model.path))
    if name not in view.inputs:
        raise UsageError(f"the model has no input '{name}'; there are {', '.join(view.inputs)}.")
    traced = trace(view, {})
    shape = traced.shapes.get(name, ())
    axis = _axis(view, name, shape)
    view.inputs[name].type.tensor_type.shape.dim[axis].dim_value = 1
    stale = _narrow(proto, view, traced.shapes, _SingleChannel(name, axis), shape[axis])
    for value in [v for v in proto.graph.value_info if v.name in stale]:
        proto.graph.value_info.remove(value)
    return proto


def channel_axis(model: Model, name: str) -> int:
    """Return the axis of an input that has its three channels.

    Raises:
        UsageError: there is none.
    """
    view = View(model)
    return _axis(view, name, trace(view, {}).shapes.get(name, ()))


def _axis(view: View, name: str, shape: tuple[int, ...]) -> int:
    dims = view.inputs[name].type.tensor_type.shape.dim
    static = [axis for axis, dim in enumerate(dims) if dim.HasField("dim_value") and len(shape) in (3, 4, 5)]
    for axis in (1, len(shape) - 1, 0):
        if axis in static and shape[axis] == 3:
            return axis
    raise UsageError(f"input '{name}' has shape {list(shape)}; an axis of three channels was expected.")


def _narrow(
    proto: onnx.ModelProto, view: View, shapes: dict[str, tuple[int, ...]], start: _SingleChannel, channels: int
) -> set[str]:
    """Follow the single channel; return the tensors whose declared shape holds no more."""
    places = {start.key: start}
    before: dict[int, list[onnx.NodeProto]] = {}
    stale: set[str] = set()
    for node in view.nodes:
        held = [index for index, key in enumerate(node.inputs) if key in places]
        if start.key in node.captured or any(places.get(key) for key in node.captured):
            raise NothingToPruneError(f"{node.label}: its body reads the channels of '{start.key}'; they stay.")
        if not held:
            continue
        place = places[node.inputs[held[0]]]
        if _is_alike(view, shapes, node, held):
            places[node.outputs[0]] = _SingleChannel(node.outputs[0], place.axis)
            stale.add(node.outputs[0])
        elif node.op_type == "Transpose":
            rank = len(shapes[place.key])
            order = [int(a) for a in node.attribute("perm", list(range(rank))[::-1])]
            places[node.outputs[0]] = _SingleChannel(node.outputs[0], order.index(place.axis))
            stale.add(node.outputs[0])
        elif not (held == [0] and place.axis == 1 and _sum_slices(proto, view, node)):
            for index in held:
                _copy_channel(proto, before, node, index, places[node.inputs[index]], channels)
    if before:
        nodes = [n for old in proto.graph.node for n in (*before.get(id(old), ()), old)]
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(copies)
    if any(output in places for output in view.outputs):
        raise NothingToPruneError(f"an output has the channels of '{start.key}'; they stay.")
    return stale


def _is_alike(view: View, shapes: dict[str, tuple[int, ...]], node: Node, held: list[int]) -> bool:
    if node.domain or node.op_type not in ALIKE:
        return False
    return all(
        index in held or not key or int(np.prod(shapes.get(key, (2,)))) == 1 for index, key in enumerate(node.inputs)
    )


def _sum_slices(proto: onnx.ModelProto, view: View, node: Node) -> bool:
    """Let a Conv read one channel: its weight is summed over the channels."""
    parameter = view.parameters.get(view.root(node.inputs[1])) if node.op_type == "Conv" else None
    if node.domain or parameter is None or node.attribute("group", 1) != 1 or node.graph is not proto.graph:
        return False
    weight = view.content(parameter.key)
    summed = np.sum(weight.astype(np.float64), axis=1, keepdims=True).astype(weight.dtype)
    node.proto.input[1] = add(proto, free_name(f"{node.proto.input[1]}_gray", view.keys), summed).name
    return True


def _copy_channel(
    proto: onnx.ModelProto,
    before: dict[int, list[onnx.NodeProto]],
    node: Node,
    index: int,
    place: _SingleChannel,
    count: int,
) -> None:
    """Give a node that tells channels apart the channel as often as it expects it."""
    if node.graph is not proto.graph:
        raise NothingToPruneError(f"{node.label}: it is in a body and reads channels of an input; they stay.")
    source = node.proto.input[index]
    name = f"{source}_copied_{node.proto.output[0]}"
    before.setdefault(id(node.proto), []).append(
        onnx.helper.make_node("Concat", [source] * count, [name], name=name, axis=place.axis)
    )
    node.proto.input[index] = name
