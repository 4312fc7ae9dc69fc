"""Makes what a quantizer added to a graph small: names, zero points, constants that are equal.

A quantizer gives every tensor two or three constants and two nodes, with names made of the tensor's own: in a small
network that is more than a quarter of the file. What the source named keeps its name; values do not change.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from itertools import count

import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.graph.tensors import to_array
from onnxprune.methods.quantization.lift import SHARED_ELEMENTS, all_names, captured_names, remove_unused

STORED_SUFFIX = "_quantized"
NODE_SUFFIX = "_quant"
"""What onnxruntime's quantizers put behind the name of a stored tensor, and of a node that they replace."""

INTEGERS = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32})


def compact(proto: onnx.ModelProto, own: onnx.ModelProto, prepared: onnx.ModelProto) -> None:
    """Edit a quantized model in place; it gives what it gave.

    Args:
        own: the source, whose names stay.
        prepared: what was quantized: names of its nodes and activations stay as well, by which layers are found.
    """
    graph = proto.graph
    _drop_zero_points(graph)
    remove_unused(graph)
    stored = {tensor.name for tensor in own.graph.initializer}
    stored |= {name for node in own.graph.node if node.op_type == "Constant" for name in node.output}
    kept = stored | {*_names(own.graph)} | {name for node in prepared.graph.node for name in node.output}
    _share(graph, kept)
    _give_back(graph, stored)
    _shorten(graph, kept)
    _name_nodes(graph, {node.name for node in prepared.graph.node})


def _drop_zero_points(graph: onnx.GraphProto) -> None:
    """Leave out zero points of zero where the specification and onnxruntime's fusion into QLinearConv do.

    A product's weight keeps its own: onnxruntime fuses no QGemm without.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, set[str]] = defaultdict(set)
    for node in graph.node:
        for name in node.input:
            readers[name].add(node.op_type)
    for node in graph.node:
        if node.op_type == "QLinearConv" and _is_zero(stored.get(node.input[5])):
            tensor = stored[node.input[5]]
            value = to_array(tensor).reshape(-1)[:1].reshape(())
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        if node.op_type != "DequantizeLinear" or len(node.input) != 3 or node.input[0] not in stored:
            continue
        is_bias = stored[node.input[0]].data_type == TensorProto.INT32
        if (is_bias or readers[node.output[0]] == {"Conv"}) and _is_zero(stored.get(node.input[2])):
            del node.input[2]


def _is_zero(tensor: TensorProto | None) -> bool:
    return tensor is not None and not to_array(tensor).any()


def _share(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Let equal small constants that the quantizer made be one."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name in kept or math.prod(tensor.dims) > SHARED_ELEMENTS:
            continue
        array = to_array(tensor)
        key = f"{tensor.data_type} {array.shape} ".encode() + array.tobytes()
        same[tensor.name] = first.setdefault(key, tensor.name)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for node in graph.node:
        node.input[:] = [same.get(name, name) for name in node.input]
    remove_unused(graph)


def _give_back(graph: onnx.GraphProto, stored: Collection[str]) -> None:
    """Let the integers of a stored tensor have its name; what dequantizes them, if it had the name, gets another."""
    present = {tensor.name for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    fixed = {value.name for value in (*graph.output, *graph.input)} | captured_names(graph)
    new: dict[str, str] = {}
    for tensor in graph.initializer:
        name = tensor.name.removesuffix(STORED_SUFFIX)
        free = name in stored and name not in present and name not in fixed
        if tensor.data_type not in INTEGERS or name == tensor.name or not free:
            continue
        if name in made and made[name].op_type != "DequantizeLinear":
            continue
        new |= {name: f"{tensor.name} as float", tensor.name: name}
    _rename(graph, lambda name: new.get(name, name))


def _shorten(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Give what the quantizer named a number instead."""
    taken = {*kept, *all_names(graph)}
    numbers = (name for number in count() if (name := f"q{number}") not in taken)
    fixed = {*kept, *captured_names(graph)}
    new = {name: next(numbers) for name in _names(graph) if name and name not in fixed}
    _rename(graph, lambda name: new.get(name, name))


def _name_nodes(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Leave the nodes that the quantizer added without a name, and give those that it replaced theirs."""
    present = {node.name for node in graph.node}
    for node in graph.node:
        if node.name not in kept:
            name = node.name.removesuffix(NODE_SUFFIX)
            node.name = name if name in kept and name not in present else ""


def _rename(graph: onnx.GraphProto, new: Callable[[str], str]) -> None:
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info):
        value.name = new(value.name)


def _names(graph: onnx.GraphProto) -> dict[str, None]:
    """Return all names of tensors of a graph, in their order."""

    def found() -> Iterator[str]:
        yield from (value.name for value in (*graph.input, *graph.output))
        for node in graph.node:
            yield from node.input
            yield from node.output
        yield from (tensor.name for tensor in graph.initializer)

    return dict.fromkeys(found())
