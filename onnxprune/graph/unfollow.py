"""Carries what a refit changed in the followed form of a model back into the model that has its If nodes still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxprune.errors import ModelError
from onnxprune.graph.bodies import graph_at, made_names, value_of
from onnxprune.graph.follow import Followed
from onnxprune.graph.initializers import free_name
from onnxprune.graph.model import Model


def restore(changed: Model, form: Model, source: Model) -> Model:
    """Return the source with the values that a refit gave to its followed form.

    Args:
        changed: the form with other values of stored tensors, or with new initializers that some nodes read instead.
        form: as `follow` made it from `source`.

    Raises:
        ModelError: nodes came or went.
    """
    if not isinstance(form, Followed):
        return changed
    before, after = form.proto.graph, changed.proto.graph
    if [n.op_type for n in before.node] != [n.op_type for n in after.node]:
        raise ModelError("the refit changed nodes of a followed branch; this is a defect of onnxprune.")
    proto = onnx.ModelProto()
    proto.CopyFrom(source.proto)
    old = {tensor.name: tensor for tensor in before.initializer}
    names, taken = dict[str, str](), set(made_names(proto.graph))
    for tensor in after.initializer:
        if tensor.name not in old:
            names[tensor.name] = free_name(tensor.name, taken)
            proto.graph.initializer.add().CopyFrom(tensor)
            proto.graph.initializer[-1].name = names[tensor.name]
        elif tensor != old[tensor.name]:
            lifted = tensor.name in form.constants
            path, number = (form.constants if lifted else form.tensors)[tensor.name]
            graph = graph_at(proto.graph, path)
            target = value_of(graph.node[number]) if lifted else graph.initializer[number]
            name = target.name
            target.CopyFrom(tensor)
            target.name = name
    done: set[str] = set()
    turned = {n.output[0] for n in before.node if n.op_type == "Transpose"}
    for number, (place, one, two) in enumerate(zip(form.nodes, before.node, after.node, strict=True)):
        if place is None or one == two:
            continue
        wires = form.wires.get(number, range(len(two.input)))
        for index in (i for i in range(len(one.input)) if number in form.wires and one.input[i] in turned):
            if two.input[index] in names and two.input[index] not in done:
                _turn(proto.graph, names[two.input[index]])
                done.add(two.input[index])
        _change(graph_at(proto.graph, place[0]).node[place[1]], one, two, names, wires)
    return Model(proto, source.path, dict(changed.pending))


def _turn(graph: onnx.GraphProto, name: str) -> None:
    """Turn a new matrix round: the node that gets it reads it the other way than its twin did."""
    for tensor in graph.initializer:
        if name and tensor.name == name:
            array = onnx.numpy_helper.to_array(tensor).T
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(array, order="C"), name))


def _change(
    target: onnx.NodeProto,
    before: onnx.NodeProto,
    after: onnx.NodeProto,
    names: Mapping[str, str],
    wires: Sequence[int],
) -> None:
    """Give a node of the source the new constants of its twin, or of one of the parts that it is written as."""
    for index, name in enumerate(after.input):
        if index >= len(before.input) or name != before.input[index]:
            place = wires[index]
            target.input.extend([""] * (place + 1 - len(target.input)))
            target.input[place] = names.get(name, "")
    for attribute in target.attribute:
        twin = next((a for a in after.attribute if a.name == attribute.name), None)
        if twin is not None and attribute.type == onnx.AttributeProto.TENSOR:
            name = attribute.t.name
            attribute.t.CopyFrom(twin.t)
            attribute.t.name = name
