"""Make a graph of derivatives cheaper without changing what it gives."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from onnxprune.graph.bodies import reads


def without_dead(proto: onnx.ModelProto) -> None:
    """Take out the nodes that no output depends on: derivatives nobody asked for; edits the graph.

    onnxruntime runs them otherwise.
    """
    needed = {value.name for value in proto.graph.output}
    kept = []
    for node in reversed(proto.graph.node):
        if any(name in needed for name in node.output):
            needed.update(reads(node))
            kept.append(node)
    set_nodes(proto, reversed(kept))
    stored = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(stored)


def set_nodes(proto: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the nodes of a graph; they may be its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)
