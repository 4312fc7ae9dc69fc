"""What a model is without the values that are learned: operators, names, connections, shapes.

A network that was trained again and exported by the same program has the same structure. Numbers that are no weights
(targets of Reshape, axes, sizes: whole numbers and truth values) are part of it, floating-point values are not.
"""

from __future__ import annotations

import hashlib

import onnx

FLOATS = frozenset(
    number for name, number in onnx.TensorProto.DataType.items() if name.startswith(("FLOAT", "DOUBLE", "BFLOAT"))
)
WHOLE_BYTES = 1 << 12
"""Whole numbers beyond that are weights in few bits, or tables."""


def structure_of(proto: onnx.ModelProto) -> str:
    """Return a hash of all of a model but its weights and what is said about it."""
    plain = onnx.ModelProto()
    plain.opset_import.extend(sorted(proto.opset_import, key=lambda item: item.domain))
    plain.functions.extend(proto.functions)
    _copy(proto.graph, plain.graph)
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).hexdigest()


def counts_of(proto: onnx.ModelProto) -> str:
    """Return how many nodes and stored tensors there are, as people read it."""
    return f"{len(proto.graph.node)} nodes and {len(proto.graph.initializer)} stored tensors"


def _copy(graph: onnx.GraphProto, plain: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        plain.initializer.append(_without_values(tensor))
    for ports, target in ((graph.input, plain.input), (graph.output, plain.output)):
        for port in ports:
            target.add(name=port.name, type=port.type)
    for node in graph.node:
        made = plain.node.add(
            op_type=node.op_type, domain=node.domain, name=node.name, input=node.input, output=node.output
        )
        for attribute in node.attribute:
            _copy_attribute(attribute, made.attribute.add())


def _copy_attribute(attribute: onnx.AttributeProto, made: onnx.AttributeProto) -> None:
    if attribute.HasField("g"):
        made.name, made.type = attribute.name, attribute.type
        _copy(attribute.g, made.g)
        return
    made.CopyFrom(attribute)
    made.ClearField("doc_string")
    if attribute.HasField("t"):
        made.t.CopyFrom(_without_values(attribute.t))
    for place, graph in enumerate(attribute.graphs):
        made.graphs[place].Clear()
        _copy(graph, made.graphs[place])


def _without_values(tensor: onnx.TensorProto) -> onnx.TensorProto:
    plain = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    learned = tensor.data_type in FLOATS or tensor.ByteSize() > WHOLE_BYTES or tensor.external_data
    if not learned:
        plain.raw_data = onnx.numpy_helper.to_array(tensor).tobytes() if tensor.data_type != tensor.STRING else b""
        plain.string_data.extend(tensor.string_data)
    return plain
