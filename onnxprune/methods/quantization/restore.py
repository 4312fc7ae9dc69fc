"""Gives a quantized model back what the source says about itself: names, metadata, ports, declared shapes."""

from __future__ import annotations

import onnx

from onnxprune.graph.initializers import FREE_SINCE, settle
from onnxprune.methods.quantization.prepare import Prepared
from onnxprune.methods.quantization.recognise import nodes

LEAST_OPSET = 13
"""Of ONNX's operators in a model that had none of them before."""

WORDS = ("producer_name", "producer_version", "domain", "model_version", "doc_string")


def restore(proto: onnx.ModelProto, source: onnx.ModelProto, prepared: Prepared, *, ports: bool = True) -> None:
    """Edit a quantized model in place.

    Args:
        ports: inputs and outputs are those of the source (not where their type changes).
    """
    for word in WORDS:
        proto.ClearField(word)
        if source.HasField(word):
            setattr(proto, word, getattr(source, word))
    proto.ClearField("metadata_props")
    proto.metadata_props.extend(source.metadata_props)
    graph = proto.graph
    graph.name, graph.doc_string = source.graph.name, source.graph.doc_string
    graph.ClearField("metadata_props")
    graph.metadata_props.extend(source.graph.metadata_props)
    if ports:
        _ports(graph, source.graph)
    else:
        inputs = {value.name: value for value in graph.input}
        graph.output.extend(inputs[value.name] for value in source.graph.output if value.name in inputs)
    _declared(graph, source.graph)
    for node in nodes(graph):
        if node.name in prepared.names:
            node.name = prepared.names[node.name]
    _opsets(proto, source)
    oldest = source.ir_version < FREE_SINCE  # its stored tensors are constants as long as it stays that old
    proto.ir_version = source.ir_version if oldest else max(proto.ir_version, source.ir_version)
    settle(proto)


def _ports(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    weights = {tensor.name for tensor in source.initializer}
    weights |= {sparse.values.name for sparse in source.sparse_initializer}
    inputs = [
        value
        for value in source.input
        if value.name not in weights or stored.get(value.name) == value.type.tensor_type.elem_type
    ]
    for field, values in (("input", inputs), ("output", list(source.output))):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _declared(graph: onnx.GraphProto, source: onnx.GraphProto) -> None:
    """Keep the declared shapes that the source has, as far as tensor and type are still there."""
    made = {name for node in graph.node for name in node.output}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    kept = [
        value
        for value in source.value_info
        if value.name in made and types.get(value.name, value.type.tensor_type.elem_type) == _type(value)
    ]
    graph.ClearField("value_info")
    graph.value_info.extend(kept)


def _type(value: onnx.ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _opsets(proto: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Drop the operator sets that nothing uses, but for those of the source."""
    used = {node.domain for node in nodes(proto.graph)} | {o.domain for o in source.opset_import}
    used |= {function.domain for function in proto.functions}
    kept = [o for o in proto.opset_import if o.domain in used or o.domain in ("", "ai.onnx")]
    copies = [onnx.OperatorSetIdProto.FromString(o.SerializeToString()) for o in kept]
    proto.ClearField("opset_import")
    proto.opset_import.extend(copies)
    present = {"" if o.domain == "ai.onnx" else o.domain for o in copies}
    for domain in sorted({"" if d == "ai.onnx" else d for d in used} - present):
        proto.opset_import.append(onnx.helper.make_opsetid(domain, LEAST_OPSET if not domain else 1))
