"""A matrix that is both an embedding and the head behind it: the head gets rows of its own, which can go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnxprune.graph import initializers
from onnxprune.graph.model import Model
from onnxprune.graph.tensors import is_external
from onnxprune.graph.view import Node, View


def untied(model: Model) -> tuple[Model, tuple[str, ...]] | None:
    """Return the model whose tables that are looked up have no other readers, and the copies that these read.

    None where there is no table with other readers in the main graph.
    """
    view, proto = View(model), onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes = {id(given): copy for given, copy in zip(view.model.proto.graph.node, proto.graph.node, strict=True)}
    taken, copies, pending = set(view.keys), list[str](), dict(model.pending)
    for key, parameter in view.parameters.items():
        readers = [(node, index) for node, index in view.readers.get(key, []) if id(node.proto) in nodes]
        others = [(node, index) for node, index in readers if not _looks_up(view, node, index)]
        if not others or len(others) == len(readers) or len(parameter.dims) != 2:
            continue
        name = initializers.free_name(f"{key}_head", taken)
        if is_external(parameter.tensor):
            initializers.add_external(proto, name, parameter.tensor, parameter.dims, parameter.data_type)
            pending |= {name: model.pending[key]} if key in model.pending else {}
        else:
            initializers.add(proto, name, np.asarray(view.content(key)), parameter.data_type)
        for node, index in others:
            nodes[id(node.proto)].input[index] = name
        copies.append(name)
    return (replace(model, proto=proto, pending=pending, file_bytes=None), tuple(copies)) if copies else None


def _looks_up(view: View, node: Node, index: int) -> bool:
    """Tell whether a node takes rows of its input by numbers that are computed."""
    looks = node.op_type == "Gather" and index == 0 and int(node.attribute("axis", 0)) == 0
    return looks and view.root(node.inputs[1]) not in view.parameters
