"""Take away what a change has left without a reader; what had none before stays, it is the user's."""

from __future__ import annotations

import onnx

from onnxprune.graph.bodies import named_bodies, read_tensors
from onnxprune.graph.model import Model


def swept(model: Model, before: Model) -> Model:
    """Return the model without the nodes and initializers that were needed before and are not any more.

    Args:
        before: the model with the same nodes, before some of them got other inputs.
    """
    if len(model.proto.graph.initializer) == len(before.proto.graph.initializer):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    _sweep(proto.graph, before.proto.graph)
    left = {tensor.name for tensor in proto.graph.initializer}
    gone = {tensor.name for tensor in model.proto.graph.initializer} - left
    return Model(proto, model.path, {key: make for key, make in model.pending.items() if key not in gone})


def _sweep(graph: onnx.GraphProto, before: onnx.GraphProto) -> None:
    if len(graph.node) != len(before.node):
        return
    for node, twin in zip(graph.node, before.node, strict=True):
        bodies = dict(named_bodies(twin))
        for attribute, body in named_bodies(node):
            _sweep(body, bodies[attribute])
    gone = read_tensors(before) - read_tensors(graph)
    for number in reversed(range(len(graph.node))):
        outputs = {name for name in graph.node[number].output if name}
        if outputs & gone and not outputs - gone - _unread(before, outputs):
            del graph.node[number]
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name in gone:
            del graph.initializer[number]
    for number in reversed(range(len(graph.value_info))):
        if graph.value_info[number].name in gone:
            del graph.value_info[number]


def _unread(graph: onnx.GraphProto, names: set[str]) -> set[str]:
    return names - read_tensors(graph)
